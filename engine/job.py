"""One job from its flat settings to an open archive and a plan: what is decided before any film is read."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from engine import __version__
from engine.archive.cleaning import remove_archive
from engine.archive.root import check_fingerprint, fingerprint_parts, plan_beside, plan_name, read_root
from engine.archive.schema import ArchiveSpec
from engine.archive.store import is_url, open_store
from engine.archive.writer import create_archive
from engine.code_step import default_step
from engine.config import DecodeConfig, EngineConfig, FidelityConfig, RefineConfig, StorageDtype, check_choice, parse_loss
from engine.decompose import check_decomposes, check_lung_ids, describe_maps, map_arrays
from engine.encode.codec import Codec, codec_files, load_codec
from engine.encode.compile import check_backend
from engine.errors import ArchiveError, CodecError, ConfigError, FingerprintMismatch
from engine.fidelity.target import parse_target
from engine.film_layer import FILMS_TO_CHOOSE, choose, describe_fidelity, layer_arrays
from engine.refine.build_objective import check_objective, describe_weights
from engine.refine.objective import check_loss
from engine.refiner import weight_source
from engine.source.plan import Plan, make_plan

EMBED_LIMIT = 64 * 2**20  # bytes of a codec that is stored in the archive unasked
WEIGHTS_BY_NAME = ("download", "random")  # every other value of --weights is a folder


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """One call of `encode`: the source, how it is cut and named, where it runs, and the settings that every worker gets."""

    source: str
    engine: EngineConfig
    workers: int | None = None  # None: in this process, or on a cluster one a GPU, else one a node
    worker_cpus: float | None = None  # None: an equal share of the nodes that are there
    worker_gpus: float | None = None
    address: str | None = None
    shard_rows: int | None = None  # None: as the archive has it, else by the number of films
    id_from: str | None = None
    hash_key: bytes | None = None
    limit: int | None = None
    loss: str | None = None  # None: the codec's own
    dtype: StorageDtype = "f2"
    code_step: float | None = None  # None: the codec's own where codes are stored as f2, else 0
    embed_codec: bool | None = None  # None: when it is small
    overwrite: bool = False
    resume: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ConfigError("--resume and --overwrite exclude each other")
        for name, value, least in (("workers", self.workers, 0), ("shard-rows", self.shard_rows, 1), ("limit", self.limit, 1)):
            if value is not None and value < least:
                raise ConfigError(f"{name} must be {least} or more: {value}")
        check_choice("dtype", self.dtype, ("f2", "f4"))
        if self.worker_share and not self.workers:
            raise ConfigError("--worker-cpus and --worker-gpus need --workers of 1 or more: that many may come")
        if self.worker_share and (self.worker_share[0] <= 0 or self.worker_share[1] < 0):
            raise ConfigError(
                f"a worker must have more than 0 CPUs, and no fewer than 0 GPUs: {self.worker_share[0]:g}, {self.worker_share[1]:g}"
            )

    @property
    def worker_share(self) -> tuple[float, float] | None:
        """(CPUs, GPUs) of each worker where they were asked for: workers that find no room then wait for nodes that join."""
        if self.worker_cpus is None and self.worker_gpus is None:
            return None
        return 1.0 if self.worker_cpus is None else self.worker_cpus, self.worker_gpus or 0.0


def job_config(source: str, archive: str, codec: str, **settings: Any) -> JobConfig:
    """The settings of one job from flat keywords, as the command line names them; unknown ones raise ConfigError."""
    renamed = {"refine_steps": "steps", "refine_lr": "lr", "refine_optimiser": "optimiser", "weights": "perceptual_weights"}
    renamed |= {"id": "id_from", "fidelity": "target", "fidelity_strict": "strict"}
    groups: dict[type, dict[str, Any]] = {JobConfig: {}, EngineConfig: {}, DecodeConfig: {}, RefineConfig: {}, FidelityConfig: {}}
    for name, value in settings.items():
        field = renamed.get(name, name)
        owner = next((group for group in groups if field in group.__dataclass_fields__), None)  # type: ignore[attr-defined]
        if owner is None or field in ("engine", "source", "decode", "refine", "archive", "codec"):
            raise ConfigError(f"unknown setting: {name}")
        groups[owner][field] = value
    weights = groups[RefineConfig].get("perceptual_weights")
    if weights and weights not in WEIGHTS_BY_NAME:
        groups[RefineConfig]["perceptual_weights"] = str(Path(weights).absolute())
    engine = EngineConfig(
        archive=_absolute(archive),
        codec="demo" if codec == "demo" else str(Path(codec).absolute()),  # workers may run in other folders
        decode=DecodeConfig(**groups[DecodeConfig]),
        refine=RefineConfig(**groups[RefineConfig]),
        fidelity=FidelityConfig(**groups[FidelityConfig]),
        **groups[EngineConfig],
    )
    return JobConfig(source=os.fspath(source), engine=engine, **groups[JobConfig])


def plan_job(job: JobConfig, path: Path, *, shard_rows: int | None = None) -> Plan:
    """Lists the source and fixes rows, ids and shards in a plan file; `shard_rows` are those of an archive that is continued."""
    rows: int | Callable[[int], int] = job.shard_rows or shard_rows or (lambda films: default_shard_rows(films, job.engine))
    plan = make_plan(job.source, path, shard_rows=rows, id_from=job.id_from, limit=job.limit, hash_key=job.hash_key)
    return plan.with_region(job.engine.fidelity.region) if has_layer(job) and job.engine.fidelity.region else plan


def default_shard_rows(films: int, cfg: EngineConfig) -> int:
    """A shard is what a kill can cost and what a worker is given: 64 to a run, in whole batches, no more than minutes of work each."""
    is_large = cfg.maps is not None or cfg.fidelity.target != "none"  # a shard is held in memory
    most = 64 if cfg.refine.steps or is_large else 1024
    batches = max(1, round(films / 64 / cfg.batch_size))
    return max(cfg.batch_size, min(most, batches * cfg.batch_size))


@contextmanager
def open_job(job: JobConfig) -> Iterator[tuple[JobConfig, Plan]]:
    """The archive of a job, made if it is not there, and the plan that the run follows; the job comes with the codec's own loss filled in.

    The source is always listed anew, into a plan of this run's own: a data set that changed in between is refused, one that only moved
    is read from where it is now, and no other run's plan can slip in. Nothing is removed or made before that listing has succeeded.
    No other run may write the archive meanwhile, where its place knows locks.
    Raises FingerprintMismatch (exit 3) naming what differs, ArchiveError for something that is no archive, or that another run writes.
    """
    archive = job.engine.archive
    with tempfile.TemporaryDirectory(prefix="latentray-") as scratch:
        job, codec, plan, continues = decide(job, Path(scratch))
        if not continues:
            _create(job, codec, archive, plan)
        with open_store(archive).held():
            check_fingerprint(archive, fingerprint_of(job, codec, plan))  # another run may have made it anew meanwhile
            _keep_plan(plan, archive)
            yield job, plan


def decide(job: JobConfig, scratch: Path) -> tuple[JobConfig, Codec, Plan, bool]:
    """All that is settled before a run, with nothing written but a plan in `scratch`: the job with its loss, the codec, the plan, and
    whether an archive that is there is continued. Raises what `open_job` raises."""
    archive, store = job.engine.archive, open_store(job.engine.archive)
    codec = load_codec(job.engine.codec)
    job = with_codec_defaults(job, codec)
    check_request(job, codec)
    is_there = store.exists()
    if job.resume and not is_there:
        raise ArchiveError(f"there is no archive to resume: {archive}")
    known = fingerprint_parts(archive) if is_there and not job.overwrite else None
    plan = plan_job(job, scratch / "plan.parquet", shard_rows=int(known["shard_rows"]) if known else None)
    job = with_way(job, codec, plan, known)
    if job.engine.maps is not None:
        check_lung_ids(job.engine.maps, (ref.sample_id for shard in plan.shards() for ref in shard.refs))
    if known:
        _check_verb(job, archive, known)
        check_fingerprint(archive, fingerprint_of(job, codec, plan))
    return job, codec, plan, known is not None


def _check_verb(job: JobConfig, archive: str, known: dict[str, Any]) -> None:
    """Raises FingerprintMismatch where one of `encode` and `decompose` would continue an archive of the other."""
    made, asked = (("encode", "decompose")[has_maps] for has_maps in ("maps" in known, job.engine.maps is not None))
    if made != asked:
        raise FingerprintMismatch(f"archive was made by `latentray {made}` and cannot be continued by `latentray {asked}`: {archive}")


def check_request(job: JobConfig, codec: Codec) -> None:
    """Refuses what can be seen to fail before anything is written. Raises ConfigError, BackendError or CodecError."""
    archive, refine = job.engine.archive, job.engine.refine
    if not archive.endswith(".zarr"):
        raise ConfigError(f"the archive's name must end in .zarr: {archive}")
    if _lies_in(archive, job.source):
        raise ConfigError(f"the archive must not lie in the folder of films, where it would be listed as films: {archive}")
    if not codec.has_encoder and refine.steps == 0:
        raise CodecError(f"codec has no encoder, so every code would be the mean; ask for --refine-steps 1 or more: {codec.name}")
    if job.engine.maps is not None:
        check_decomposes(codec)
        describe_maps(job.engine.maps)
    parse_target(job.engine.fidelity.target)
    if job.engine.fidelity.region and not has_layer(job):
        raise ConfigError(f"--region names what a layer keeps exactly; ask for one with --fidelity: {job.engine.fidelity.region}")
    if not (job.address or os.environ.get("RAY_ADDRESS")):  # elsewhere workers have other machines, and refuse before they take work
        check_backend(job.engine.backend)
    if refine.steps and job.engine.precision == "fp16":
        raise ConfigError("refinement needs --precision fp32, bf16 or auto: a pixel's share of a loss is less than fp16 can hold: fp16")
    folder = refine.perceptual_weights
    if folder not in ("", "download", "random") and not Path(folder).is_dir():
        raise ConfigError(f"there is no such folder of weights: {folder}")
    if refine.steps or job.loss:
        check_loss(refine.loss, target_mse=refine.target_mse)
        check_objective(refine.loss, resolution=codec.recipe.resolution, lpips_net=refine.lpips_net, lpips_size=refine.lpips_size)
    if refine.steps:
        _perceptual_weights(refine)


def has_layer(job: JobConfig) -> bool:
    """Whether films are stored beside their codes."""
    return job.engine.fidelity.target != "none"


def with_way(job: JobConfig, codec: Codec, plan: Plan, known: dict[str, Any] | None) -> JobConfig:
    """The job with the way in which its films are coded: that of the archive which is continued, else one measured on the first films."""
    cfg = job.engine
    if not has_layer(job):
        return job
    if known is not None:
        fidelity = replace(cfg.fidelity, way=known.get("fidelity", {}).get("way", {}))
    else:
        refs = list(islice((ref for shard in plan.shards() for ref in shard.refs), FILMS_TO_CHOOSE))
        choice = choose(refs, codec, cfg, dtype=job.dtype)
        fidelity = replace(cfg.fidelity, way=choice.way.to_json(), figures=choice.figures)
    return replace(job, engine=replace(cfg, fidelity=fidelity))


def _regions(plan: Plan) -> dict[str, str]:
    """What the films' regions are, for the fingerprint."""
    if not plan.region:
        return {}
    regions = "\n".join(str(value or "") for value in plan.labels(plan.region).to_pylist())
    return {"regions": hashlib.sha256(regions.encode()).hexdigest()}


