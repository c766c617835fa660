"""The TensorRT backend through torch-tensorrt 2.12 to 2.14: any frozen network or gradient graph, as engines for batches up to one size."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
import logging
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_map, tree_unflatten

from engine.encode.converters import unconvertible
from engine.encode.fixed_batch import in_pieces
from engine.encode.graph_cache import cache_folder, check_own, replaced
from engine.encode.precision import DTYPES
from engine.errors import BackendError

__all__ = ["check_tensorrt", "compile_tensorrt", "export_stage", "has_tensorrt", "unconvertible"]

log = logging.getLogger(__name__)

_GET_IT = "install latentray[tensorrt], whose native libraries come from the vendor's own package index, or use --backend inductor"


def has_tensorrt() -> bool:
    """Whether trying is worth while: a GPU is here and torch-tensorrt is installed, though it may not load."""
    return torch.cuda.device_count() > 0 and find_spec("torch_tensorrt") is not None


def check_tensorrt() -> None:
    """Raises BackendError where TensorRT cannot run here, with what is missing and how to get it."""
    _import()
    if torch.cuda.device_count() == 0:
        raise BackendError("backend tensorrt needs an NVIDIA GPU and a driver that torch can use, or use --backend inductor; GPUs found: 0")


def compile_tensorrt(
    network: nn.Module,
    examples: tuple[Any, ...],
    *,
    batch_size: int,
    precision: str,
    digest: str,
    name: str,
    cache_dir: str | Path | None = None,
) -> Callable[..., Any]:
    """`network` as TensorRT engines for 1 to `batch_size` rows; call it with any number of rows, for results in float32.

    `examples` are its arguments, tensors or tuples of tensors with one entry a row, on the GPU. A network is cast to `precision` as
    autocast would (TensorRT is strongly typed, so casts stand in the graph); a traced graph has its casts already. Float32 is whole
    float32, not TF32. Engines are kept in the cache (`graph_cache.cache_folder`) in a folder named by what they are valid for: versions,
    GPU, precision, `digest` of the codec, and a digest of the graph with its weights. Building takes minutes, loading seconds.
    Raises BackendError where TensorRT is missing or does not build.
    """
    check_tensorrt()
    torch_tensorrt = _import()
    try:
        program = export_stage(network, examples, batch_size=batch_size, precision=precision)
        left = unconvertible(program)
    except Exception as error:  # export meets whatever is in a network
        raise BackendError(f"backend tensorrt cannot export {name}: {_first_line(error)}") from error
    if left:
        log.warning("TensorRT leaves operators of %s to torch: %s", name, ", ".join(left))
    device = tree_leaves(examples)[0].device
    folder = cache_folder(
        *("tensorrt", _host_name(device), f"{name}-{precision}-{batch_size}-{digest[:16]}-{_graph_digest(program)[:16]}"), root=cache_dir
    )
    path = folder / "engines.ep"
    try:
        engines = _load(torch_tensorrt, path)
        if engines is None:
            inputs = [_input(torch_tensorrt, row, batch_size) for row in tree_leaves(examples)]
            options = _options(torch_tensorrt, folder, complete=not left, precision=precision)
            engines = torch_tensorrt.dynamo.compile(program, arg_inputs=inputs, device=device, **options)
            _save(torch_tensorrt, engines, path, program)
    except Exception as error:  # a compiler raises whatever it likes
        raise BackendError(f"backend tensorrt does not build {name}: {_first_line(error)}") from error
    return _Engines(engines, program.call_spec.out_spec, network, batch_size)


def export_stage(network: nn.Module, examples: tuple[Any, ...], *, batch_size: int, precision: str) -> ExportedProgram:
    """`network` exported with flat arguments and results, its casts to `precision` in the graph, for 1 to `batch_size` rows.

    Works on any device, so that what TensorRT would get can be looked at without one. `examples` as for `compile_tensorrt`.
    """
    rows, spec = tree_flatten(examples)
    dtype = None if isinstance(network, fx.GraphModule) else DTYPES[precision]
    flat = _Flat(network, spec, rows[0].device.type, dtype).eval()
    pair = tuple(row[:1].expand(2 if batch_size > 1 else 1, *row.shape[1:]).contiguous() for row in rows)
    batch = Dim("batch", min=1, max=batch_size) if batch_size > 1 else None
    shapes = (tuple({0: batch} for _ in pair),) if batch is not None else None
    with torch.no_grad():
        program = export(flat, pair, dynamic_shapes=shapes)
    _name_means(program.graph_module)
    return program


def _name_means(graph: fx.GraphModule) -> None:
    """Global pools as means, which they are: taken apart, a channels-last pool becomes `as_strided`, which no dynamic engine takes."""
    for module in graph.modules():  # what runs under autocast is a graph in the graph
        if isinstance(module, fx.GraphModule):
            for node in module.graph.nodes:
                if node.target is torch.ops.aten.adaptive_avg_pool2d.default and tuple(node.args[1]) == (1, 1):
                    node.target, node.args = torch.ops.aten.mean.dim, (node.args[0], [-1, -2], True)
            module.recompile()


class _Flat(nn.Module):
    def __init__(self, network: nn.Module, spec: TreeSpec, device_type: str, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.network, self.spec, self.device_type, self.dtype = network, spec, device_type, dtype

    def forward(self, *rows: Tensor) -> Any:
        arguments = tree_unflatten(rows, self.spec)
        if self.dtype is None:
            return tree_map(Tensor.float, self.network(*arguments))
        with torch.autocast(self.device_type, dtype=self.dtype):
            found = self.network(*arguments)
        return tree_map(Tensor.float, found)


class _Engines:
    """Calls compiled engines with at most `batch_size` rows at once. Holds `network`, whose weights an engine left to torch may share."""

    def __init__(self, run: Callable[..., Any], out_spec: TreeSpec, network: nn.Module, batch_size: int) -> None:
        self._run, self._out_spec, self._network, self._batch_size = run, out_spec, network, batch_size

    def __call__(self, *arguments: Any) -> Any:
        return in_pieces(self._piece, self._batch_size)(*arguments)

    def _piece(self, *arguments: Any) -> Any:
        return tree_unflatten(tree_leaves(self._run(*(row.contiguous() for row in tree_leaves(arguments)))), self._out_spec)


def _import() -> Any:
    """The package, whose import prints, and raises plain Exception where a library of TensorRT is missing."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import torch_tensorrt
            import torch_tensorrt.dynamo
    except ModuleNotFoundError as error:
        raise BackendError(f"backend tensorrt lacks a package, {_GET_IT}: {error.name}") from None
    except Exception as error:
        raise BackendError(f"backend tensorrt cannot be loaded, {_GET_IT}: {_first_line(error)}") from error
    return torch_tensorrt


