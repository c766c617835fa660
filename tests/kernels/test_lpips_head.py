"""The head of LPIPS: the kernel against its reference in float64, the reference against the package, and what the op refuses."""

from __future__ import annotations

from pathlib import Path

import lpips
import pytest
import torch

from kernels.dispatch import KernelUnavailable
from kernels.lpips_head.cases import ALEXNET, BENCHMARK_CASES, DTYPES, LAUNCHES, TEST_CASES, VGG, Case, Launch, bucket, launch_for
from kernels.lpips_head.op import lpips_head, unit_features
from tests.kernels import lpips_head_checks

FEATURES, WEIGHTS = torch.ones(2, 3, 4, 5), torch.ones(3)
TARGET = unit_features(FEATURES)


@pytest.mark.parametrize("case", TEST_CASES, ids=str)
def test_matches_reference(case, on_device):
    on_device(lpips_head_checks.matches_reference, case)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference_at_extremes(dtype, on_device):
    on_device(lpips_head_checks.matches_reference_at_extremes, dtype)


@pytest.mark.parametrize(
    "check",
    [
        lpips_head_checks.zero_pixels_have_gradient_zero,
        lpips_head_checks.matches_reference_with_wider_target_and_weights,
        lpips_head_checks.strides_do_not_matter,
        lpips_head_checks.samples_do_not_mix,
        lpips_head_checks.mean_takes_any_number_of_parts,
        lpips_head_checks.takes_no_images,
        lpips_head_checks.passes_opcheck,
        lpips_head_checks.is_one_op_when_compiled,
        lpips_head_checks.is_one_op_when_exported,
        lpips_head_checks.gradient_can_be_traced,
        lpips_head_checks.second_gradient_is_refused,
    ],
    ids=lambda check: check.__name__,
)
def test_holds(check, on_device):
    on_device(check)


@pytest.mark.parametrize("channels", [64, 384])
def test_reference_is_what_the_package_computes(channels):
    generator = torch.Generator().manual_seed(0)
    features, others = torch.randn(2, 2, channels, 9, 7, dtype=torch.float64, generator=generator).relu()
    features.requires_grad_()
    layer = lpips.NetLinLayer(channels, use_dropout=True).double().eval()
    (kernel,) = layer.parameters()
    with torch.no_grad():
        kernel.copy_(torch.rand(kernel.shape, generator=generator))
    squared = (lpips.normalize_tensor(features) - lpips.normalize_tensor(others)) ** 2
    wanted = lpips.spatial_average(layer(squared)).flatten()
    got = lpips_head(features, unit_features(others), kernel.detach().flatten())
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(value.sum(), features)[0] for value in (got, wanted)), rtol=1e-10, atol=1e-16)


