"""TensorRT without a GPU: every network and gradient of ours is all converters, and caching and refusals work around a stand-in for it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from engine.encode.codec import Encode, Generate
from engine.encode.tensorrt import check_tensorrt, compile_tensorrt, export_stage, has_tensorrt, unconvertible
from engine.errors import BackendError
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings
from engine.networks.pca import PcaEncoder, PcaGenerator, PcaSettings
from engine.networks.pggan import PgganGenerator, PgganSettings
from engine.refine.gradient import trace_gradient
from engine.refine.gradient_step import Features, by_autograd

Build = Callable[[], nn.Module]
CODE, SIZE = (1, 5), 8


def frozen(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def pggan() -> nn.Module:
    torch.manual_seed(0)
    return frozen(Generate(PgganGenerator(PgganSettings(channels=(6, 4), code_size=5))))


def pca() -> nn.Module:
    return frozen(Generate(PcaGenerator(PcaSettings(resolution=SIZE, components=5))))


STAGES = {
    "pggan": (pggan, CODE),
    "convnext": (lambda: Encode(ConvNextEncoder(ConvNextSettings(depths=(1, 1), widths=(8, 16), code_size=5)), "sphere"), (1, 64, 64)),
    "pca generator": (pca, CODE),
    "pca encoder": (lambda: Encode(PcaEncoder(PcaSettings(resolution=SIZE, components=5)), "none"), (1, SIZE, SIZE)),
}


class Squares(nn.Module):
    """The MSE, and the mean squared distance of features of `network` if there is one."""

    def __init__(self, network: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network or nn.Identity()

    def forward(self, pixels: Tensor, features: Features) -> tuple[Tensor, Tensor]:
        mse = (pixels - features[0]).square().flatten(1).mean(1)
        return mse + (self.network(pixels) - features[1]).square().flatten(1).mean(1), mse


def perceptual() -> nn.Module:
    """What AlexNet, VGG and ResNet are made of."""
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
    return frozen(nn.Sequential(*layers, nn.ReLU(True), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))


def films(network: nn.Module | None, n: int = 2) -> tuple[Tensor, Features]:
    targets = torch.rand(n, 1, SIZE, SIZE) * 2 - 1
    return torch.randn(n, *CODE), (targets, targets if network is None else network(targets).float())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", STAGES)
def test_tensorrt_takes_all_of_every_network(name: str, precision: str) -> None:
    build, shape = STAGES[name]
    network = frozen(build())
    program = export_stage(network, (torch.randn(2, *shape),), batch_size=4, precision=precision)
    assert unconvertible(program) == []
    rows = torch.randn(3, *shape)
    with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        expected = network(rows).float()
    torch.testing.assert_close(program.module()(rows), expected)


@pytest.mark.parametrize(("generator", "network", "precision"), [(pggan, None, "fp32"), (pca, None, "fp32"), (pca, perceptual, "bf16")])
def test_tensorrt_takes_all_of_a_gradient(generator: Build, network: Build | None, precision: str) -> None:
    eyes = network() if network else None
    with torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext():
        graph = trace_gradient(generator(), frozen(Squares(eyes)), *films(eyes))
    program = export_stage(graph, films(eyes), batch_size=4, precision=precision)
    assert unconvertible(program) == []
    example = films(eyes, 3)
    for got, same in zip(program.module()(example[0], *example[1]), graph(*example), strict=True):
        torch.testing.assert_close(got, same.float())


class Refused(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.max_pool2d(x, 3, 2, ceil_mode=True) + nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)
        return pooled.double().cumprod(dim=3) + pooled.gather(3, torch.zeros_like(pooled, dtype=torch.long))


def test_what_tensorrt_would_not_take_is_named() -> None:
    program = export_stage(Refused(), (torch.randn(2, 1, 8, 8),), batch_size=4, precision="fp32")
    assert unconvertible(program) == [
        "aten._to_copy.default (to torch.float64)",
        "aten.avg_pool2d.default (rounded up, or with a divisor)",
        "aten.cumprod.default",
        "aten.gather.default (of dynamic shape)",
        "aten.max_pool2d.default (rounded up, or with dilation)",
    ]


def test_the_gradient_of_autograd_itself_is_not_taken() -> None:
    """Else rewriting it would be in vain."""
    graph = make_fx(by_autograd(pggan(), frozen(Squares())))(*films(None))
    assert "aten.convolution_backward.default" in unconvertible(torch.export.export(graph, films(None)))


def test_a_machine_without_it_says_what_is_missing() -> None:
    if has_tensorrt():
        check_tensorrt()
        return
    with pytest.raises(BackendError, match=r"latentray\[tensorrt\].*vendor|NVIDIA GPU") as found:
        check_tensorrt()
    assert "\n" not in str(found.value)


BROKEN = 'print("import error")\nraise Exception("import error, got error libnvinfer.so.11: cannot open shared object file")\n'

# As much of torch-tensorrt as a call needs; "engines" are the exported program itself.
STAND_IN = """
import torch
class Input:
    def __init__(self, **shapes):
        self.shapes = shapes
