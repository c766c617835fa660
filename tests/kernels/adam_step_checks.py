"""What `adam_step` must hold wherever its kernel runs; functions of a device, since they may run in another process."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kernels.adam_step.cases import Case
from kernels.adam_step.op import AdamState, adam_step
from kernels.testing import Run, assert_as_accurate, fresh_memory_is_nan

SMALL = Case(slots=4, layers=3, channels=10, gauge="sphere", dtype=torch.float32)
COUNTS = (0, 1, 2, 7, 100, 5_000, 1_000_000)
EXACT_FIELDS = ("counts", "best", "best_loss", "best_step")


@dataclass(frozen=True)
class Slots:
    """All that a step takes."""

    latents: Tensor
    gradient: Tensor
    loss: Tensor
    active: Tensor
    state: AdamState

    def map(self, change) -> Slots:
        state = AdamState(*(change(x) for x in astuple_of(self.state)))
        return Slots(change(self.latents), change(self.gradient), change(self.loss), change(self.active), state)

    def rows(self, rows: slice) -> Slots:
        return self.map(lambda x: x[rows].clone())


def astuple_of(state: AdamState) -> tuple[Tensor, ...]:
    return (state.first, state.second, state.counts, state.best, state.best_loss, state.best_step)


def draw(device: str, case: Case) -> Slots:
    """Films under way: some at their first step, half of them better than before; the last of several slots is not active."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.slots, case.layers, case.channels)
    latents, gradient, first, best = (torch.randn(shape, generator=generator) for _ in range(4))
    loss, best_loss = (torch.rand(case.slots, generator=generator) for _ in range(2))
    second = torch.randn(shape, generator=generator).square() * 1e-3
    counts = torch.tensor([COUNTS[slot % len(COUNTS)] for slot in range(case.slots)], dtype=torch.int32)
    first[counts == 0], second[counts == 0] = 0, 0
    active = torch.arange(case.slots) < max(1, case.slots - 1)
    state = AdamState(first * 0.01, second, counts, best, best_loss, counts // 2)
    return Slots(latents, (gradient * 0.01).to(case.dtype), loss, active, state).map(lambda x: x.to(device))


def after(how: Run, slots: Slots, gauge: str, **settings) -> Slots:
    """The slots after a step, as copies. "float64" is the reference on the same numbers in float64."""
    slots = slots.map(lambda x: x.double() if how == "float64" and x.is_floating_point() else x.clone())
    settings = {"lr": 0.1, **settings}
    with fresh_memory_is_nan():
        adam_step(
            *(slots.latents, slots.gradient, slots.loss, slots.state),
            **(settings | {"active": slots.active, "gauge": gauge, "impl": "kernel" if how == "kernel" else "reference"}),
        )
    return slots


def assert_same(one: Slots, other: Slots) -> None:
    """Bit for bit, NaN too."""
    tensors = ((slots.latents, *astuple_of(slots.state)) for slots in (one, other))
    for a, b in zip(*tensors, strict=True):
        assert torch.equal(a.view(torch.int32), b.view(torch.int32))


def compare(slots: Slots, gauge: str, **settings) -> Slots:
    got, same, exact = (after(how, slots, gauge, **settings) for how in ("kernel", "reference", "float64"))
    assert_as_accurate(got.latents, same.latents, exact.latents)
    assert_as_accurate(got.state.first, same.state.first, exact.state.first)
    assert_as_accurate(got.state.second, same.state.second, exact.state.second)
    for field in EXACT_FIELDS:
        assert torch.equal(getattr(got.state, field), getattr(same.state, field)), field
    return got


def matches_reference(device: str, case: Case) -> None:
    slots = draw(device, case)
    got = compare(slots, case.gauge)
    idle = slice(1, None) if case.slots == 1 else slice(case.slots - 1, None)
    assert_same(got.rows(idle), slots.rows(idle))
    assert torch.equal(got.state.counts - slots.state.counts, slots.active.int())


def matches_reference_with_other_settings(device: str) -> None:
    for gauge in ("none", "sphere"):
        compare(draw(device, replace(SMALL, slots=8)), gauge, lr=1e-3, betas=(0.0, 0.99), epsilon=1e-3)
        compare(draw(device, replace(SMALL, slots=8)), gauge, lr=3.0, betas=(0.5, 0.0))


def bias_correction_keeps_its_digits(device: str) -> None:
    """From codes of 0 the step itself is seen, to its last digits, at any count."""
    slots = draw(device, Case(slots=24, layers=1, channels=16, gauge="none", dtype=torch.float32))
    counts = torch.tensor([*range(18), 100, 1_000, 10_000, 100_000, 10**9, 0], dtype=torch.int32, device=device)
    slots = replace(slots, latents=torch.zeros_like(slots.latents), state=replace(slots.state, counts=counts))
    for lr in (1.0, 0.05):
        compare(slots, "none", lr=lr)


def lengths_at_extremes(device: str) -> None:
    """Layers of zeros that nothing moves, so small that their squares are 0, and so large that their squares are infinite."""
    slots = draw(device, replace(SMALL, slots=5, layers=4))
    with torch.no_grad():
        for tensor in (slots.latents, slots.gradient, slots.state.first):
            tensor[:, 0] = 0
        slots.gradient[:, 1:3] = slots.state.first[:, 1:3] = 0
        slots.latents[:, 1] *= 1e-30
        slots.latents[:, 2] *= 1e30
    got = compare(slots, "sphere")
    assert not got.latents[:4, 0].any()
    torch.testing.assert_close(got.latents[:4, 1:].square().mean(2), torch.ones(4, 3, device=device))


def one_value_that_is_not_finite_keeps_its_slot(device: str) -> None:
    for gauge in ("none", "sphere"):
        for bad in (torch.nan, torch.inf, -torch.inf):
            slots = draw(device, replace(SMALL, slots=7, layers=3, channels=1000))
            slots.state.best_loss.fill_(torch.inf)
            slots.latents[1, 0, 3] = slots.gradient[2, 0, 3] = slots.loss[3] = bad
            slots.latents[4, 2, 999] = slots.gradient[5, 2, 999] = bad  # in the last block, the others in the first
            got = after("kernel", slots, gauge)
            for slot in (1, 3, 4):
                assert_same(got.rows(slice(slot, slot + 1)), slots.rows(slice(slot, slot + 1)))
            assert_same(got, reference_rounded_as(got, slots, gauge))
            for slot in (2, 5):  # their losses were fine: only their steps fail
                assert torch.equal(got.state.best[slot], slots.latents[slot])
                assert got.state.best_loss[slot] == slots.loss[slot]
                assert got.state.best_step[slot] == slots.state.counts[slot]
                for kept, before in zip(moving(got), moving(slots), strict=True):
                    assert torch.equal(kept[slot], before[slot])
            assert (got.state.counts - slots.state.counts).tolist() == [1, 0, 0, 0, 0, 0, 0]


def moving(slots: Slots) -> tuple[Tensor, Tensor, Tensor]:
    return slots.latents, slots.state.first, slots.state.second


def reference_rounded_as(got: Slots, slots: Slots, gauge: str) -> Slots:
    """What the reference leaves, with the kernel's own digits in the slots that moved."""
    wanted = after("reference", slots, gauge)
    moved = got.state.counts > slots.state.counts
    for a, b in zip(moving(wanted), moving(got), strict=True):
        a[moved] = b[moved]
    return wanted


def the_first_of_equal_losses_is_kept(device: str) -> None:
    slots = draw(device, SMALL)
    slots.state.best_loss.copy_(slots.loss)
    got = after("kernel", slots, "sphere")
    assert torch.equal(got.state.best, slots.state.best)
    assert torch.equal(got.state.best_step, slots.state.best_step)


def slots_do_not_mix(device: str) -> None:
    """One slot alone equals that slot among others, and another's NaN stays its own."""
    for gauge in ("none", "sphere"):
        slots = draw(device, SMALL)
        together = after("kernel", slots, gauge)
        assert_same(after("kernel", slots.rows(slice(1, 2)), gauge), together.rows(slice(1, 2)))
        for tensor in (slots.latents, slots.gradient, slots.loss, slots.state.first, slots.state.second, slots.state.best_loss):
            tensor[0] = torch.nan
        assert_same(after("kernel", slots, gauge).rows(slice(1, None)), together.rows(slice(1, None)))


def maps_and_strides_do_not_matter(device: str) -> None:
    """Codes of four dimensions are the same numbers; the gradient and the loss may have any strides."""
    slots = draw(device, Case(slots=3, layers=6, channels=5, gauge="none", dtype=torch.float32))
    wanted = after("kernel", slots, "none")
    maps = slots.map(lambda x: x.reshape(3, 2, 3, 5) if x.dim() == 3 else x)
    spread = replace(maps, gradient=maps.gradient.contiguous(memory_format=torch.channels_last), loss=torch.stack([maps.loss] * 2, 1)[:, 0])
    for gradient, loss in ((maps.gradient, maps.loss), (spread.gradient, spread.loss)):
        got = maps.map(torch.clone)
        adam_step(got.latents, gradient, loss, got.state, active=got.active, lr=0.1, impl="kernel")
        assert_same(got.map(lambda x: x.reshape(3, 6, 5) if x.dim() == 4 else x), wanted)


def takes_no_slots(device: str) -> None:
    assert len(after("kernel", draw(device, SMALL).rows(slice(0)), "sphere").latents) == 0


def passes_opcheck(device: str) -> None:
    slots = draw(device, SMALL)
    arguments = (slots.latents, slots.gradient, slots.loss, *astuple_of(slots.state), slots.active, 0.1, 0.9, 0.999, 1e-8, "sphere")
    torch.library.opcheck(torch.ops.latentray.adam_step.default, arguments)


class _Step(nn.Module):
    def forward(self, latents: Tensor, gradient: Tensor, loss: Tensor, active: Tensor, state: tuple[Tensor, ...]) -> Tensor:
        adam_step(latents, 2 * gradient, loss, AdamState(*state), active=active, lr=0.1, gauge="sphere", impl="kernel")
        return latents.sum(dim=(1, 2))


def call(module, slots: Slots) -> tuple[Slots, Tensor]:
    slots = slots.map(torch.clone)
    return slots, module(slots.latents, slots.gradient, slots.loss, slots.active, astuple_of(slots.state))


def is_one_op_when_compiled(device: str) -> None:
    slots = draw(device, SMALL)
    (wanted, sums), (got, found) = (call(m, slots) for m in (_Step(), torch.compile(_Step(), backend="aot_eager", fullgraph=True)))
    assert_same(got, wanted)
    assert torch.equal(found, sums)


def is_one_op_when_exported(device: str) -> None:
    """With any number of slots; the exported program writes into its inputs, as the op does."""
    slots = draw(device, SMALL)
    each = {0: torch.export.Dim("slots", min=1, max=64)}
    program = torch.export.export(
        _Step(),
        (slots.latents, slots.gradient, slots.loss, slots.active, astuple_of(slots.state)),
        dynamic_shapes=(each, each, each, each, (each,) * 6),
    )
    assert torch.ops.latentray.adam_step.default in {node.target for node in program.graph.nodes}
    for some in (slots, slots.rows(slice(2))):
        (wanted, sums), (got, found) = call(_Step(), some), call(program.module(), some)
        assert_same(got, wanted)
        assert torch.equal(found, sums)
