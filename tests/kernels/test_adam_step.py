"""A refinement step: the kernel against its reference in float64, the reference against the engine's own, and what the op refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.encode.gauge import project
from engine.refine.adam import SlotAdam
from kernels.adam_step.cases import BENCHMARK_CASES, DTYPES, LAUNCHES, TEST_CASES, Blocks, Case, blocks_for, bucket
from kernels.adam_step.op import AdamState, adam_step
from kernels.dispatch import KernelUnavailable
from tests.kernels import adam_step_checks

LATENTS, LOSS, ACTIVE = torch.arange(24.0).reshape(2, 3, 4), torch.ones(2), torch.ones(2, dtype=torch.bool)
STATE = AdamState.of(LATENTS)


@pytest.mark.parametrize("case", TEST_CASES, ids=str)
def test_matches_reference(case, on_device):
    on_device(adam_step_checks.matches_reference, case)


@pytest.mark.parametrize(
    "check",
    [
        adam_step_checks.matches_reference_with_other_settings,
        adam_step_checks.bias_correction_keeps_its_digits,
        adam_step_checks.lengths_at_extremes,
        adam_step_checks.one_value_that_is_not_finite_keeps_its_slot,
        adam_step_checks.the_first_of_equal_losses_is_kept,
        adam_step_checks.slots_do_not_mix,
        adam_step_checks.maps_and_strides_do_not_matter,
        adam_step_checks.takes_no_slots,
        adam_step_checks.passes_opcheck,
        adam_step_checks.is_one_op_when_compiled,
        adam_step_checks.is_one_op_when_exported,
    ],
    ids=lambda check: check.__name__,
)
def test_holds(check, on_device):
    on_device(check)


@pytest.mark.parametrize("gauge", ["none", "sphere"])
def test_reference_is_what_refinement_does(gauge):
    """Bit for bit: Adam, the gauge, and of every film the first code with the least loss, here of few values so that some are equal."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 10, generator=generator)
    theirs, state, adam = latents.clone(), AdamState.of(latents), SlotAdam(latents, lr=0.1)
    everyone = torch.ones(3, dtype=torch.bool)
    losses = torch.randint(0, 4, (25, 3), generator=generator).float()
    codes = []
    for loss in losses:
        codes.append(latents.clone())
        gradient = latents.sin() + torch.randn(3, 4, 10, generator=generator)
        adam_step(latents, gradient, loss, state, active=everyone, lr=0.1, gauge=gauge)
        theirs = project(adam.step(theirs, loss, gradient, everyone), gauge)
        assert torch.equal(latents, theirs)
    for film, found in enumerate(losses.T.tolist()):
        step = found.index(min(found))
        assert found.count(min(found)) > 1
        assert torch.equal(state.best[film], codes[step][film])
        assert (state.best_loss[film], state.best_step[film], state.counts[film]) == (min(found), step, 25)


def test_reference_is_the_adam_of_pytorch():
    slots = adam_step_checks.draw("cpu", replace(adam_step_checks.SMALL, slots=2)).map(lambda x: x.double() if x.is_floating_point() else x)
    latents, state = slots.latents, AdamState.of(slots.latents)
    films = [film.clone().requires_grad_() for film in latents]
    optimisers = [torch.optim.Adam([film], lr=0.1) for film in films]
    for step in range(8):
        active = torch.tensor([True, step % 2 == 0])
        gradient = latents.sin() + 0.1 * step
        for film, optimiser, own, is_active in zip(films, optimisers, gradient, active, strict=True):
            if is_active:
                film.grad = own.clone()
                optimiser.step()
        adam_step(latents, gradient, slots.loss, state, active=active, lr=0.1)
        torch.testing.assert_close(latents, torch.stack([film.detach() for film in films]), rtol=1e-12, atol=1e-14)
    assert state.counts.tolist() == [8, 4]


@pytest.mark.parametrize("rows", [torch.tensor([False, True, False]), torch.tensor([1])], ids=["mask", "numbers"])
def test_a_slot_begins_anew(rows):
    latents = torch.randn(3, 2, 5)
    state, active = AdamState.of(latents), torch.ones(3, dtype=torch.bool)
    assert state.best is not latents
    adam_step(latents, torch.randn(3, 2, 5), torch.rand(3), state, active=active, lr=0.1)
    others = [tensor[[0, 2]].clone() for tensor in adam_step_checks.astuple_of(state)]
    latents[1] = 7
    state.restart(rows, latents)
    fresh = adam_step_checks.astuple_of(AdamState.of(latents))
    for now, kept, new in zip(adam_step_checks.astuple_of(state), others, fresh, strict=True):
        assert torch.equal(now[1], new[1])
        assert torch.equal(now[[0, 2]], kept)


def test_a_gradient_that_is_not_finite_ends_a_slot_without_a_word_to_the_others():
    slots = adam_step_checks.draw("cpu", adam_step_checks.SMALL)
    slots.gradient[0, 0, 0] = torch.nan
    after = adam_step_checks.after("reference", slots, "sphere")
    assert (after.state.counts - slots.state.counts).tolist() == [0, 1, 1, 0]