class Engines(torch.nn.Module):
    def __init__(self, program):
        super().__init__()
        self.program, self.run = program, program.module()
    def forward(self, *rows):
        return self.run(*rows)
class dynamo:
    calls = []
    @staticmethod
    def compile(program, *, arg_inputs, device, disable_tf32, require_full_compilation, immutable_weights, timing_cache_path, **kwargs):
        dynamo.calls.append((arg_inputs, require_full_compilation, disable_tf32, kwargs))
        return Engines(program)
def save(engines, path, *, output_format, arg_inputs):
    torch.export.save(engines.program, open(path, "wb"))
def load(path):
    return torch.export.load(open(path, "rb"))
import sys
sys.modules["torch_tensorrt.dynamo"] = dynamo
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a package torch_tensorrt that can be imported, and a GPU that can be asked for its name."""
    package = tmp_path / "site" / "torch_tensorrt"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Imaginary GPU 80GB")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    yield package / "__init__.py"
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_tensorrt"]:
        del sys.modules[name]


def test_a_package_that_does_not_load_is_one_line(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed.write_text(BROKEN)
    with pytest.raises(BackendError, match=r"cannot be loaded, install latentray\[tensorrt\].*libnvinfer\.so\.11") as found:
        check_tensorrt()
    assert "\n" not in str(found.value)
    assert capsys.readouterr().out == ""


def test_no_gpu_is_said(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed.write_text(STAND_IN)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BackendError, match="needs an NVIDIA GPU"):
        check_tensorrt()


@pytest.mark.filterwarnings("ignore:No complete tensor found in the group")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_engines_are_built_once_and_kept_by_graph_and_weights(
    installed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.write_text(STAND_IN)

    def build(network: nn.Module, precision: str = "fp32") -> object:
        example = (torch.randn(2, *CODE),)
        return compile_tensorrt(
            network, example, batch_size=3, precision=precision, digest="d" * 64, name="generate", cache_dir=tmp_path / "cache"
        )

    network = pca()
    run = build(network)
    assert callable(run)
    calls = stand_in().calls
    for n in (1, 3, 7):
        rows = torch.randn(n, *CODE)
        torch.testing.assert_close(run(rows), network(rows))
    (inputs, complete, no_tf32, others) = calls[0]
    assert inputs[0].shapes == {"min_shape": (1, *CODE), "opt_shape": (3, *CODE), "max_shape": (3, *CODE), "dtype": torch.float32}
    assert (complete, no_tf32) == (True, True)
    assert "enabled_precisions" not in others
    build(network)
    assert len(calls) == 1  # loaded
    (kept,) = (tmp_path / "cache").rglob("engines.ep")
    assert re.search(r"torch_tensorrt-.*_tensorrt-.*_Imaginary-GPU-80GB_sm90/generate-fp32-3-dddd", str(kept))
    kept.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        build(network)
    assert "cached engines cannot be used" in caplog.text
    assert len(calls) == 2
    network.get_buffer("network.mean").add_(1)
    build(network)
    build(network, "bf16")
    assert len(calls) == 4
    assert len(list((tmp_path / "cache").rglob("engines.ep"))) == 3


def stand_in() -> ModuleType:
    return sys.modules["torch_tensorrt"].dynamo  # type: ignore[no-any-return]


def test_a_build_that_fails_is_one_line(installed: Path, tmp_path: Path) -> None:
    installed.write_text(STAND_IN.replace("return Engines(program)", 'raise AssertionError("no tactic\\nmore lines")'))
    with pytest.raises(BackendError, match=r"does not build generate: AssertionError no tactic$"):
        compile_tensorrt(pca(), (torch.randn(2, *CODE),), batch_size=3, precision="fp32", digest="d", name="generate", cache_dir=tmp_path)
