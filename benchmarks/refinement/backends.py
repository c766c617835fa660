"""Encoder, generator and gradient on each backend and precision, against a plain script in eager float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.commands import StepFailed, run_alone
from benchmarks.inputs import Options, say
from benchmarks.plots import bars
from benchmarks.refinement.random_codec import SEGAL, random_codec, random_codes
from benchmarks.refinement.waterfall import refiner_on
from benchmarks.report import Bar, Row
from benchmarks.timing import paired_ratio, synchronise, take_turns
from engine.config import RefineConfig
from engine.encode.backends import find_device
from engine.encode.codec import Codec
from engine.encode.compile import prepare
from engine.encode.parity import Difference, probe_pixels
from engine.errors import LatentrayError
from engine.networks.convnext import ConvNextEncoder, ConvNextSettings, sum_input_planes
from engine.refine.objective import Objective

QUESTION = "What does each backend make of encoder, generator and gradient, and does the parity gate let it?"
TIMED = (
    "Timed: one batch of random pixels or codes, in turns. Not timed, and in a column: compiling and the gate (ready s). "
    "Off: largest relative difference of a row from the plain script; gate: the largest figure of its checks."
)
NAME = "backends"
plot = bars
PLAIN = "plain script, eager fp32"
CHOICES = (
    *(("eager", "fp32"), ("eager", "bf16"), ("inductor", "fp32"), ("inductor", "bf16")),
    *(("cudagraphs", "bf16"), ("tensorrt", "bf16")),
)
STAGES = ("encoder", "generator", "gradient")
ENCODER_BAR = Bar(bound=2.5, sense="at least")
BAR = f"encoder, the fastest {ENCODER_BAR}"
SEEDS, WARM_UP = {"weights": 0, "codes": 3, "targets": 4}, 1


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the networks are, and on which backends they run."""

    side: int  # of the encoder's films
    encoder: dict[str, Any]
    channels: tuple[int, ...]
    choices: tuple[tuple[str, str], ...]


