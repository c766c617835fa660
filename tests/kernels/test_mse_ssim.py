"""MSE + SSIM: the kernel against its reference in float64, the reference against the engine's metrics, and what the op refuses."""

from __future__ import annotations

import pytest
import torch

from engine import metrics
from kernels.dispatch import KernelUnavailable
from kernels.mse_ssim.cases import BENCHMARK_CASES, DTYPES, LAUNCHES, TEST_CASES, WINDOW, Case, Launch, bucket, launch_for
from kernels.mse_ssim.op import mse_ssim, mse_ssim_with_gradient
from tests.kernels import mse_ssim_checks

X, Y = torch.rand(2, 2, 1, 12, 13, generator=torch.Generator().manual_seed(0)).unbind()
WEIGHTS = {"mse_weight": 1.0, "ssim_weight": -1.0}


@pytest.mark.parametrize("case", TEST_CASES, ids=str)
def test_matches_reference(case, on_device):
    on_device(mse_ssim_checks.matches_reference, case)


@pytest.mark.parametrize(
    "check",
    [mse_ssim_checks.matches_reference_where_nothing_varies, mse_ssim_checks.gradient_in_one_pass_matches_reference],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_holds_in(dtype, check, on_device):
    on_device(check, dtype)


@pytest.mark.parametrize(
    "check",
    [
        mse_ssim_checks.matches_reference_with_another_type_of_target,
        mse_ssim_checks.values_do_not_depend_on_the_gradient,
        mse_ssim_checks.strides_do_not_matter,
        mse_ssim_checks.samples_do_not_mix,
        mse_ssim_checks.takes_no_images,
        mse_ssim_checks.takes_the_gradient_of_one_value,
        mse_ssim_checks.passes_opcheck,
        mse_ssim_checks.is_one_op_when_compiled,
        mse_ssim_checks.is_one_op_when_exported,
        mse_ssim_checks.gradient_can_be_traced,
        mse_ssim_checks.second_gradient_is_refused,
    ],
    ids=lambda check: check.__name__,
)
def test_holds(check, on_device):
    on_device(check)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.5])
def test_reference_is_what_the_engine_measures(noise):
    generator = torch.Generator().manual_seed(3)
    y = torch.rand(3, 1, 40, 33, generator=generator)
    x = y + noise * torch.randn(y.shape, generator=generator)
    mse, ssim = mse_ssim(x, y, impl="reference")
    torch.testing.assert_close(mse, metrics.mse(x, y), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(ssim, metrics.ssim(x, y), rtol=0, atol=1e-6)


def test_reference_gradient_is_the_derivative():
    x, y = (film.double()[:, :, :11] for film in (X, Y))
    assert torch.autograd.gradcheck(lambda x: mse_ssim(x, y, impl="reference"), x.clone().requires_grad_())


def test_reference_in_one_pass_is_forward_and_backward():
    x = X.double().requires_grad_()
    mse, ssim = mse_ssim(x, Y.double(), impl="reference")
    (wanted,) = torch.autograd.grad((mse - ssim).sum(), x)
    got = mse_ssim_with_gradient(x, Y.double(), **WEIGHTS)
    for g, w in zip(got, (mse, ssim, wanted), strict=True):
        torch.testing.assert_close(g, w, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("x", "y", "settings", "message"),
    [
        (X, Y[:1], {}, r"two batches of one shape, not: \(2, 1, 12, 13\) and \(1, 1, 12, 13\)$"),
        (X[0], Y[0], {}, r"must be \[N, 1, H, W\].*\(1, 12, 13\) and \(1, 12, 13\)$"),
        (X.expand(2, 3, 12, 13), Y.expand(2, 3, 12, 13), {}, r"must be \[N, 1, H, W\].*\(2, 3, 12, 13\)$"),
        (X[:, :, :10], Y[:, :, :10], {}, r"at least 11 pixels high and wide: \(10, 13\)$"),
        (X.int(), Y, {}, "images must be float32.*int32$"),
        (X, Y.int(), {}, "targets must be float32.*int32$"),
        (X, Y.to("meta"), {}, "different devices: cpu and meta$"),
        (X, Y.clone().requires_grad_(), {}, r"no gradient for its targets; pass `y.detach\(\)`$"),
        (X, Y, {"impl": "fast"}, "impl must be one of auto, kernel, reference: 'fast'$"),
    ],
)
def test_refuses_what_makes_no_sense(x, y, settings, message):
    with pytest.raises(ValueError, match=message):
        mse_ssim(x, y, **settings)
    with pytest.raises(ValueError, match=message):
        mse_ssim_with_gradient(x, y, **WEIGHTS, **settings)


def test_a_target_that_learns_is_welcome_where_nothing_is_differentiated():
    with torch.no_grad():
        assert mse_ssim(X, Y.clone().requires_grad_())[0].shape == (2,)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y, "only with TRITON_INTERPRET=1.*: cpu$"),
        (X.double(), Y, "impl='reference' for float64$"),
        (X, Y.double(), "impl='reference' for float64$"),
    ],
)
def test_a_kernel_that_cannot_run_is_no_reference_in_disguise(x, y, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for op in (mse_ssim, lambda *films, impl: mse_ssim_with_gradient(*films, **WEIGHTS, impl=impl)):
        with pytest.raises(KernelUnavailable, match=message):
            op(x, y, impl="kernel")
        assert all(map(torch.equal, op(x, y, impl="auto"), op(x, y, impl="reference")))


def test_every_height_has_a_launch():
    heights = LAUNCHES["default"]
    assert {bucket(height) for height in range(11, 3000)} == set(heights)
    for launch in (launch for table in LAUNCHES.values() for launch in table.values()):
        assert launch.tile_rows % launch.block_rows == 0
        assert launch.block_rows >= 16
        assert launch.tile_columns >= 22
    assert launch_for("a device nobody measured", 3000) == heights[1024] == Launch(tile_rows=128, block_rows=16, block_columns=32, warps=8)
    assert heights[1024].num_tiles(1024, 1024) == 8 * 47


def test_window_is_the_engines():
    assert pytest.approx(metrics._window(), abs=1e-16) == list(WINDOW)
    assert tuple(reversed(WINDOW)) == WINDOW


def test_costs_are_those_of_a_full_film():
    case = Case(batch=8, height=1024, width=1024, dtype=torch.bfloat16)
    assert case in BENCHMARK_CASES
    pixels = 8 * 1024 * 1024
    assert (case.value_bytes, case.forward_bytes, case.backward_bytes, case.with_gradient_bytes) == (
        *(4 * pixels, 8 * pixels, 10 * pixels, 6 * pixels),
    )
    assert case.value_flops == (28 + 16 * 11) * pixels
    assert case.forward_flops == (52 + 28 * 11) * pixels
    assert case.backward_flops == 4 * pixels
