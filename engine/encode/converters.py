"""Which operators of an exported graph torch-tensorrt converts: its own lists, kept as data, so that the question needs no GPU."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch._export.utils import _collect_all_valid_cia_ops_for_aten_namespace, _get_decomp_for_cia
from torch.export import ExportedProgram

aten = torch.ops.aten

TORCH_TENSORRT = "2.14.0"  # the version that the lists are of

# Operators that its lowering passes take away or rename, after decomposition.
_REMOVED = {aten.detach.default, aten.lift_fresh_copy.default, aten._assert_tensor_metadata.default, aten._assert_scalar.default}
_POOLS_WITH_INDICES = {aten.max_pool2d_with_indices.default: "aten.max_pool2d.default"}


def unconvertible(program: ExportedProgram) -> list[str]:
    """The operators of an exported program that torch-tensorrt 2.14.0 would leave to torch, with the reason where it is not their name.

    The program is decomposed as `torch_tensorrt.dynamo.compile` does it, then every operator on anything but weights is looked up among
    its converters, and what their validators refuse is refused here: dynamic shapes where a converter takes none, second results of
    norms, pools rounded up or with their own divisor, casts to types that TensorRT lacks. An empty list means: one engine takes it all.
    """
    lowered = program.run_decompositions(_lowering())
    graph = lowered.graph_module.graph
    weights = _only_weights(graph, lowered)
    left = set()
    for node in graph.nodes:
        if node.op == "call_function" and node not in weights and node.target not in _REMOVED and (fault := _fault(node)):
            left.add(fault)
    return sorted(left)


def _fault(node: fx.Node) -> str | None:
    """Why a node stays with torch, or None."""
    lists, name = _lists(), _name(node.target)
    if node.target in _POOLS_WITH_INDICES:
        name = _POOLS_WITH_INDICES[node.target]
        if not _has_first_result_only(node):
            return f"{name} (its indices are used)"
    if name not in lists["operators"]:
        return name
    if name in lists["first_result_only"] and not _has_first_result_only(node):
        return f"{name} (more than its first result is used)"
    if name in lists["static_shapes_only"] and any(isinstance(size, torch.SymInt) for size in _sizes(node)):
        return f"{name} (of dynamic shape)"
    if name == "aten.max_pool2d.default" and any(node.args[4:]):
        return f"{name} (rounded up, or with dilation)"
    if name == "aten.avg_pool2d.default" and (any(node.args[4:5]) or node.args[6:7] not in ((), (None,))):
        return f"{name} (rounded up, or with a divisor)"
    if name == "aten._to_copy.default" and node.kwargs.get("dtype") not in _CASTS:
        return f"{name} (to {node.kwargs.get('dtype')})"
    return None


_CASTS = {torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8, torch.bool}


def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    name = getattr(target, "__name__", str(target))
    if getattr(operator, name, None) is target:
        return f"operator.{name}"
    return f"{getattr(target, '__module__', '')}.{name}"


def _has_first_result_only(node: fx.Node) -> bool:
    return all(user.target is operator.getitem and user.args[1] == 0 for user in node.users)


def _sizes(node: fx.Node) -> tuple[Any, ...]:
    """The sizes of everything that goes into a node or comes out of it."""
    values = [part.meta.get("val") for part in (node, *node.all_input_nodes)]
    return tuple(size for value in values if isinstance(value, Tensor) for size in value.shape)


def _only_weights(graph: fx.Graph, program: ExportedProgram) -> set[fx.Node]:
    """Nodes that depend on weights alone; torch-tensorrt computes them before it converts."""
    signature = program.graph_signature
    names = {*signature.inputs_to_parameters, *signature.inputs_to_buffers, *signature.inputs_to_lifted_tensor_constants}
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if (node.op == "placeholder" and node.name in names) or (
            node.op == "call_function" and node.all_input_nodes and all(source in found for source in node.all_input_nodes)
        ):
            found.add(node)
    return found


@lru_cache(maxsize=1)
def _lists() -> dict[str, frozenset[str]]:
    text = files("engine.encode").joinpath(f"torch_tensorrt_{TORCH_TENSORRT}.json").read_text(encoding="utf-8")
    return {key: frozenset(value) for key, value in json.loads(text).items() if isinstance(value, list)}


def _lowering() -> dict[Any, Callable[..., Any]]:
    """The decompositions that `torch_tensorrt.dynamo.compile` runs: those it takes from torch, composites but for a few, and its own."""
    kept, own = {_operator(name) for name in _lists()["kept_whole"]}, _own_rules()
    composites = _collect_all_valid_cia_ops_for_aten_namespace()
    composite: dict[Any, Any] = {op: _get_decomp_for_cia(op) for op in composites if op not in kept}
    known = [_operator(name) for name in _lists()["decomposed"]]
    return get_decompositions([op for op in known if op is not None]) | composite | own


def _operator(name: str) -> Any:
    """The operator or family of operators of a name like `aten.relu` or `aten.relu.default`; None where this torch has none."""
    _, packet, *overload = name.split(".")
    found = getattr(aten, packet, None)
    return getattr(found, overload[0], None) if found is not None and overload else found


def _own_rules() -> dict[Any, Callable[..., Any]]:
    """What it registers itself, of the operators that networks here have."""

    def full_like(x: Tensor, value: float, *, dtype: Any = None, device: Any = None, **_: Any) -> Tensor:
        return torch.full(x.shape, value, dtype=dtype or x.dtype, device=device or x.device)

    return {
        aten.rsqrt.default: lambda x: torch.reciprocal(torch.sqrt(x)),
        aten.reciprocal.default: lambda x: torch.div(1, x),
        aten._unsafe_view.default: torch.reshape,
        aten.view.default: aten._reshape_copy.default,
        aten.lift_fresh_copy.default: lambda x: x,
        aten.alias.default: lambda x: x,
        aten.silu.default: lambda x: x * torch.sigmoid(x),
        aten.full_like.default: full_like,
        aten._log_softmax.default: lambda x, dim, _: torch.log(torch.softmax(x, dim)),
    }