def test_reference_gradient_is_the_derivative():
    features = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    target = unit_features(torch.randn(2, 4, 3, 3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda x: lpips_head(x, target, torch.arange(4.0, dtype=torch.float64)), features)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unit_features_have_length_1_and_nothing_of_them_is_differentiated(dtype):
    features = torch.randn(2, 40, 3, 3).to(dtype).requires_grad_()
    with torch.no_grad():
        features[0, :, 1, 1] = 0
    unit = unit_features(features)
    assert unit.dtype == dtype
    assert not unit.requires_grad
    assert unit.is_contiguous(memory_format=torch.channels_last)
    lengths = unit.float().square().sum(1).sqrt()
    assert lengths[0, 1, 1] == 0
    lengths[0, 1, 1] = 1
    torch.testing.assert_close(lengths, torch.ones(2, 3, 3), rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize(
    ("features", "target", "weights", "settings", "message"),
    [
        (FEATURES[0], TARGET[0], WEIGHTS, {}, r"must be \[N, C, H, W\].*\(3, 4, 5\)$"),
        (FEATURES[:, :0], TARGET[:, :0], WEIGHTS[:0], {}, r"one channel and one pixel or more.*\(2, 0, 4, 5\)$"),
        (FEATURES[..., :0], TARGET[..., :0], WEIGHTS, {}, r"one channel and one pixel or more.*\(2, 3, 4, 0\)$"),
        (FEATURES.int(), TARGET, WEIGHTS, {}, "features must be float32.*int32$"),
        (FEATURES, TARGET, WEIGHTS, {"epsilon": 0.0}, "epsilon must be above 0: 0.0$"),
        (FEATURES, TARGET[:1], WEIGHTS, {}, r"differ in shape: \(2, 3, 4, 5\) and \(1, 3, 4, 5\)$"),
        (FEATURES, TARGET, WEIGHTS[:2], {}, r"one value for each of 3 channels.*\(2,\)$"),
        (FEATURES, TARGET.int(), WEIGHTS, {}, "target must be float32.*int32$"),
        (FEATURES, TARGET, WEIGHTS.int(), {}, "weights must be float32.*int32$"),
        (FEATURES, TARGET.to("meta"), WEIGHTS, {}, "features and target are on different devices: cpu and meta$"),
        (FEATURES, TARGET, WEIGHTS.to("meta"), {}, "features and weights are on different devices: cpu and meta$"),
        (FEATURES, TARGET.clone().requires_grad_(), WEIGHTS, {}, r"no gradient for its target; pass `target.detach\(\)`$"),
        (FEATURES, TARGET, WEIGHTS.clone().requires_grad_(), {}, r"no gradient for its weights; pass `weights.detach\(\)`$"),
        (FEATURES, TARGET, WEIGHTS, {"impl": "fast"}, "impl must be one of auto, kernel, reference: 'fast'$"),
    ],
)
def test_refuses_what_makes_no_sense(features, target, weights, settings, message):
    with pytest.raises(ValueError, match=message):
        lpips_head(features, target, weights, **settings)


def test_weights_that_learn_are_welcome_where_nothing_is_differentiated():
    with torch.no_grad():
        assert lpips_head(FEATURES, TARGET, WEIGHTS.clone().requires_grad_()).shape == (2,)


@pytest.mark.parametrize(
    ("features", "target", "weights", "message"),
    [
        (FEATURES, TARGET, WEIGHTS, "only with TRITON_INTERPRET=1.*: cpu$"),
        (FEATURES, TARGET.double(), WEIGHTS, "impl='reference' for float64$"),
        (torch.ones(1, 513, 1, 1), torch.zeros(1, 513, 1, 1), torch.ones(513), "1 to 512 channels.*: 513$"),
    ],
)
def test_a_kernel_that_cannot_run_is_no_reference_in_disguise(features, target, weights, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelUnavailable, match=message):
        lpips_head(features, target, weights, impl="kernel")
    assert torch.equal(lpips_head(features, target, weights), lpips_head(features, target, weights, impl="reference"))


def test_every_width_has_a_launch():
    widths = LAUNCHES["default"]
    assert {bucket(channels) for channels in range(1, 513)} == set(widths)
    assert all(launch.pixels == bucket(launch.pixels) for table in LAUNCHES.values() for launch in table.values())
    assert launch_for("a device nobody measured", 384) == widths[512] == Launch(pixels=4, warps=4)


def test_costs_are_those_of_a_level_of_vgg():
    case = Case(batch=8, channels=64, height=256, width=256, dtype=torch.bfloat16)
    assert case in BENCHMARK_CASES
    assert case.forward_bytes == 2 * 8 * 64 * 256 * 256 * 2
    assert case.backward_bytes == 3 * 8 * 64 * 256 * 256 * 2
    assert case.forward_flops == (7 * 64 + 4) * 8 * 256 * 256
    assert case.backward_flops == (11 * 64 + 4) * 8 * 256 * 256


@pytest.mark.parametrize(("net", "levels"), [("alex", ALEXNET), ("vgg", VGG)])
def test_published_weights_are_as_wide_as_the_levels_and_nowhere_negative(net, levels):
    layers = torch.load(Path(lpips.__file__).parent / f"weights/v0.1/{net}.pth", map_location="cpu", weights_only=True)
    assert [layer.shape for layer in layers.values()] == [(1, channels, 1, 1) for channels, _ in levels]
    assert all((layer >= 0).all() for layer in layers.values())
