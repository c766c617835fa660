"""Every op of `kernels/` against the memory of the device, against what Inductor makes of its reference, and against eager."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.commands import StepFailed, run_alone
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, take_turns
from kernels.catalogue import Work, works
from kernels.testing import assert_as_accurate

if TYPE_CHECKING:
    from benchmarks.inputs import Options

QUESTION = "How near does each kernel come to the bandwidth of memory, and is it as fast as what Inductor makes of the same reference?"
TIMED = (
    "Timed: calls back to back on inputs that lie on the device, in turns with copies of 512 MB; first the result is held against float64. "
    "Not timed: compiling, a first turn. Bars where a call moves 64 MB or more: below, caches and launches decide."
)
NAME = "kernels"
COPY, KERNEL, INDUCTOR, EAGER = "copy", "kernel", "Inductor", "eager"
COPY_BAR, INDUCTOR_BAR = Bar(bound=0.8, sense="at least"), Bar(bound=1.0, sense="at least")
BAR = f"of the copy {COPY_BAR}; of Inductor {INDUCTOR_BAR}"
SEEDS, WARM_UP = {"inputs": 0}, 1
LEAST_BYTES = 64 * 10**6
BYTES_A_TURN = 2 * 10**9
COPIED = 2**29
DTYPES = (torch.float32, torch.bfloat16)  # float16 moves as many bytes as bfloat16

Outputs = tuple[Tensor, ...]


def rows(options: Options) -> Iterator[Row]:
    """On CUDA all cases of all ops; elsewhere what needs no device."""
    yield from op_rows(everything=options.size == "whole", repeats=options.pick(quick=3, nightly=20, whole=20))


def op_rows(*, everything: bool, repeats: int) -> Iterator[Row]:
    """A row an op, case and pass, and one beside Inductor's; without CUDA the bytes that each op moves and saves, and no speed."""
    if not torch.cuda.is_available():
        yield from _bytes_rows(everything)
        return
    try:
        found = run_alone("benchmarks.refinement.kernel_ops:measure", everything=everything, repeats=repeats)
    except StepFailed as error:
        yield Row(benchmark=NAME, step="all ops", failed=str(error))
        return
    for each in found:
        yield from _op_rows(each)


