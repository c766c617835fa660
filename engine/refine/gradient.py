"""The gradient of the summed loss with respect to codes as one graph of forward operators, which any backend can run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._functorch.compile_utils import fx_graph_cse
from torch._subclasses import FakeTensorMode
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from engine.errors import BackendError
from engine.refine.forward_only import is_backward, rules
from engine.refine.gradient_graph import drop_detach, fold_weights, name_upsampling
from engine.refine.gradient_step import Features, by_autograd
from engine.refine.resizing import WholeOperators


def trace_gradient(generate: nn.Module, objective: nn.Module, latents: Tensor, features: Features) -> fx.GraphModule:
    """`by_autograd(generate, objective)` as one graph of forward operators, for any batch size.

    `latents` [n, *shape] and `features` are examples: type, device, layout and all sizes but the first are fixed. Both modules must be
    frozen (`requires_grad_(False)`) and in evaluation mode. Their weights are attributes of the graph, the very tensors and no copies;
    what depends on weights alone, such as turned kernels and casts, is computed here once. The graph is for the device and the
    precision (also autocast) that this call finds.

    Loss and MSE equal those of autograd bit for bit on the CPU, and so do gradients of pools, activations and nearest upsampling; those
    of convolutions, norms, GELU and other resizing add up in another order and differ by a few units in the last place of the largest.
    Raises BackendError where a backward operator has no forward form or the batch size does not stay free, ValueError for weights
    that are not frozen.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(duck_shape=False), allow_non_fake_inputs=True)
    examples = _without_data(mode, (latents, *features))
    if any(weight.requires_grad for module in (generate, objective) for weight in module.parameters()):
        raise ValueError("a gradient graph is for frozen weights; call requires_grad_(False) on generator and objective")
    step = by_autograd(generate, objective)
    tracer = make_fx(step, decomposition_table=rules(), tracing_mode="symbolic", _allow_non_fake_inputs=True)
    with mode, WholeOperators():
        graph = tracer(examples[0], examples[1:])
    if examples[0].shape[0].node.maybe_as_int() is not None:  # type: ignore[attr-defined]  # a symbol, so it has a node
        raise BackendError("the batch size became a constant of the gradient graph; a network may not use len(x), but x.shape[0]")
    drop_detach(graph.graph)
    merged = fx_graph_cse(graph.graph)
    merged.set_codegen(graph.graph._codegen)  # which keeps (latents, features) as arguments
    graph.graph = merged
    name_upsampling(graph.graph)
    graph.graph.eliminate_dead_code()
    fold_weights(graph)
    graph.recompile()
    left = sorted({str(node.target) for node in graph.graph.nodes if is_backward(node.target)})
    if left:
        raise BackendError(f"the gradient has operators without a forward form, use --backend eager: {', '.join(left)}")
    return graph


def export_gradient(graph: fx.GraphModule, latents: Tensor, features: Features, *, batch_size: int) -> ExportedProgram:
    """A traced gradient and its weights as an exported program for batches of 1 to `batch_size` rows, and 2 at least.

    `latents` and `features` are examples as for `trace_gradient`, of any batch size.
    """
    batch = Dim("batch", min=1, max=max(2, batch_size))
    rows = [_zeros(part, 2) for part in (latents, *features)]
    return export(graph, (rows[0], tuple(rows[1:])), dynamic_shapes=({0: batch}, tuple({0: batch} for _ in features)))


def _without_data(mode: FakeTensorMode, examples: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors like `examples` whose first size is one symbol and whose other sizes are numbers, even where they happen to be equal."""
    symbol: StatelessSymbolicContext[Any, Any] = StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DYNAMIC])
    n = mode.from_tensor(torch.empty(5), symbolic_context=symbol).shape[0]
    with mode:
        return tuple(_empty(part, n) for part in examples)


def _empty(example: Tensor, n: int) -> Tensor:
    return torch.empty_strided((n, *example.shape[1:]), example.stride(), dtype=example.dtype, device=example.device)


def _zeros(example: Tensor, n: int) -> Tensor:
    return _empty(example, n).zero_()
