"""Gradient graphs: what autograd computes, in forward operators only, at any batch size, with the weights of the modules themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from engine.encode.codec import Generate
from engine.errors import BackendError
from engine.networks.pca import PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.refine.gradient import export_gradient, trace_gradient
from engine.refine.gradient_step import Features, by_autograd

SIZE = 16


class Distance(nn.Module):
    """The mean squared distance of pixels, and of what `network` makes of them, to those of the targets."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network

    def features(self, targets: Tensor) -> Features:
        return (targets,) if self.network is None else (targets, self.network(targets).detach())

    def forward(self, pixels: Tensor, features: Features) -> tuple[Tensor, Tensor]:
        mse = (pixels - features[0]).square().flatten(1).mean(1)
        if self.network is None:
            return mse, mse
        return mse + (self.network(pixels) - features[1]).square().flatten(1).mean(1), mse


class Affine(nn.Module):
    """Codes that are films already, but for a contrast that must not be folded away."""

    def forward(self, latents: Tensor) -> Tensor:
        return latents * 1.5


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def small_pggan(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return frozen(Generate(PgganGenerator(PgganSettings(channels=(8, 8, 6), code_size=5)).to(dtype)))


def small_pca() -> nn.Module:
    network = PcaGenerator(PcaSettings(resolution=SIZE, components=5))
    network.components.copy_(torch.linalg.qr(torch.randn(SIZE**2, 5))[0].T)
    network.scale.copy_(torch.rand(5) + 0.5)
    return frozen(Generate(network))


def batch(objective: Distance, n: int, *shape: int) -> tuple[Tensor, Features]:
    """n codes of this shape and the features of n random targets."""
    draw = torch.Generator().manual_seed(n)
    targets = torch.rand(n, 1, SIZE, SIZE, generator=draw) * 2 - 1
    return torch.randn(n, *shape, generator=draw), objective.features(targets)


def backward_operators(graph: fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function" and "backward" in str(node.target)]


def assert_within_ulp(found: Tensor, expected: Tensor, ulp: int, dtype: torch.dtype = torch.float32) -> None:
    """Convolutions turned round add up in another order: the unit is the last place of the largest value."""
    unit = torch.finfo(dtype).eps * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=ulp * unit)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pggan_equals_autograd_at_other_batch_sizes(dtype: torch.dtype) -> None:
    generate, objective = small_pggan(dtype), Distance()
    graph = trace_gradient(generate, objective, *batch(objective, 3, 1, 5))
    assert backward_operators(graph) == []
    for n in (1, 2, 5):
        found, expected = graph(*batch(objective, n, 1, 5)), by_autograd(generate, objective)(*batch(objective, n, 1, 5))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])
        assert_within_ulp(found[2], expected[2], 8, dtype)


def test_pca_equals_autograd() -> None:
    generate, objective = small_pca(), Distance()
    latents, features = batch(objective, 4, 1, 5)
    graph = trace_gradient(generate, objective, latents[:2], (features[0][:2],))
    torch.testing.assert_close(graph(latents, features), by_autograd(generate, objective)(latents, features))


def test_autocast_is_traced_with_the_graph() -> None:
    generate, objective = small_pggan(), Distance()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        graph = trace_gradient(generate, objective, *batch(objective, 3, 1, 5))
        expected = by_autograd(generate, objective)(*batch(objective, 4, 1, 5))
    found = graph(*batch(objective, 4, 1, 5))
    assert torch.equal(found[0], expected[0])
    assert_within_ulp(found[2], expected[2], 8, torch.bfloat16)
    assert all(weight.dtype == torch.bfloat16 for name, weight in graph.named_buffers() if name.startswith("folded"))


def test_weights_are_those_of_the_generator() -> None:
    generate, objective = small_pggan(), Distance()
    graph = trace_gradient(generate, objective, *batch(objective, 2, 1, 5))
    own = {weight.data_ptr() for weight in generate.parameters()}
    assert {weight.data_ptr() for weight in graph.parameters()} == own
    assert not any(weight.requires_grad for weight in graph.parameters())
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    assert not [node for node in calls if node.all_input_nodes and all(source.op == "get_attr" for source in node.all_input_nodes)
                and "flip" in str(node.target)]  # fmt: skip


def test_neighbours_do_not_matter_even_when_they_are_not_finite() -> None:
    generate, objective = small_pggan(), Distance()
    latents, features = batch(objective, 4, 1, 5)
    graph = trace_gradient(generate, objective, latents, features)
    latents[1] = torch.nan
    loss, _, gradient = graph(latents, features)
    expected = by_autograd(generate, objective)(latents, features)
    kept = [0, 2, 3]
    assert loss.isnan().tolist() == [False, True, False, False]
    assert torch.equal(loss[kept], expected[0][kept])
    assert_within_ulp(gradient[kept], expected[2][kept], 8)


class Resize(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, **self.options)  # type: ignore[arg-type]


