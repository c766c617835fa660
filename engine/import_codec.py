"""Published checkpoints become codec directories, or weights files for a loss: what `latentray import-checkpoint` does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

import engine
from engine.config import check_at_least
from engine.encode.backends import find_device
from engine.encode.codec import Codec, codec_files, load_codec, load_codec_files, save_codec
from engine.encode.codec_directory import check_destination, write_aside
from engine.encode.codec_spec import CodecSpec, CodeSpec, NetworkSpec, WeightsFile
from engine.encode.mean_code import find_mean_code
from engine.encode.precision import whole_float32
from engine.encode.weights import fill, read_tensors
from engine.errors import CodecError, ConfigError
from engine.networks.importers.checkpoint import read_checkpoint
from engine.networks.importers.imported_network import ImportedNetwork, ImportedRole
from engine.networks.registry import build_network
from engine.recipe import PixelRecipe
from engine.refine.weight_files import FILES

NOT_STATED = "not stated"
MEAN_FILMS = 256
_ENCODER, _GENERATOR, _MEAN, _COARSE = (f"{part}.safetensors" for part in ("encoder", "generator", "mean", "coarse"))
MAP_RESOLUTION = 1024  # of films for a network that takes any; what the metrics look at
_BATCH = 4  # films of 1024x1024 at a time, while the mean code is looked for

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What came of a checkpoint. `written`: the codec's name, or the weights file; `digest` and `licence` are those of what was written."""

    role: ImportedRole
    layout: str
    network: str
    settings: dict[str, Any]
    values: int
    is_average: bool | None
    file_sha256: str
    licence: str
    written: str
    digest: str = ""
    has_encoder: bool = False
    has_mean_code: bool = False
    has_coarse_heads: bool = False


def import_checkpoint(
    file: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    licence: str = NOT_STATED,
    codec: str | None = None,
    mean_films: int = MEAN_FILMS,
    resolution: int | None = None,
    strip_rows: int | None = None,
    dry_run: bool = False,
    say: Say = lambda text: None,
) -> ImportReport:
    """Reads a published file (`networks.importers`) and writes what the engine takes, into the directory `out`.

    A generator becomes a codec without an encoder: codes on the sphere, films squared with black, and as the mean code, of `mean_films`
    random ones (0: none), the one whose film is nearest to their mean film (`encode.mean_code`). An encoder joins the generator, mean
    code and coarse heads of the directory `codec`. An autoencoder becomes a codec of maps for films of `resolution` (1024), computed
    `strip_rows` rows at a time (0: all at once, which is also the default); its mean code is zero. Weights of a loss become one file of
    safetensors that `--weights out` finds.
    `dry_run` reads and checks, and writes nothing. `say` is told of what takes long.
    Raises CodecError as `read_checkpoint`, where `out` holds something else, and where encoder and codec do not fit; ConfigError.
    """
    check_at_least("mean-films", mean_films, 0)
    if not licence.strip() or len(licence.splitlines()) != 1 or len(licence) > 1000:
        raise ConfigError(f"licence must be one line of 1 to 1000 characters: {licence!r:.100}")
    found = read_checkpoint(file)
    _check_sizes(found, file, resolution=resolution, strip_rows=strip_rows)
    _check_request(found, file, name=name, codec=codec)
    if found.role == "features":
        return _weights_file(found, Path(out), licence, dry_run=dry_run)
    check_destination(Path(out))
    if found.role == "encoder":
        assert codec is not None, "asked for by `_check_request`"
        spec, weights = _joined(found, codec, name, licence)
    elif found.role == "codec":
        sizes = {"resolution": MAP_RESOLUTION if resolution is None else resolution, "strip_rows": strip_rows or 0}
        spec, weights = _autoencoder(found, name, licence, sizes)
    else:
        spec, weights = _generator_alone(found, name, licence)
        if mean_films and not dry_run:
            spec, weights = _with_mean_code(spec, weights, mean_films, say)
    digest = ""
    if not dry_run:
        save_codec(out, spec, weights=weights)
        digest = load_codec(out).digest
    return _report(
        found,
        spec.licence,
        spec.name,
        digest=digest,
        has_encoder=spec.encoder is not None,
        has_mean_code=spec.code.mean is not None or (found.role == "generator" and mean_films > 0),
        has_coarse_heads=spec.coarse is not None,
    )