def refused(**changes):
    """Arguments of a call in which everything else makes sense."""
    parts = {field: changes.pop(field) for field in tuple(changes) if field in AdamState.__dataclass_fields__}
    settings = {"latents": LATENTS, "gradient": LATENTS, "loss": LOSS, "active": ACTIVE, "lr": 0.1}
    return settings | {"state": replace(STATE, **parts)} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": -0.1}, "lr must be 0 or more and finite: -0.1$"),
        ({"lr": float("nan")}, "lr must be 0 or more and finite: nan$"),
        ({"betas": (0.9, 1.0)}, r"betas must be 0 or more and below 1: \(0.9, 1.0\)$"),
        ({"epsilon": 0.0}, "epsilon must be above 0: 0.0$"),
        ({"gauge": "cube"}, "gauge must be one of none, sphere: 'cube'$"),
        ({"impl": "fast"}, "impl must be one of auto, kernel, reference: 'fast'$"),
        ({"latents": LOSS}, r"codes must be \[S, ...\].*\(2,\)$"),
        ({"latents": LATENTS[:, :0]}, r"a value or more for each slot.*\(2, 0, 4\)$"),
        ({"latents": LATENTS.half()}, "codes must be float32 or float64, not: torch.float16$"),
        ({"gradient": LATENTS.int()}, "gradient must be float32.*int32$"),
        ({"gradient": LATENTS[:1]}, r"gradient must be of shape \(2, 3, 4\), not: \(1, 3, 4\)$"),
        ({"best_step": STATE.counts[:1]}, r"state.best_step must be of shape \(2,\), not: \(1,\)$"),
        ({"active": ACTIVE.int()}, "active must be torch.bool.*int32$"),
        ({"loss": LOSS.double()}, "loss must be torch.float32 where codes are torch.float32, not: torch.float64$"),
        ({"counts": STATE.counts.long()}, "state.counts must be torch.int32.*int64$"),
        ({"first": LATENTS.to("meta")}, "codes and state.first are on different devices: cpu and meta$"),
        ({"latents": LATENTS.clone().requires_grad_()}, r"no gradient; call it under `torch.no_grad\(\)` or detach: codes$"),
        ({"loss": LOSS.clone().requires_grad_()}, r"no gradient; call it under `torch.no_grad\(\)` or detach: loss$"),
        ({"second": torch.ones(2, 4, 3).transpose(1, 2)}, r"state.second must be contiguous.*\(12, 1, 3\)$"),
        ({"best": LATENTS}, "state.best must not be the codes themselves"),
    ],
)
def test_refuses_what_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        adam_step(**refused(**changes))
    assert torch.equal(LATENTS, torch.arange(24.0).reshape(2, 3, 4))


def test_codes_that_want_a_gradient_are_welcome_where_nothing_is_differentiated():
    latents = LATENTS.clone().requires_grad_()
    with torch.no_grad():
        adam_step(**refused(latents=latents, **vars(AdamState.of(latents))))
    assert not torch.equal(latents, LATENTS)


@pytest.mark.parametrize(
    ("latents", "gradient", "gauge", "message"),
    [
        (LATENTS, LATENTS, "sphere", "only with TRITON_INTERPRET=1.*: cpu$"),
        (LATENTS.double(), LATENTS, "none", "impl='reference' for float64$"),
        (LATENTS, LATENTS.double(), "none", "impl='reference' for float64$"),
        (torch.arange(2 * 4097.0).reshape(2, 1, 4097), torch.ones(2, 1, 4097), "sphere", "rows of 1 to 4096 on the sphere.*: 4097$"),
    ],
)
def test_a_kernel_that_cannot_run_is_no_reference_in_disguise(latents, gradient, gauge, message, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    arguments = {"gradient": gradient, "loss": LOSS.to(latents.dtype), "active": ACTIVE, "lr": 0.1, "gauge": gauge}
    by_kernel, by_auto, by_reference = (latents.clone() for _ in range(3))
    with pytest.raises(KernelUnavailable, match=message):
        adam_step(by_kernel, state=AdamState.of(latents), impl="kernel", **arguments)
    assert torch.equal(by_kernel, latents)
    adam_step(by_auto, state=AdamState.of(latents), **arguments)
    adam_step(by_reference, state=AdamState.of(latents), impl="reference", **arguments)
    assert torch.equal(by_auto, by_reference)
    assert not torch.equal(by_auto, latents)


def test_every_width_has_a_launch():
    widths = LAUNCHES["default"]
    assert {bucket(width) for width in range(1, 4097)} == set(widths)
    assert all(launch.values == bucket(launch.values) >= width for table in LAUNCHES.values() for width, launch in table.items())


@pytest.mark.parametrize(
    ("values", "channels", "gauge", "blocks"),
    [
        (18 * 512, 512, "sphere", Blocks(width=512, block_rows=2, block_width=512, warps=8)),
        (300, 300, "sphere", Blocks(width=300, block_rows=1, block_width=512, warps=8)),
        (16 * 1024, 1024, "none", Blocks(width=2048, block_rows=1, block_width=2048, warps=8)),
        (700, 100, "none", Blocks(width=700, block_rows=1, block_width=1024, warps=8)),
    ],
)
def test_codes_are_cut_into_rows(values, channels, gauge, blocks):
    assert blocks_for("a device nobody measured", values, channels, gauge) == blocks


def test_costs_are_those_of_an_extended_code():
    case = Case(slots=64, layers=18, channels=512, gauge="sphere", dtype=torch.float32)
    assert case in BENCHMARK_CASES
    assert case.step_bytes == 8 * 4 * 64 * 18 * 512
    assert replace(case, dtype=torch.bfloat16).step_bytes == (7 * 4 + 2) * 64 * 18 * 512
    assert case.step_flops == 18 * 64 * 18 * 512
    assert {case.dtype for case in TEST_CASES} == set(DTYPES)
