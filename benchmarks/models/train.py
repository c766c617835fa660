"""A training step of the progressive GAN against the same step written straight down: same weights, same films, same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, say
from benchmarks.models.plain_pggan import PlainPggan
from benchmarks.plots import bars
from benchmarks.refinement.floor import measure as measure_floor
from benchmarks.refinement.random_codec import SEGAL
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, spread, take_turns
from engine.encode.backends import find_device
from engine.encode.precision import cpu_has_bf16, whole_float32
from trainers.nets.pggan_cost import step_gflop
from trainers.presets.pggan import PgganConfig
from trainers.task import Batch
from trainers.tasks.pggan import PgganTask, build_pggan

QUESTION = (
    "How fast is a step of the progressive GAN, both phases with penalty, optimisers and average, against a plain one in eager float32?"
)
TIMED = (
    "Timed: whole steps on films in memory, in turns. Not timed: films, the first turn, compiling. Off: relative difference of the first "
    "gradients of both phases; in float32 above 0.02 nothing is timed. Share: of the rate of a bfloat16 matrix product, for ours."
)
NAME = "train"
plot = bars
PLAIN, FP32, BF16, COMPILED = "plain eager fp32", "ours fp32", "ours bf16", "ours bf16, generator compiled"
STEP_BAR = Bar(bound=1.0, sense="at least")
BAR = f"ratio {STEP_BAR}, of the fastest to the plain step"
SEEDS, WARM_UP = {"weights": 0, "films": 1}, 1
MOST_OFF = 0.02  # in float32 a single leaky ReLU at 4x4 that falls on the other side of 0 moves the gradients by half a percent
CPU_CHANNELS = (128, 128, 128, 128, 64, 32)
QUICK_CHANNELS = (16, 16, 8)


def rows(options: Options) -> Iterator[Row]:
    """A process a resolution, in which all ways take turns."""
    for level, settings in _choices(options):
        side = 4 << level
        say(f"train: {side}x{side}, {settings['repeats']} turns of {settings['batch']} films")
        try:
            found = run_alone("benchmarks.models.train:measure", level=level, **settings)
        except StepFailed as error:
            yield Row(benchmark=NAME, step=f"{side}x{side}", failed=str(error))
            continue
        fastest = max(found["off"], key=lambda way: paired_ratio(found["rates"][way], found["rates"][PLAIN]))
        for way, rates in found["rates"].items():
            yield Row(
                benchmark=NAME,
                step=f"{side}x{side}: {way}",
                unit="images/s",
                values=tuple(rates),
                ratio=paired_ratio(rates, found["rates"][PLAIN]),
                ratio_to=PLAIN,
                bar=STEP_BAR if way == fastest else None,
                quality={"off": found["off"][way]} if way in found["off"] else {},
                figures={}
                if way == PLAIN
                else {"GFLOP": found["gflop"], "share": found["gflop"] * 1e9 * spread(rates).median / found["flops"]},
                settings=settings | {"device": found["device"]},
            )


def _choices(options: Options) -> Iterator[tuple[int, dict[str, Any]]]:
    if options.quick:
        yield 2, {"channels": QUICK_CHANNELS, "batch": 4, "repeats": 2, "compiled": False, "matrix": 256}
        return
    on_gpu = torch.cuda.is_available()
    common = {"channels": SEGAL if on_gpu else CPU_CHANNELS, "repeats": 20 if on_gpu else 3, "matrix": 8192 if on_gpu else 1024}
    if options.nightly and not on_gpu:
        yield 4, common | {"batch": 8, "repeats": 2, "compiled": False}
        return
    for level, batch in ((4, 16), (5, 8), (8, 4))[: 3 if on_gpu else 2]:
        yield level, common | {"batch": batch * (4 if on_gpu else 1), "compiled": on_gpu}


def measure(
    *, level: int, channels: list[int], batch: int, repeats: int, compiled: bool, matrix: int, device: str | None = None
) -> dict[str, Any]:
    """Images a second by way, how far the first gradients are off, and operations a second. Raises StepFailed at the gate."""
    place = find_device(device)
    has_bf16 = place.type == "cuda" or cpu_has_bf16()
    ways = {FP32: (False, False)} | ({BF16: (True, False)} if has_bf16 else {}) | ({COMPILED: (True, True)} if compiled else {})
    tasks = {way: _task(level, tuple(channels), batch, place, compiled=is_compiled) for way, (_, is_compiled) in ways.items()}
    side = 4 << level
    films = torch.rand(batch, 1, side, side, generator=torch.Generator().manual_seed(1)).to(place) * 2 - 1
    plain = _plain(tasks[FP32], level)
    with whole_float32():
        expected = _plain_gradients(plain, films)
        off = {FP32: _difference(_gradients(tasks[FP32], films, bf16=False), expected)}
    if not off[FP32] < MOST_OFF:
        raise StepFailed(f"gradients are not those of the plain step, relative difference {off[FP32]:.2g}")
    steps: dict[str, Callable[[int], int]] = {PLAIN: partial(_plain_turn, plain, films)}
    for way, (bf16, _) in ways.items():
        if bf16:
            off[way] = _difference(_gradients(tasks[way], films, bf16=True), expected)
        steps[way] = partial(_turn, tasks[way], films, bf16)
    task = tasks[FP32]
    return {
        "rates": take_turns(steps, repeats=repeats),
        "off": off,
        "gflop": step_gflop(task.generator.settings, task.discriminator.settings, level, batch_size=batch),
        "flops": measure_floor(repeats=3, matrix=matrix, copied=2**20, device=str(place))["flops"],
        "device": str(place),
    }


def _task(level: int, channels: tuple[int, ...], batch: int, device: torch.device, *, compiled: bool) -> PgganTask:
    lone = tuple(int(at == level) for at in range(level + 1))  # training begins, and stays, at this level
    cfg = PgganConfig(
        channels=channels[: level + 1],
        batch_size=(batch,),
        fade_images=(0,),
        stable_images=lone,
        images=1,
        group=(min(batch, 4),),
        compile=compiled,
    )
    return build_pggan(cfg, device=device, seed=0)


def _plain(task: PgganTask, level: int) -> PlainPggan:
    plain = PlainPggan(task.cfg, level, group=task.group)
    plain.generator.to(task.device)
    plain.discriminator.to(task.device)
    plain.average.to(task.device)
    plain.take(task.generator, task.discriminator)
    return plain


def _batch(films: Tensor, purpose: str, turn: int) -> Batch:
    numbers = range(turn * len(films), (turn + 1) * len(films))
    return Batch(numbers=numbers, films=films, seed=0, purpose=purpose, device=films.device)


def _minimise(task: PgganTask, films: Tensor, turn: int, *, bf16: bool, move: bool) -> Iterator[dict[str, Tensor]]:
    """Both phases as the trainer's loop runs them; the gradients of each, by name, before anything moves."""
    for phase in task.phases():
        for network in (task.generator, task.discriminator):
            network.requires_grad_(any(network is module for module in phase.modules))
        phase.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(films.device.type, dtype=torch.bfloat16, enabled=bf16):
            loss = phase.loss(_batch(films, phase.name, turn))["loss"]
        loss.backward()  # type: ignore[no-untyped-call]
        yield _by_name(phase.modules[0])
        if move:
            phase.optimiser.step()
            if phase.after is not None:
                phase.after()