def _check_request(found: ImportedNetwork, file: str | Path, *, name: str | None, codec: str | None) -> None:
    if found.role == "encoder" and codec is None:
        raise ConfigError(f"the file holds an encoder only; name the codec whose generator it was trained for with --codec DIR: {file}")
    if found.role != "encoder" and codec is not None:
        raise ConfigError(f"--codec is for a file with an encoder; this one holds the network {found.network}: {file}")
    if found.role == "features" and name is not None:
        raise ConfigError(f"weights of a loss become a file that keeps its published name, so --name has no use: {name}")


def _check_sizes(found: ImportedNetwork, file: str | Path, **sizes: int | None) -> None:
    given = [name.replace("_", "-") for name, value in sizes.items() if value is not None]
    if given and found.role != "codec":
        raise ConfigError(f"--{given[0]} is for an autoencoder, whose films may have any size; this is the network {found.network}: {file}")


def _autoencoder(
    found: ImportedNetwork, name: str | None, licence: str, sizes: dict[str, int]
) -> tuple[CodecSpec, dict[str, Mapping[str, Tensor]]]:
    assert found.encoder is not None, "a codec has both"
    generator, encoder = ({**part.settings, **sizes} for part in (found, found.encoder))
    with torch.device("meta"):
        network = build_network("generator", found.network, generator)
    shape = network.code_shape
    assert isinstance(shape, tuple)
    spec = CodecSpec(
        name=name or f"{found.layout}-{2 ** (len(generator['widths']) - 1)}x{shape[0]}-{sizes['resolution']}",
        encoder=NetworkSpec(network=found.encoder.network, settings=encoder, weights=_ENCODER),
        generator=NetworkSpec(network=found.network, settings=generator, weights=_GENERATOR),
        # zero is the mean of the normal distribution that the posteriors were drawn towards
        code=CodeSpec(dims=("channel", "y", "x"), shape=shape, gauge="none", mean="zero"),
        recipe=PixelRecipe(resolution=sizes["resolution"], **found.recipe),
        licence=licence,
        provenance={"imported": {"autoencoder": _origin(found, licence)}, "software": _software()},
    )
    return spec, {_ENCODER: found.encoder.state, _GENERATOR: found.state}


def _generator_alone(found: ImportedNetwork, name: str | None, licence: str) -> tuple[CodecSpec, dict[str, Mapping[str, Tensor]]]:
    with torch.device("meta"):
        network = build_network("generator", found.network, found.settings)
    resolution, shape = network.resolution, network.code_shape
    assert isinstance(resolution, int)
    assert isinstance(shape, tuple)
    spec = CodecSpec(
        name=name or f"{found.layout}-{resolution}",
        encoder=None,
        generator=NetworkSpec(network=found.network, settings=found.settings, weights=_GENERATOR),
        code=CodeSpec(dims=("layer", "channel"), shape=shape, gauge="sphere"),
        recipe=PixelRecipe(resolution=resolution),
        licence=licence,
        provenance={"imported": {"generator": _origin(found, licence)}, "software": _software()},
    )
    return spec, {_GENERATOR: found.state}


def _with_mean_code(
    spec: CodecSpec, weights: Mapping[str, Mapping[str, Tensor]], films: int, say: Say
) -> tuple[CodecSpec, dict[str, Mapping[str, Tensor]]]:
    """The mean direction of N(0, I) is none, so it is a code whose film is near the mean film."""
    size = f"{spec.recipe.resolution}x{spec.recipe.resolution}"
    say(f"making {films} films of {size} to find the code in their middle; --mean-films N makes fewer, 0 none")
    with torch.device("meta"):
        network = build_network("generator", spec.generator.network, spec.generator.settings)
    fill(network, weights[_GENERATOR], _GENERATOR)
    device = find_device(None)
    alone = Codec(spec, encoder=None, generator=network, mean=None, digest="").to(device)
    with whole_float32():
        generate = alone.frozen_generator(torch.float32).to(device)
        mean = find_mean_code(generate, spec.code.shape, gauge=spec.code.gauge, samples=films, batch_size=_BATCH, device=device)
    code = replace(spec.code, mean=WeightsFile(weights=_MEAN))
    provenance = {**spec.provenance, "mean_code": {"films": films, "seed": 0}}
    return replace(spec, code=code, provenance=provenance), {**weights, _MEAN: {"mean": mean}}


