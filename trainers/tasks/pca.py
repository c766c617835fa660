"""`latentray train pca`: the linear codec of a data set in closed form, in one pass over its films and in bounded memory."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

import engine
from engine import metrics
from engine.code_step import record_step
from engine.encode.codec import Codec, load_codec, save_codec
from engine.encode.codec_directory import check_destination
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec
from engine.errors import CodecError, ConfigError
from engine.recipe import PixelRecipe
from trainers.films import Films
from trainers.presets.pca import PcaConfig
from trainers.reservoir import Reservoir
from trainers.streamed_pca import PcaFit, StreamedPca

log = logging.getLogger(__name__)

_WEIGHTS = "pca.safetensors"
_SAMPLE = 128  # films on which PSNR is measured
_SPARE_ROWS = 64


@dataclass(frozen=True)
class PcaReport:
    """What a fit came to. `explained_variance` is the share of the films' variance; `psnr` the mean over `psnr_films` training films.

    PSNR is in dB, at the codec's resolution, between the film and what the saved codec makes of it.
    """

    codec: str
    digest: str
    films: int
    failed: int
    failed_fraction: float
    components: int
    resolution: int
    is_exact: bool
    explained_variance: float
    explained_variance_by_components: dict[int, float]
    psnr: float
    psnr_films: int
    seconds: float


def fit_pca(source: str, out: str | Path, cfg: PcaConfig | None = None) -> PcaReport:
    """Fits a PCA codec on the films of `source` (as `encode` takes them) and writes the codec directory `out` with `metrics.jsonl`.

    Fewer films than coefficients make fewer coefficients, with a warning. Raises SourceError where films cannot be listed or read,
    ConfigError with fewer than two different films, CodecError where `out` is something else than a codec directory.
    """
    cfg = cfg or PcaConfig()
    out = Path(out)
    check_destination(out)
    start = perf_counter()
    recipe = PixelRecipe(resolution=cfg.resolution)
    sample = Reservoir(_SAMPLE, seed=cfg.seed)
    with tempfile.TemporaryDirectory(prefix="latentray-pca-") as folder:
        films = Films(source, Path(folder), recipe, limit=cfg.images or None, batch_size=cfg.batch_size, decode=cfg.decode)
        fit = _fit(films, sample, cfg)
    save_codec(out, _spec(fit, films, recipe, cfg, source), weights={_WEIGHTS: _tensors(fit, cfg)})
    record_step(out, sample.films(), margin_db=0)  # on films of the fit, which come out better than others do
    report = _report(load_codec(out), out, fit, films, sample, seconds=perf_counter() - start)
    _write_metrics(out / "metrics.jsonl", report)
    return report


def _fit(films: Films, sample: Reservoir, cfg: PcaConfig) -> PcaFit:
    pixels = cfg.resolution**2
    keep = 2 * cfg.components
    rows = max(cfg.buffer_bytes // (4 * pixels), keep + _SPARE_ROWS)
    pca = StreamedPca(pixels, rows=rows, keep=keep)
    for batch in films.batches():
        pca.add(batch.flatten(1))
        sample.add(batch)
    if pca.num_films < 2:
        raise ConfigError(f"a PCA codec needs at least two films that can be read: {pca.num_films}")
    fit = pca.finish(min(cfg.components, pixels))
    made = len(fit.components)
    if made == 0:
        raise ConfigError(f"the films are all alike, so they have no components: {fit.num_films} films")
    if made < cfg.components:
        log.warning("%d films have %d directions, so the codec has as many components: %d", fit.num_films, made, made)
    return fit


def _spec(fit: PcaFit, films: Films, recipe: PixelRecipe, cfg: PcaConfig, source: str) -> CodecSpec:
    k = len(fit.components)
    part = NetworkSpec(network="pca", settings={"resolution": cfg.resolution, "components": k}, weights=_WEIGHTS)
    kind = films.plan.about.kind  # never a path: it could name a patient
    data = {"kind": kind, "films": films.num_films, "failed": films.num_failed, "plan_digest": films.plan.digest}
    return CodecSpec(
        name=f"pca-{k}-at-{cfg.resolution}",
        encoder=part,
        generator=part,
        code=CodeSpec(dims=("layer", "channel"), shape=(1, k), gauge="none", mean="zero"),  # whitened, so the mean is zero
        recipe=recipe,
        licence="not stated; that of the films it was fitted on applies",
        provenance={
            "task": "pca",
            "data": data | ({"source": source} if kind == "phantom" else {}),
            "method": "exact" if fit.is_exact else "streamed",
            "seed": cfg.seed,
            "software": {"latentray": engine.__version__, "torch": torch.__version__, "numpy": np.__version__},
        },
    )


def _tensors(fit: PcaFit, cfg: PcaConfig) -> dict[str, torch.Tensor]:
    stored = torch.float16 if cfg.storage == "float16" else torch.float32
    return {"mean": fit.mean, "components": fit.components.to(stored), "scale": fit.scale}


def _report(codec: Codec, out: Path, fit: PcaFit, films: Films, sample: Reservoir, *, seconds: float) -> PcaReport:
    pixels = sample.films()
    rebuilt = codec.generate(codec.encode(pixels))
    psnr = metrics.psnr(metrics.to_unit(rebuilt), metrics.to_unit(pixels))
    k = len(fit.components)
    return PcaReport(
        codec=str(out),
        digest=codec.digest,
        films=films.num_films,
        failed=films.num_failed,
        failed_fraction=films.failed_fraction,
        components=k,
        resolution=codec.recipe.resolution,
        is_exact=fit.is_exact,
        explained_variance=float(fit.explained[-1]),
        explained_variance_by_components={n: float(fit.explained[n - 1]) for n in (*(2**i for i in range(12) if 2**i < k), k)},
        psnr=float(psnr.mean()),
        psnr_films=len(pixels),
        seconds=seconds,
    )


def _write_metrics(file: Path, report: PcaReport) -> None:
    measured = {name: value for name, value in vars(report).items() if name != "codec"}
    try:
        file.write_text(json.dumps({"task": "pca", **measured}) + "\n")
    except OSError as error:
        raise CodecError(f"metrics cannot be written ({error.strerror}): {file}") from None