def _options(torch_tensorrt: Any, folder: Path, *, complete: bool, precision: str) -> dict[str, Any]:
    """Settings by the names that the installed version knows: 2.12 must be asked for strong typing, later ones have nothing else."""
    wanted = {
        "disable_tf32": True,
        "use_explicit_typing": True,
        "use_fp32_acc": precision == "fp16",
        # torch-tensorrt's own engine cache wants engines that can be refitted, and its key knows neither weights nor arguments of
        # operators; ours holds whole engines in a folder of their own
        "immutable_weights": True,
        "timing_cache_path": str(folder / "timing.bin"),
        "require_full_compilation": complete,
        "min_block_size": 1 if complete else 5,
    }
    known = inspect.signature(torch_tensorrt.dynamo.compile).parameters
    return {key: value for key, value in wanted.items() if key in known}


def _input(torch_tensorrt: Any, row: Tensor, batch_size: int) -> Any:
    most = (batch_size, *row.shape[1:])
    if batch_size == 1:
        return torch_tensorrt.Input(shape=most, dtype=row.dtype)
    return torch_tensorrt.Input(min_shape=(1, *row.shape[1:]), opt_shape=most, max_shape=most, dtype=row.dtype)


def _load(torch_tensorrt: Any, path: Path) -> Any:
    """Engines of an earlier run, or None. Unpickles: see `cache_folder`."""
    if not path.exists():
        return None
    try:
        check_own(path)
        return torch_tensorrt.load(str(path)).module()
    except Exception as error:
        log.warning("cached engines cannot be used and are built anew (%s): %s", _first_line(error), path)
        return None


def _save(torch_tensorrt: Any, engines: Any, path: Path, program: ExportedProgram) -> None:
    """Beside, then in place. Engines that cannot be saved are built anew by the next run, and work in this one."""
    try:
        with replaced(path) as scratch:
            torch_tensorrt.save(engines, str(scratch), output_format="exported_program", arg_inputs=list(program.example_inputs[0]))
            scratch.chmod(0o600)  # `check_own` would refuse what others may write
    except Exception as error:
        log.warning("engines cannot be kept for the next run (%s): %s", _first_line(error), path)


def _host_name(device: torch.device) -> str:
    """Versions and GPU that an engine is bound to, as a name for a folder."""
    major, minor = torch.cuda.get_device_capability(device)
    found = [f"{package}-{_version(package)}" for package in ("torch_tensorrt", "tensorrt")]
    gpu = re.sub(r"\W+", "-", torch.cuda.get_device_name(device))
    return "_".join([*found, f"torch-{torch.__version__}", gpu, f"sm{major}{minor}"])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _graph_digest(program: ExportedProgram) -> str:
    """Over operators with their arguments, and all weights: two stages of one codec may differ in either alone."""
    found = hashlib.sha256(program.graph_module.code.encode())
    for name, weight in sorted((*program.state_dict.items(), *program.constants.items())):
        found.update(name.encode())
        if isinstance(weight, Tensor):
            found.update(f"{weight.dtype}{tuple(weight.shape)}".encode())
            found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__} {next(iter(str(error).strip().splitlines()), '')}".strip()