def _joined(found: ImportedNetwork, directory: str, name: str | None, licence: str) -> tuple[CodecSpec, dict[str, Mapping[str, Tensor]]]:
    """The codec in `directory` with this encoder in place of its own, if it has one."""
    files = codec_files(directory)
    former = load_codec_files(files, origin=f"codec {directory}")
    spec, mean, coarse = former.spec, former.spec.code.mean, former.spec.coarse
    size = found.settings["code_size"]
    if spec.code.shape != (1, size) or spec.code.gauge != "sphere":
        raise CodecError(
            f"the encoder makes codes of [1, {size}] for a generator that ignores their length, the codec's are others: "
            f"{list(spec.code.shape)}, gauge {spec.code.gauge}"
        )

    def tensors(part: WeightsFile) -> dict[str, Tensor]:
        return read_tensors(part.weights, files[part.weights])

    weights: dict[str, Mapping[str, Tensor]] = {_ENCODER: found.state, _GENERATOR: tensors(spec.generator)}
    if isinstance(mean, WeightsFile):
        weights[_MEAN] = tensors(mean)
        mean = WeightsFile(weights=_MEAN)
    if coarse is not None:
        weights[_COARSE] = tensors(coarse)
        coarse = WeightsFile(weights=_COARSE)
    before = spec.provenance.get("imported")
    imported = {**(before if isinstance(before, dict) else {}), "encoder": _origin(found, licence)}
    joined = replace(
        spec,
        name=name or f"{spec.name.removesuffix(f'-{found.layout}')}-{found.layout}",
        encoder=NetworkSpec(network=found.network, settings=found.settings, weights=_ENCODER),
        generator=replace(spec.generator, weights=_GENERATOR, sha256=""),
        code=replace(spec.code, mean=mean),
        coarse=coarse,
        licence=licence if licence == spec.licence else f"generator: {spec.licence}; encoder: {licence}",
        provenance={**spec.provenance, "imported": imported, "generator_codec": former.digest, "software": _software()},
    )
    return joined, weights


def _weights_file(found: ImportedNetwork, out: Path, licence: str, *, dry_run: bool) -> ImportReport:
    """The file that `refine.weight_files` finds in place of the published one, and reads without torch's unpickler."""
    file = out / f"{FILES['moco'].partition('.')[0]}.safetensors"
    about = {"layout": found.layout, "file_sha256": found.file_sha256, "licence": licence}
    if out.exists() and not out.is_dir():
        raise CodecError(f"weights are written into a directory, which this is not: {out}")
    if not dry_run:
        header = {"latentray": json.dumps(about)}  # one entry: safetensors writes several in any order
        _write(file, safetensors.torch.save(found.state, metadata=header))
    return _report(found, licence, file.name)


def _write(file: Path, data: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aside(file, data)
    except OSError as error:
        raise CodecError(f"weights cannot be written ({error.strerror}): {file}") from None


def _report(found: ImportedNetwork, licence: str, written: str, **codec: Any) -> ImportReport:
    return ImportReport(
        role=found.role,
        layout=found.layout,
        network=found.network,
        settings=found.settings,
        values=found.num_values,
        is_average=found.is_average,
        file_sha256=found.file_sha256,
        licence=licence,
        written=written,
        **codec,
    )


def _origin(found: ImportedNetwork, licence: str) -> dict[str, Any]:
    """What `codec.json` keeps of a file; never its path."""
    about = {"layout": found.layout, "file_sha256": found.file_sha256, "is_average": found.is_average, "licence": licence}
    return about | found.facts


def _software() -> dict[str, str]:
    return {"latentray": engine.__version__, "torch": torch.__version__}