def _op_rows(each: dict[str, Any]) -> Iterator[Row]:
    if each["failed"]:
        yield Row(benchmark=NAME, step=each["step"], failed=each["failed"])
        return
    rates, is_large = each["rates"], each["bytes"] >= LEAST_BYTES
    quality = {"error": each["error"], "eager's": each["eager_error"]}
    yield Row(
        benchmark=NAME,
        step=each["step"],
        unit="GB/s",
        values=tuple(rates[KERNEL]),
        ratio=paired_ratio(rates[KERNEL], rates[COPY]),
        ratio_to=COPY,
        bar=COPY_BAR if is_large else None,
        quality=quality,
        figures={"MB": each["bytes"] / 1e6, "copy GB/s": sorted(rates[COPY])[len(rates[COPY]) // 2]},
    )
    for other, bar in ((INDUCTOR, INDUCTOR_BAR if is_large else None), (EAGER, None)):
        step = f"{each['step']}, beside {other}"
        if other not in rates:
            yield Row(benchmark=NAME, step=step, unavailable=each["no_inductor"])
            continue
        yield Row(
            benchmark=NAME,
            step=step,
            unit="GB/s",
            values=tuple(rates[other]),
            ratio=paired_ratio(rates[KERNEL], rates[other]),
            ratio_to=f"{other} (ours to its)",
            bar=bar,
            quality={"error": each["eager_error"]},
        )


def chosen(*, everything: bool) -> list[Work]:
    """All works of two types, or the largest of each op, variant and type."""
    found = [work for work in works() if work.dtype in DTYPES]
    if everything:
        return found
    largest: dict[tuple[Any, ...], Work] = {}
    for work in found:
        key = (work.op, work.dtype, "upsample" in work.case)
        if key not in largest or work.costs["value"].bytes >= largest[key].costs["value"].bytes:
            largest[key] = work
    return list(largest.values())


def measure(*, everything: bool, repeats: int) -> list[dict[str, Any]]:
    """Gigabytes a second of kernel, copy, Inductor and eager, counted as the bytes that the kernel must move, by op, case and pass."""
    torch._functorch.config.donated_buffer = False  # a compiled backward pass is run again and again
    torch._dynamo.config.trace_autograd_ops = True
    torch.manual_seed(0)
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = _repeated(lambda: target.copy_(source), 2 * COPIED)
    found: list[dict[str, Any]] = []
    for work in chosen(everything=everything):
        try:
            found += measure_work(work, torch.device("cuda"), copy, repeats=repeats)
        except Exception as error:  # a compiler raises whatever it likes, and the other ops are to be measured all the same
            reason = next(iter(str(error).strip().splitlines()), "")
            found.append({"step": f"{work.op} {work.case}", "failed": f"{type(error).__name__} {reason}"})
        torch._dynamo.reset()
    return found


def measure_work(work: Work, device: torch.device, copy: Callable[[int], int], *, repeats: int) -> Iterator[dict[str, Any]]:
    """One op at one case: first that its kernel is right, then each of its passes."""
    inputs = work.draw(device)
    errors = check(work, inputs)
    calls = {KERNEL: work.call("kernel"), EAGER: work.call("reference")}
    passes = {name: work.passes(call, inputs) for name, call in calls.items()}
    reason = ""
    try:
        compiled = torch.compile(work.call("reference"), fullgraph=True, dynamic=False)
        passes[INDUCTOR] = work.passes(compiled, inputs)
        for run in passes[INDUCTOR].values():
            run()
    except Exception as error:  # as above: the kernel's own figures stand
        passes.pop(INDUCTOR, None)
        reason = f"Inductor: {type(error).__name__} {next(iter(str(error).strip().splitlines()), '')}"
    for name, cost in work.costs.items():
        steps = {COPY: copy} | {way: _repeated(found[name], cost.bytes) for way, found in passes.items()}
        rates = {way: [rate / 1e9 for rate in each] for way, each in take_turns(steps, repeats=repeats).items()}
        step = f"{work.op} {work.case} {name}"
        yield {"step": step, "failed": "", "rates": rates, "bytes": cost.bytes, "no_inductor": reason, **errors}


def check(work: Work, inputs: Outputs) -> dict[str, float]:
    """Raises AssertionError where the kernel errs by more than the rule of `kernels.testing`; the largest errors of kernel and eager."""
    got, same, exact = (_results(work, inputs, how) for how in (KERNEL, EAGER, "float64"))
    for g, s, e in zip(got, same, exact, strict=True):
        if g.is_floating_point():
            assert_as_accurate(g, s, e)
        else:
            assert torch.equal(g, s), f"{work.op} {work.case}: whole numbers differ"

    def worst(found: Outputs) -> float:
        pairs = [(f, e) for f, e in zip(found, exact, strict=True) if f.is_floating_point()]
        return max((f.double() - e).abs().max().item() for f, e in pairs)

    return {"error": worst(got), "eager_error": worst(same)}


def _results(work: Work, inputs: Outputs, how: str) -> Outputs:
    """Outputs, their gradients, and the inputs, into which some ops write."""

    def own(tensor: Tensor) -> Tensor:
        wide = tensor.detach().double() if how == "float64" and tensor.is_floating_point() else tensor.detach()
        return wide.clone(memory_format=torch.preserve_format).requires_grad_(tensor.requires_grad)

    mine = tuple(own(tensor) for tensor in inputs)
    outputs = tuple(tree_leaves(work.call("kernel" if how == KERNEL else "reference")(*mine)))
    wanted = [tensor for tensor in mine if tensor.requires_grad]
    gradients = torch.autograd.grad(outputs, wanted, [torch.ones_like(output) for output in outputs]) if wanted else ()
    return tuple(tensor.detach() for tensor in (*outputs, *gradients, *mine))


def _repeated(run: Callable[[], object], num_bytes: int) -> Callable[[int], int]:
    """A step that calls `run` until some gigabytes have moved, and returns how many bytes they were."""
    count = min(max(BYTES_A_TURN // num_bytes, 4), 400)

    def step(turn: int) -> int:
        for _ in range(count):
            run()
        return count * num_bytes

    return step


def _bytes_rows(everything: bool) -> Iterator[Row]:
    """What the kernels save, counted on tensors without data: every read and write of eager's operators beside the kernel's own."""
    for work in chosen(everything=everything):
        runs = work.passes(work.call("reference"), work.draw("meta"))
        for name, cost in work.costs.items():
            moved = eager_bytes(runs[name])
            yield Row(
                benchmark=NAME,
                step=f"{work.op} {work.case} {name}",
                unit="MB a call",
                values=(cost.bytes / 1e6,),
                value_of="whole",
                ratio=moved / cost.bytes,
                ratio_to="eager's bytes to these",
                figures={"eager MB": moved / 1e6},
            )
    yield Row(benchmark=NAME, step="speed", unavailable="needs a CUDA device; what stands above was counted, and nothing was timed")


def eager_bytes(run: Callable[[], object]) -> int:
    """The bytes that eager's operators read and write in a call, views not counted."""
    with _Counted() as counted:
        run()
    num_bytes: int = counted.bytes
    return num_bytes


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs or {}, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result