SIZES = {
    "quick": Size(side=64, encoder={"depths": (1, 1), "widths": (16, 32)}, channels=(32, 32, 16, 8), choices=CHOICES[3:]),
    "nightly": Size(side=256, encoder={}, channels=SEGAL[:5], choices=(CHOICES[1], *CHOICES[3:])),
    "whole": Size(side=1024, encoder={}, channels=SEGAL, choices=CHOICES),
}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One network of a codec: what goes in, and the plain script for it."""

    codec: Codec
    batch: Tensor
    plain: Callable[[Tensor], Tensor]


def rows(options: Options) -> Iterator[Row]:
    """Each network in a process of its own, in which all its backends take turns."""
    settings: dict[str, Any] = options.pick(
        quick={"batch": 2, "repeats": 2, "size": "quick"},
        nightly={"batch": 4, "repeats": 3, "size": "nightly"},
        whole={"batch": 4, "repeats": 3, "size": "whole"},
    )
    for stage in STAGES:
        say(f"backends: {stage}, {len(SIZES[settings['size']].choices)} backends are built and take {settings['repeats']} turns")
        try:
            found = run_alone("benchmarks.refinement.backends:measure", stage=stage, **settings)
        except StepFailed as error:
            yield Row(benchmark=NAME, step=stage, failed=str(error))
            continue
        yield from _rows(stage, found, settings)


def _rows(stage: str, found: dict[str, Any], settings: dict[str, Any]) -> Iterator[Row]:
    fastest = max(found["rates"], key=lambda name: paired_ratio(found["rates"][name], found["rates"][PLAIN]))
    for name in (PLAIN, *(" ".join(choice) for choice in CHOICES)):
        if name not in found["unavailable"] and name not in found["rates"]:
            continue  # smaller runs leave some out
        if name in found["unavailable"]:
            yield Row(benchmark=NAME, step=f"{stage}: {name}", unavailable=found["unavailable"][name])
            continue
        gate = {"gate": found["gate"][name]} if name in found["gate"] else {}
        yield Row(
            benchmark=NAME,
            step=f"{stage}: {name}",
            unit="films/s",
            values=tuple(found["rates"][name]),
            ratio=paired_ratio(found["rates"][name], found["rates"][PLAIN]),
            ratio_to=PLAIN,
            bar=ENCODER_BAR if stage == "encoder" and name == fastest else None,
            quality={"off": found["difference"][name]} | gate,
            figures={"ready s": round(found["seconds"][name], 1)} if name in found["seconds"] else {},
            settings=settings | {"device": found["device"], "parity": found["parity"].get(name)},
        )


def measure(*, stage: str, batch: int, repeats: int, size: str, device: str | None = None) -> dict[str, Any]:
    """Films a second by backend, the difference from the plain script's results, and the gate's figures; refusals with their reason."""
    torch.manual_seed(0)
    place = find_device(device)
    subject = _SUBJECTS[stage](batch, SIZES[size], place)
    with torch.no_grad():
        expected = subject.plain(subject.batch)
    found: dict[str, Any] = {name: {} for name in ("seconds", "gate", "parity", "unavailable")} | {"difference": {PLAIN: 0.0}}
    runs: dict[str, Callable[[Tensor], Tensor]] = {PLAIN: subject.plain}
    for backend, precision in SIZES[size].choices:
        name, began = f"{backend} {precision}", perf_counter()
        try:
            run, parity = _built(stage, subject.codec, backend, precision, batch)
            difference = Difference.between(run(subject.batch).cpu(), expected.cpu()).relative
        except LatentrayError as error:
            found["unavailable"][name] = str(error)
            continue
        synchronise()
        runs[name] = run
        found["seconds"][name] = perf_counter() - began
        found["difference"][name] = difference
        found["parity"][name] = parity
        found["gate"] |= {name: max(figures)} if (figures := list(_relative(parity))) else {}
    found["rates"] = take_turns({name: partial(_turn, run, subject.batch) for name, run in runs.items()}, repeats=repeats)
    return found | {"device": str(place)}


def _turn(run: Callable[[Tensor], Tensor], batch: Tensor, turn: int) -> int:
    with torch.no_grad():
        run(batch)
    return len(batch)


def _built(stage: str, codec: Codec, backend: Any, precision: Any, batch: int) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
    """The network on a backend, and what the gate said of it."""
    if stage != "gradient":
        prepared = prepare(codec, backend=backend, precision=precision, batch_size=batch, device=str(codec.device))
        return (prepared.encode if stage == "encoder" else prepared.generate), prepared.parity
    refiner = refiner_on(codec, backend, precision, RefineConfig(steps=1, coarse=False), batch_size=batch)
    (level,) = refiner.stages
    features = level.features(_targets(codec, batch))
    return lambda codes: level.gradient(codes, features)[2], refiner.parity


def _encoder(batch: int, size: Size, device: torch.device) -> Subject:
    """ConvNeXt-Small, at 1024x1024 when whole: the script repeats the gray film for weights of three planes, the codec has their sum."""
    plain = ConvNextEncoder(ConvNextSettings(**size.encoder, in_channels=3)).eval().requires_grad_(False)
    summed = ConvNextEncoder(ConvNextSettings(**size.encoder))
    summed.load_state_dict(sum_input_planes(plain.state_dict()))
    codec = random_codec((8,), encoder=summed, resolution=size.side).to(device)
    network = plain.to(device)

    def run(pixels: Tensor) -> Tensor:
        return codec.project(network(pixels).float())

    return Subject(codec=codec, batch=probe_pixels(codec, batch), plain=run)


def _generator(batch: int, size: Size, device: torch.device) -> Subject:
    codec = random_codec(size.channels).to(device)
    network = _contiguous(codec.generator)
    return Subject(codec=codec, batch=random_codes(codec, batch, seed=3), plain=network)


def _gradient(batch: int, size: Size, device: torch.device) -> Subject:
    codec = random_codec(size.channels).to(device)
    network, objective = _contiguous(codec.generator), Objective((("mse", 1.0),)).to(device)
    features = objective.features(_targets(codec, batch))

    def run(codes: Tensor) -> Tensor:
        with torch.enable_grad():
            codes = codes.clone().requires_grad_()
            (found,) = torch.autograd.grad(objective(network(codes), features)[0].sum(), codes)
        return found

    return Subject(codec=codec, batch=random_codes(codec, batch, seed=3), plain=run)


_SUBJECTS: dict[str, Callable[[int, Size, torch.device], Subject]] = {"encoder": _encoder, "generator": _generator, "gradient": _gradient}


def _contiguous(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=torch.contiguous_format)


def _targets(codec: Codec, batch: int) -> Tensor:
    with torch.no_grad():
        return torch.cat([codec.generate(code[None]) for code in random_codes(codec, batch, seed=4)])


def _relative(parity: Any) -> Iterator[float]:
    """All figures of the gate that are relative differences, however deep they lie."""
    if isinstance(parity, dict):
        for key, value in parity.items():
            if key in ("relative", "loss_relative"):
                yield value
            else:
                yield from _relative(value)
