"""Runs cases in guarded children: one that dies or hangs names its case, and the next child goes on behind it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[3]
SECONDS_A_FILM = 10.0
SECONDS_TO_START = 60.0
ENDS = ("ok", "failed", "raised", "crashed", "hung")
BAD_ENDS = ("raised", "crashed", "hung")


@dataclass(frozen=True)
class Outcome:
    """What became of one case. `end` is one of ENDS; `reason` is the film's, the signal's name, or the exception's."""

    name: str
    damage: str
    end: str
    stage: str
    reason: str
    seconds: float

    @property
    def format(self) -> str:
        return self.name.partition("-")[0]

    @property
    def is_wrong(self) -> bool:
        """A crash, a hang, an exception past the door, or a film as its writer left it that was not read."""
        return self.end in BAD_ENDS or (self.damage == "valid" and self.end != "ok")


def run_cases(seed: int, numbers: range, *, a_child: int = 2000) -> Iterator[Outcome]:
    """One outcome for each number, in order, from children that take up to `a_child` cases."""
    first = numbers.start
    while first < numbers.stop:
        for outcome in _one_child(seed, range(first, min(first + a_child, numbers.stop))):
            first += 1
            yield outcome


def _one_child(seed: int, numbers: range) -> Iterator[Outcome]:
    """Outcomes until the child is through, or ends in one: that case is its last."""
    receiving, sending = os.pipe()
    command = [sys.executable, "-m", "tests.faults.fuzz.child", "--seed", str(seed), "--answers", str(sending)]
    command += ["--first", str(numbers.start), "--last", str(numbers.stop)]
    with tempfile.TemporaryFile("w+", errors="replace") as said, os.fdopen(receiving) as answers:
        child = subprocess.Popen(command, cwd=ROOT, pass_fds=[sending], stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})
        os.close(sending)
        try:
            yield from _listen(child, answers, said, len(numbers))
        finally:
            child.kill()
            child.wait()


def _listen(child: subprocess.Popen[bytes], answers: IO[str], said: IO[str], count: int) -> Iterator[Outcome]:
    begun: dict[str, Any] | None = None
    done = 0
    while done < count:
        is_ready = bool(select.select([answers], [], [], SECONDS_TO_START if begun is None else SECONDS_A_FILM)[0])
        line = answers.readline() if is_ready else ""
        if line:
            answer = json.loads(line)
            if "begin" in answer:
                begun = answer
                continue
            assert begun is not None
            yield Outcome(begun["begin"], begun["damage"], answer["end"], answer["stage"], answer["reason"], answer["seconds"])
            done += 1
            continue
        if begun is None:
            raise RuntimeError(f"the child ended before its first case: {_tail(said)}")
        end = "crashed" if is_ready else "hung"
        reason = _death(child) if is_ready else f"more than {SECONDS_A_FILM:g} s"
        yield Outcome(begun["begin"], begun["damage"], end, "process", f"{reason}: {_tail(said)}", SECONDS_A_FILM)
        return


def _death(child: subprocess.Popen[bytes]) -> str:
    code = child.wait()
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def _tail(said: IO[str]) -> str:
    """What the child said last; of a crash, from shortly before the fault on."""
    said.seek(0)
    text = said.read()
    fault = text.rfind("Fatal Python error")
    return text[max(fault - 400, 0) : fault + 1500] if fault >= 0 else text[-800:]


def table(outcomes: list[Outcome]) -> str:
    """Counts by format, as text."""
    lines = [f"{'format':8}{'files':>8}" + "".join(f"{end:>9}" for end in ENDS) + f"{'slowest s':>11}"]
    formats = sorted({outcome.format for outcome in outcomes})
    for name in [*formats, "all"]:
        of_it = [outcome for outcome in outcomes if name in (outcome.format, "all")]
        counts = Counter(outcome.end for outcome in of_it)
        slowest = max((outcome.seconds for outcome in of_it), default=0.0)
        lines.append(f"{name:8}{len(of_it):>8}" + "".join(f"{counts[end]:>9}" for end in ENDS) + f"{slowest:>11.2f}")
    return "\n".join(lines)