def with_codec_defaults(job: JobConfig, codec: Codec) -> JobConfig:
    """The job with its refinement loss and the step of its stored codes: those asked for, else the codec's."""
    loss = parse_loss(job.loss or codec.loss)
    step = job.code_step
    if step is None:
        step = default_step(codec, refined=job.engine.refine.steps > 0) if job.dtype == "f2" else 0.0
    return replace(job, engine=replace(job.engine, code_step=step, refine=replace(job.engine.refine, loss=loss)))


def fingerprint_of(job: JobConfig, codec: Codec, plan: Plan) -> dict[str, Any]:
    """Everything that decides the bytes of an archive. Two runs with equal parts may share one."""
    cfg = job.engine
    return {
        "codec": {"name": codec.name, "digest": codec.digest},
        "recipe": codec.recipe.to_json(),
        "latent": {"dims": list(codec.code_dims), "shape": list(codec.code_shape), "dtype": job.dtype, "gauge": codec.gauge}
        | ({"step": cfg.code_step} if cfg.code_step else {}),
        "refine": _refine_parts(cfg.refine) if cfg.refine.steps else {"steps": 0},
        "metrics": cfg.metrics,
        "film_size": None if cfg.metrics == "none" else cfg.film_size,
        "precision": cfg.precision,
        "limits": {"max_bytes": cfg.decode.max_bytes, "max_pixels": cfg.decode.max_pixels},
        "shard_rows": plan.shard_rows,
        "plan": plan.digest,
        **({"maps": describe_maps(cfg.maps)} if cfg.maps else {}),  # left out of others, so that those begun without them go on
        **({"fidelity": describe_fidelity(cfg.fidelity) | _regions(plan)} if has_layer(job) else {}),
    }


