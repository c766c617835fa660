"""The Triton kernel of a refinement step: one program is one slot, whose code it reads twice, first to see whether it is finite."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def adam_kernel(
    latents_ptr: tl.tensor,  # [slots, VALUES] float32
    gradient_ptr: tl.tensor,  # as latents, of any type
    loss_ptr: tl.tensor,  # [slots] float32
    first_ptr: tl.tensor,  # as latents
    second_ptr: tl.tensor,  # as latents
    counts_ptr: tl.tensor,  # [slots] int32
    best_ptr: tl.tensor,  # as latents
    best_loss_ptr: tl.tensor,  # [slots] float32
    best_step_ptr: tl.tensor,  # [slots] int32
    active_ptr: tl.tensor,  # [slots] bool
    lr: tl.tensor,
    epsilon: tl.tensor,
    VALUES: tl.constexpr,
    WIDTH: tl.constexpr,  # of a row: of the gauge where there is one
    ON_SPHERE: tl.constexpr,
    BETA1: tl.constexpr,
    BETA2: tl.constexpr,
    LOG2_BETA1: tl.constexpr,
    LOG2_BETA2: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_WIDTH: tl.constexpr,
) -> None:
    """Best-so-far, Adam and the gauge for the slot of this program."""
    slot = tl.program_id(0).to(tl.int64)
    if tl.load(active_ptr + slot):
        rows, columns = tl.arange(0, BLOCK_ROWS)[:, None], tl.arange(0, BLOCK_WIDTH)[None, :]
        code_is_finite = tl.full((BLOCK_ROWS, BLOCK_WIDTH), 1, tl.int32)
        gradient_is_finite = tl.full((BLOCK_ROWS, BLOCK_WIDTH), 1, tl.int32)
        for first_row in range(0, tl.cdiv(VALUES, WIDTH), BLOCK_ROWS):
            places = (first_row + rows) * WIDTH + columns
            inside = (columns < WIDTH) & (places < VALUES)
            offsets = slot * VALUES + places
            codes = tl.load(latents_ptr + offsets, mask=inside, other=0.0)
            gradient = tl.load(gradient_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
            code_is_finite &= (tl.abs(codes) < float("inf")).to(tl.int32)
            gradient_is_finite &= (tl.abs(gradient) < float("inf")).to(tl.int32)

        loss = tl.load(loss_ptr + slot)
        count = tl.load(counts_ptr + slot)
        is_finite = (tl.abs(loss) < float("inf")) & (tl.min(code_is_finite) == 1)
        is_better = is_finite & (loss < tl.load(best_loss_ptr + slot))
        moves = is_finite & (tl.min(gradient_is_finite) == 1)
        tl.debug_barrier()  # no thread writes before all have read the numbers of the slot
        tl.store(best_loss_ptr + slot, loss, mask=is_better)
        tl.store(best_step_ptr + slot, count, mask=is_better)
        tl.store(counts_ptr + slot, count + 1, mask=moves)

        # 1 - beta^count in float64: in float32 the betas alone would be off by 1e-5 of 1 - beta, and the power takes further digits
        steps = count.to(tl.float64) + 1
        scale = (lr / (1 - tl.exp2(steps * tl.full((), LOG2_BETA1, tl.float64)))).to(tl.float32)
        root = tl.sqrt(1 - tl.exp2(steps * tl.full((), LOG2_BETA2, tl.float64))).to(tl.float32)
        for first_row in range(0, tl.cdiv(VALUES, WIDTH), BLOCK_ROWS):
            places = (first_row + rows) * WIDTH + columns
            inside = (columns < WIDTH) & (places < VALUES)
            offsets = slot * VALUES + places
            codes = tl.load(latents_ptr + offsets, mask=inside, other=0.0)
            if is_better:
                tl.store(best_ptr + offsets, codes, mask=inside)
            if moves:
                gradient = tl.load(gradient_ptr + offsets, mask=inside, other=0.0).to(tl.float32)
                first = tl.load(first_ptr + offsets, mask=inside, other=0.0)
                if BETA1 > 0.5:  # from the side that loses no digits, as torch.lerp
                    first += (1 - BETA1) * (gradient - first)
                else:
                    first = gradient - BETA1 * (gradient - first)
                second = tl.load(second_ptr + offsets, mask=inside, other=0.0) * BETA2 + (1 - BETA2) * (gradient * gradient)
                step = tl.div_rn(scale * first, tl.div_rn(tl.sqrt_rn(second), root) + epsilon)
                codes = tl.where(inside, codes - step, 0.0)
                if ON_SPHERE:
                    codes = _on_sphere(codes, WIDTH)
                tl.store(latents_ptr + offsets, codes, mask=inside)
                tl.store(first_ptr + offsets, first, mask=inside)
                tl.store(second_ptr + offsets, second, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _on_sphere(codes: tl.tensor, WIDTH: tl.constexpr) -> tl.tensor:
    """Rows of WIDTH entries, and zeros beyond, with length sqrt(WIDTH). NaN stays: comparisons with it are false."""
    peak = tl.max(tl.abs(codes), axis=1)
    peak = tl.where(peak < 1.17549435e-38, 1.17549435e-38, peak)  # the least normal number
    unit = tl.div_rn(codes, peak[:, None])
    mean = tl.sum(unit * unit, axis=1) * (1.0 / WIDTH)
    return unit * tl.div_rn(1.0, tl.sqrt_rn(tl.where(mean < 1e-12, 1e-12, mean)))[:, None]
