"""What is tidied in a traced gradient: detaching, names of operators, and whatever depends on weights alone."""

from __future__ import annotations

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def drop_detach(graph: fx.Graph) -> None:
    """Takes out what only autograd needs."""
    for node in list(graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default, aten.lift_fresh_copy.default):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def name_upsampling(graph: fx.Graph) -> None:
    """Resizing by its public names `.vec`: for `.default`, which autograd leaves, torch-tensorrt has no converters."""
    for node in graph.nodes:
        if node.target in _PUBLIC_RESIZE:
            x, size, *options, scale_h, scale_w = (*node.args, None, None)[: 4 + (node.target is not aten.upsample_nearest2d.default)]
            extents = x.meta["val"].shape[2:]
            scales = [scale_h, scale_w] if scale_h is not None and scale_w is not None else None
            if scales is None or [extent * scale for extent, scale in zip(extents, scales, strict=True)] == list(size):
                arguments = (x, list(size), *options, None)
            else:
                arguments = (x, None, *options, scales)
            node.target, node.args, node.kwargs = _PUBLIC_RESIZE[node.target], arguments, {}


_PUBLIC_RESIZE = {
    aten.upsample_nearest2d.default: aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.default: aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.default: aten.upsample_bicubic2d.vec,
}


def fold_weights(graph: fx.GraphModule) -> None:
    """Computes what depends on weights alone, once, and keeps it as a buffer. Mere views stay in the graph: they cost nothing."""
    values: dict[fx.Node, Tensor] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            values[node] = getattr(graph, node.target)
        elif node.op == "call_function" and node.all_input_nodes and all(source in values for source in node.all_input_nodes):
            with torch.no_grad():
                result = node.target(*fx.node.map_arg(node.args, values.__getitem__), **fx.node.map_arg(node.kwargs, values.__getitem__))
            if isinstance(result, Tensor):
                values[node] = result
    stored = {value.untyped_storage().data_ptr() for node, value in values.items() if node.op == "get_attr"}
    for node, value in values.items():
        is_used_outside = any(user not in values for user in node.users)
        if node.op == "get_attr" or not is_used_outside or value.untyped_storage().data_ptr() in stored:
            continue
        name = f"folded_{node.name}"
        graph.register_buffer(name, value)
        with graph.graph.inserting_before(node):
            kept = graph.graph.get_attr(name)
        kept.meta.update(node.meta)
        node.replace_all_uses_with(kept, delete_user_cb=lambda user: user not in values)
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*graph.named_parameters(), *graph.named_buffers()) if name not in used]:
        delattr(graph, name)