class Slices(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        parts = x[:, :, 2:13, 1::3], x[:, 0, -3], x.roll(1, 2)[:, :, :, 3]
        return torch.cat([part.flatten(1) for part in parts], dim=1)


class Unit(nn.Module):
    """As LPIPS does it: features of unit length."""

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def conv(*args: int, **options: int) -> nn.Module:
    return nn.Conv2d(*args, **options)  # type: ignore[arg-type]


EXACT = {
    "alexnet's pool": lambda: nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2)),
    "vgg's pool": lambda: nn.Sequential(nn.ReLU(True), nn.MaxPool2d(2), nn.LeakyReLU(0.2)),
    "pool with padding": lambda: nn.MaxPool2d(3, 2, padding=1),
    "pool rounded up": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "pool with dilation": lambda: nn.MaxPool2d(2, 3, dilation=2),
    "pool of step 1": lambda: nn.MaxPool2d(3, 1, padding=1),
    "mean of blocks": lambda: nn.AvgPool2d(2),
    "mean of most": lambda: nn.AvgPool2d(5),
    "means that overlap": lambda: nn.AvgPool2d(3, 2, padding=1),
    "means without padding": lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "means rounded up": lambda: nn.AvgPool2d(3, 2, ceil_mode=True),
    "mean of all": lambda: nn.AdaptiveAvgPool2d(1),
    "nearest": lambda: Resize(scale_factor=2.0),
    "nearest to a size": lambda: Resize(size=(SIZE * 3, SIZE)),
}
CLOSE = {
    "stride 1": lambda: conv(1, 4, 3, padding=1),
    "no padding": lambda: conv(1, 4, 5),
    "more padding than reach": lambda: conv(1, 4, 3, padding=4),
    "stride 3 with a rest": lambda: conv(1, 4, 5, stride=3, padding=2),
    "stride 4": lambda: conv(1, 4, 11, stride=4, padding=2),
    "dilation": lambda: conv(1, 4, 3, dilation=2, padding=1),
    "groups": lambda: nn.Sequential(conv(1, 4, 3), conv(4, 6, 3, groups=2, padding=1)),
    "transposed": lambda: nn.ConvTranspose2d(1, 4, 4, stride=2, padding=1),
    "alexnet": lambda: nn.Sequential(conv(1, 4, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2), conv(4, 4, 2, padding=1), nn.ReLU()),
    "vgg": lambda: nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2), conv(4, 4, 3, padding=1), nn.LeakyReLU()),
    "adaptive": lambda: nn.AdaptiveAvgPool2d((5, 3)),
    "nearest by any factor": lambda: Resize(size=23),
    "nearest by a scale": lambda: Resize(scale_factor=1.7),
    "bilinear": lambda: Resize(size=(7, 11), mode="bilinear", align_corners=False),
    "bilinear corners": lambda: Resize(scale_factor=1.7, mode="bilinear", align_corners=True),
    "bilinear smooth": lambda: Resize(scale_factor=0.4, mode="bilinear", antialias=True),
    "bicubic": lambda: Resize(size=9, mode="bicubic"),
    "area": lambda: Resize(size=4, mode="area"),
    "slices": Slices,
    "unit": lambda: nn.Sequential(conv(1, 4, 3), Unit()),
    "batch norm": lambda: nn.Sequential(conv(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
    "group norm": lambda: nn.Sequential(conv(1, 4, 3), nn.GroupNorm(2, 4), nn.SiLU()),
    "layer norm": lambda: nn.Sequential(nn.LayerNorm(SIZE), nn.GELU(), nn.Hardtanh(), nn.Softplus()),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(SIZE**2, 9), nn.Tanh(), nn.Softmax(dim=1)),
    "padding": lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Sigmoid(), nn.ZeroPad2d(1), nn.ELU()),
}


@pytest.mark.parametrize("name", [*EXACT, *CLOSE])
def test_every_rule_equals_autograd(name: str) -> None:
    torch.manual_seed(0)
    build: Callable[[], nn.Module] = (EXACT | CLOSE)[name]
    network = frozen(build())
    generate, objective = frozen(Affine()), Distance(network)
    graph = trace_gradient(generate, objective, *batch(objective, 3, 1, SIZE, SIZE))
    assert backward_operators(graph) == []
    latents, features = batch(objective, 4, 1, SIZE, SIZE)
    latents = latents.mul(4).round().div(4)  # many equal values, so that pools must choose as autograd does
    found, expected = graph(latents, features), by_autograd(generate, objective)(latents, features)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    if name in EXACT:
        assert torch.equal(found[2], expected[2])
    else:
        assert_within_ulp(found[2], expected[2], 8)


def test_exported_graph_saves_and_loads(tmp_path: Path) -> None:
    generate, objective = frozen(Affine()), Distance(frozen(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))))
    example = batch(objective, 1, 1, SIZE, SIZE)
    graph = trace_gradient(generate, objective, *example)
    program = export_gradient(graph, *example, batch_size=6)
    torch.export.save(program, tmp_path / "gradient.pt2")
    loaded = torch.export.load(tmp_path / "gradient.pt2").module()
    for n in (1, 2, 6):
        for got, same in zip(loaded(*batch(objective, n, 1, SIZE, SIZE)), graph(*batch(objective, n, 1, SIZE, SIZE)), strict=True):
            assert torch.equal(got, same)


class Counting(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return latents.reshape(len(latents), 1, SIZE, SIZE)


def test_a_fixed_batch_size_is_refused() -> None:
    objective = Distance()
    with pytest.raises(BackendError, match=r"use x\.shape\[0\]|may not use len"):
        trace_gradient(frozen(Counting()), objective, *batch(objective, 3, 1, SIZE, SIZE))


def test_an_operator_without_a_forward_form_is_named() -> None:
    objective = Distance(nn.ReplicationPad2d(1))
    with pytest.raises(BackendError, match=r"aten\.replication_pad2d_backward"):
        trace_gradient(frozen(Affine()), objective, *batch(objective, 1, 1, SIZE, SIZE))


def test_weights_must_be_frozen() -> None:
    objective = Distance(nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="frozen weights"):
        trace_gradient(frozen(Affine()), objective, *batch(objective, 2, 1, SIZE, SIZE))