def _turn(task: PgganTask, films: Tensor, bf16: bool, turn: int) -> int:
    for _ in _minimise(task, films, turn, bf16=bf16, move=True):
        pass
    return len(films)


def _gradients(task: PgganTask, films: Tensor, *, bf16: bool) -> list[dict[str, Tensor]]:
    return list(_minimise(task, films, 0, bf16=bf16, move=False))


def _noise(plain: PlainPggan, films: Tensor, turn: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """What the trainer draws for the images of this turn."""
    both = [_batch(films, name, turn) for name in ("discriminator", "generator")]
    first, second = (batch.normal("code", 1, plain.cfg.code_size).flatten(1) for batch in both)
    return (first, second), both[0].uniform("mix", 1, 1, 1)


def _plain_turn(plain: PlainPggan, films: Tensor, turn: int) -> int:
    plain.step(films, *_noise(plain, films, turn))
    return len(films)


def _plain_gradients(plain: PlainPggan, films: Tensor) -> list[dict[str, Tensor]]:
    (first, second), mix = _noise(plain, films, 0)
    plain.discriminator_loss(films, first, mix).backward()  # type: ignore[no-untyped-call]
    found = [_by_name(plain.discriminator)]
    plain.generator_loss(second).backward()  # type: ignore[no-untyped-call]
    return [*found, _by_name(plain.generator)]


def _by_name(network: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in network.named_parameters() if weight.grad is not None}


def _difference(got: list[dict[str, Tensor]], expected: list[dict[str, Tensor]]) -> float:
    """The norm of what differs by the norm of all gradients, the larger of both phases. Raises StepFailed where other weights have some."""
    worst = 0.0
    for ours, theirs in zip(got, expected, strict=True):
        others = {name for name in {*ours, *theirs} if name not in ours or name not in theirs}
        if any(bool(part[name].any()) for name in others for part in (ours, theirs) if name in part):
            raise StepFailed(f"gradients are of other weights than the plain step's: {', '.join(sorted(others))}")
        whole = torch.cat([theirs[name].flatten() for name in sorted({*ours} & {*theirs})])
        away = torch.cat([(ours[name] - theirs[name]).flatten() for name in sorted({*ours} & {*theirs})])
        worst = max(worst, float(away.norm() / whole.norm()))
    return worst