def _refine_parts(cfg: RefineConfig) -> dict[str, Any]:
    """What decides refined codes: the settings, and perceptual weights by their digests. Never the folder they lie in."""
    parts = {name: value for name, value in asdict(cfg).items() if name != "perceptual_weights"}
    perceptual = _perceptual_weights(cfg)
    if "lpips" not in perceptual:
        parts = {name: value for name, value in parts.items() if name not in ("lpips_net", "lpips_size")}
    return parts | {"perceptual": perceptual} if perceptual else parts


def _perceptual_weights(cfg: RefineConfig) -> dict[str, dict[str, Any]]:
    """Which weights the loss takes; raises ConfigError for those that are not to be found."""
    return describe_weights(cfg.loss, lpips_net=cfg.lpips_net, source=weight_source(cfg))


def with_films(cfg: EngineConfig, films: int, workers: int) -> EngineConfig:
    """The settings with about how many of `films` each worker will code, which decides whether compiling pays."""
    return replace(cfg, films=-(-films // max(workers, 1)))


def software_versions() -> dict[str, str]:
    """What made an archive: latentray, its revision where it runs from a git checkout, and the packages that decide pixels and codes."""
    packages = ("torch", "numpy", "zarr", "numcodecs", "opencv-python-headless", "imagecodecs", "simplejpeg", "pydicom")
    found = {"latentray": __version__, "python": platform.python_version()}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        with suppress(OSError, subprocess.CalledProcessError):
            head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
            found["revision"] = head.stdout.strip()
    return found


def resolve_workers(job: JobConfig) -> int:
    """How many Ray workers a job gets; 0 means that Ray is not needed."""
    if job.workers is not None:
        return job.workers
    if not (job.address or os.environ.get("RAY_ADDRESS")):
        return 0
    from engine.cluster.worker import connect, node_resources

    connect(job.address)
    nodes = node_resources()
    return int(sum(gpus for _, gpus in nodes)) or len(nodes)


def _create(job: JobConfig, codec: Codec, archive: str, plan: Plan) -> None:
    files = codec_files(job.engine.codec)
    embed = job.embed_codec if job.embed_codec is not None else sum(map(len, files.values())) <= EMBED_LIMIT
    spec = ArchiveSpec(
        num_rows=plan.num_rows,
        shard_rows=plan.shard_rows,
        latent_dims=codec.code_dims,
        latent_shape=codec.code_shape,
        latent_dtype=job.dtype,
        fingerprint_parts=fingerprint_of(job, codec, plan),
        software=software_versions(),
        plan_digest=plan.digest,
        plan_sha256=plan.file_sha256,
        attributes={"fidelity": {"ways": job.engine.fidelity.figures}} if has_layer(job) else {},
        more=(map_arrays(codec.recipe.resolution) if job.engine.maps else {}) | (layer_arrays() if has_layer(job) else {}),
    )
    if job.overwrite:
        remove_archive(archive)
        store = open_store(archive)
        store.remove_beside(plan_name(store.name))
    create_archive(archive, spec, codec_files=files if embed else None)


def _keep_plan(plan: Plan, archive: str) -> None:
    """Puts the plan beside its archive unless it is there; only the very file that the archive has sealed, as `verify` will want it."""
    if not plan_beside(archive).exists() and plan.file_sha256 == read_root(archive).attributes["plan"]["sha256"]:
        store = open_store(archive)
        store.put_beside(plan_name(store.name), plan.path)


def _absolute(archive: str | os.PathLike[str]) -> str:
    """The name that every worker will know it by: a URL, or a path through links, so that no link's stand-in replaces what it names."""
    return os.fspath(archive).rstrip("/") if is_url(archive) else str(Path(archive).resolve())


def _lies_in(archive: str, source: str) -> bool:
    if is_url(archive) or is_url(source):
        return archive.startswith(source.rstrip("/") + "/")
    return Path(source).is_dir() and Path(archive).is_relative_to(Path(source).resolve())
