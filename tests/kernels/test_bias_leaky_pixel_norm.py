"""Bias + leaky ReLU + pixel norm: the kernel against its reference in float64, and what the op refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.networks.pixel_norm import pixel_norm
from kernels.bias_leaky_pixel_norm.cases import BENCHMARK_CASES, DTYPES, LAUNCHES, TEST_CASES, Case, Launch, bucket, launch_for
from kernels.bias_leaky_pixel_norm.op import bias_leaky_pixel_norm
from kernels.dispatch import KernelUnavailable
from tests.kernels import norm_checks

upsample = pytest.mark.parametrize("upsample", [False, True], ids=["plain", "upsampled"])
X, BIAS = torch.ones(2, 3, 4, 5), torch.zeros(3)


@pytest.mark.parametrize("case", TEST_CASES, ids=str)
def test_matches_reference(case, on_device):
    on_device(norm_checks.matches_reference, case)


@upsample
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference_at_extremes(dtype, upsample, on_device):
    on_device(norm_checks.matches_reference_at_extremes, dtype, upsample)


def test_upsampling_is_four_copies(on_device):
    on_device(norm_checks.upsampling_is_four_copies)


@upsample
@pytest.mark.parametrize(
    "check",
    [
        norm_checks.matches_reference_with_a_wider_bias,
        norm_checks.strides_do_not_matter,
        norm_checks.samples_do_not_mix,
        norm_checks.takes_no_images,
        norm_checks.passes_opcheck,
        norm_checks.is_one_op_when_compiled,
        norm_checks.is_one_op_when_exported,
        norm_checks.gradient_can_be_traced,
        norm_checks.second_gradient_is_refused,
    ],
    ids=lambda check: check.__name__,
)
def test_holds(check, upsample, on_device):
    on_device(check, upsample)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reference_is_what_the_generator_computes(dtype):
    x, bias = torch.randn(2, 6, 4, 5).to(dtype), torch.randn(6).to(dtype)
    wanted = pixel_norm(F.leaky_relu(x.float() + bias.float()[:, None, None], 0.2)).to(dtype)
    assert torch.equal(bias_leaky_pixel_norm(x, bias, impl="reference"), wanted)
    upsampled = F.interpolate(wanted, scale_factor=2.0, mode="nearest")
    assert torch.equal(bias_leaky_pixel_norm(x, bias, upsample=True, impl="reference"), upsampled)


@upsample
def test_reference_gradient_is_the_derivative(upsample):
    x, bias = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: bias_leaky_pixel_norm(x, bias, upsample=upsample), x)


@pytest.mark.parametrize(
    ("x", "bias", "settings", "message"),
    [
        (X[0], BIAS, {}, r"must be \[N, C, H, W\].*\(3, 4, 5\)$"),
        (X[:, :0], BIAS[:0], {}, r"one channel or more.*\(2, 0, 4, 5\)$"),
        (X[:, :, :0], BIAS, {"upsample": True}, r"one pixel or more.*\(2, 3, 0, 5\)$"),
        (X, BIAS[:2], {}, r"one value for each of 3 channels.*\(2,\)$"),
        (X.int(), BIAS, {}, "activations must be float32.*int32$"),
        (X, BIAS.int(), {}, "bias must be float32.*int32$"),
        (X, BIAS.to("meta"), {}, "different devices: cpu and meta$"),
        (X, BIAS.clone().requires_grad_(), {}, r"no gradient for its bias; pass `bias.detach\(\)`$"),
        (X, BIAS, {"leak": -0.1}, "leak must be 0 to 1: -0.1$"),
        (X, BIAS, {"epsilon": 0.0}, "epsilon must be above 0: 0.0$"),
        (X, BIAS, {"impl": "fast"}, "impl must be one of auto, kernel, reference: 'fast'$"),
    ],
)
def test_refuses_what_makes_no_sense(x, bias, settings, message):
    with pytest.raises(ValueError, match=message):
        bias_leaky_pixel_norm(x, bias, **settings)


def test_a_bias_that_learns_is_welcome_where_nothing_is_differentiated():
    with torch.no_grad():
        assert bias_leaky_pixel_norm(X, BIAS.clone().requires_grad_()).shape == X.shape


@pytest.mark.parametrize(
    ("x", "bias", "message"),
    [
        (X, BIAS, "only with TRITON_INTERPRET=1.*: cpu$"),
        (X.double(), BIAS, "impl='reference' for float64$"),
        (torch.ones(1, 513, 1, 1), torch.zeros(513), "1 to 512 channels.*: 513$"),
    ],
)
def test_a_kernel_that_cannot_run_is_no_reference_in_disguise(x, bias, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelUnavailable, match=message):
        bias_leaky_pixel_norm(x, bias, impl="kernel")
    assert torch.equal(bias_leaky_pixel_norm(x, bias), bias_leaky_pixel_norm(x, bias, impl="reference"))


def test_every_width_has_a_launch():
    widths = LAUNCHES["default"]
    assert {bucket(channels) for channels in range(1, 513)} == set(widths)
    assert all(launch.pixels == bucket(launch.pixels) for table in LAUNCHES.values() for launch in table.values())
    assert launch_for("a device nobody measured", 300) == widths[512] == Launch(pixels=4, warps=4)


def test_costs_are_those_of_the_generators_levels():
    values = 8 * 16 * 1024 * 1024
    case = Case(batch=8, channels=16, height=1024, width=1024, dtype=torch.bfloat16)
    assert case in BENCHMARK_CASES
    assert (case.forward_bytes, case.backward_bytes, case.separate_bytes) == (2 * values * 2, 3 * values * 2, 0)
    assert case.forward_flops == (6 * 16 + 3) * 8 * 1024 * 1024
    assert case.backward_flops == (12 * 16 + 4) * 8 * 1024 * 1024


def test_upsampling_costs_what_is_written_and_saves_the_pass_between():
    values = 8 * 32 * 512 * 512
    case = Case(batch=8, channels=32, height=512, width=512, dtype=torch.bfloat16, upsample=True)
    assert case in BENCHMARK_CASES
    assert (case.forward_bytes, case.backward_bytes, case.separate_bytes) == (5 * values * 2, 6 * values * 2, 2 * values * 2)
    assert case.forward_flops == (6 * 32 + 3) * 8 * 512 * 512
    assert case.backward_flops == (15 * 32 + 4) * 8 * 512 * 512
    assert all(not case.upsample for case in BENCHMARK_CASES if case.height == 1024)  # nothing stands above the last level
