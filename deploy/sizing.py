"""The sizing table of README.md: films an hour and what 100,000 of them cost, from measured rates alone; `python deploy/sizing.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
PRICE_OF_A_CORE_HOUR = 0.05  # an example, in the currency of your choice; no figure below depends on it but the last
FILMS = 100_000


@dataclass(frozen=True)
class Measured:
    """One row of a results file: which, and what is taken from it."""

    file: str
    step: str

    @property
    def path(self) -> Path:
        """The file that it stands in."""
        return RESULTS / self.file

    def rate(self) -> float:
        """Its median, in the unit of the row a second; the machine's cores were all there was."""
        return float(self._row()["median"])

    def cores(self) -> int:
        """Of the machine that measured it."""
        return int(json.loads(self.path.read_text().splitlines()[0])["machine"]["cores"])

    def _row(self) -> dict[str, float]:
        for line in self.path.read_text().splitlines()[1:]:
            row: dict[str, float] = json.loads(line)
            if row.get("step") == self.step:
                return row
        raise LookupError(f"no such step in {self.path.name}: {self.step}")


@dataclass(frozen=True)
class Case:
    """A way to encode: seconds of a film are the sum over `parts` of how often each is done by how long it takes once."""

    name: str
    parts: tuple[tuple[int, Measured], ...]

    def seconds(self) -> float:
        """Of the machine, for one film."""
        return sum(count / measured.rate() for count, measured in self.parts)

    def line(self) -> str:
        """Its row of the table."""
        cores = self.parts[0][1].cores()
        core_hours = self.seconds() * FILMS * cores / 3600
        files = ", ".join(dict.fromkeys(f"`{Path(measured.file).stem}`" for _, measured in self.parts))
        hourly = 3600 / (self.seconds() * cores)
        return f"| {self.name} | {_said(hourly)} | {_said(core_hours)} | {_said(core_hours * PRICE_OF_A_CORE_HOUR)} | {files} |"


_FOLDER = "amd-epyc-2c"
_WHOLE = f"{_FOLDER}/2026-11-20T131218Z.jsonl"
_STEP = Measured(f"{_FOLDER}/2026-11-20T154612Z.jsonl", "1024x1024 + Inductor, one graph")
_ENCODER = Measured(f"{_FOLDER}/2026-11-20T162504Z.jsonl", "encoder: inductor bf16")

CASES = (
    Case("PCA, file to archive, `--workers 0`", ((1, Measured(_WHOLE, "encode --workers 0")),)),
    Case("PCA, file to archive, `--workers 2`", ((1, Measured(_WHOLE, "encode --workers 2")),)),
    Case("ConvNeXt-Small at 1024x1024, encoder alone", ((1, _ENCODER),)),
    Case("the same, then 100 steps of Segal's generator", ((1, _ENCODER), (100, _STEP))),
)


def table() -> str:
    """The table as Markdown."""
    head = f"| codec, on CPU cores | films a core-hour | core-hours for {FILMS:,} | cost at {PRICE_OF_A_CORE_HOUR:g} a core-hour | file |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *(case.line() for case in CASES)])


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    print(table())
