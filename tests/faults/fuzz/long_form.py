"""The long form, `make fuzz`: thousands of files through guarded children, then the coverage-guided fuzzer; prints a table by format."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tests.faults.fuzz.cases import replay
from tests.faults.fuzz.harness import ROOT, Outcome, run_cases, table


def main() -> int:
    """Returns 1 when a file crashed, hung, raised, or was valid and not read; such files are written to `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--guided", type=int, default=60, metavar="SECONDS", help="for the coverage-guided fuzzer; 0 leaves it out")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "fuzz")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    outcomes: list[Outcome] = []
    for outcome in run_cases(args.seed, range(args.first, args.first + args.files)):
        outcomes.append(outcome)
        if outcome.is_wrong:
            _keep(outcome, args.out)
    print(table(outcomes))
    print("\nmost frequent reasons")
    for (name, reason), count in Counter((one.format, one.reason[:80]) for one in outcomes if one.end == "failed").most_common(12):
        print(f"{count:>6}  {name:6} {reason}")
    wrong = sum(outcome.is_wrong for outcome in outcomes)
    print(f"\n{len(outcomes)} files in {time.monotonic() - begun:.0f} s; wrong: {wrong}")
    return int(wrong > 0) | (_guided(args.guided, args.seed, args.out) if args.guided else 0)


def _keep(outcome: Outcome, folder: Path) -> None:
    print(f"{outcome.name}: {outcome.damage}, {outcome.end}: {outcome.reason}", file=sys.stderr)
    (folder / outcome.name).write_bytes(replay(outcome.name).data)


def _guided(seconds: int, seed: int, folder: Path) -> int:
    """Runs the coverage-guided fuzzer and prints what it counted; its exit status is that of what it found."""
    command = [sys.executable, "-m", "tests.faults.fuzz.coverage_guided", "--runs", "1000000", "--seconds", str(seconds)]
    command += ["--seed", str(seed), "--out", str(folder / "guided")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False, env=os.environ)
    covered = re.findall(r"^#\d+\t\w+ +cov: (\d+)", done.stderr, re.M)
    files = re.findall(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or not covered or not files:
        print(f"\ncoverage-guided: found something, or did not run (exit {done.returncode})\n{done.stderr[-3000:]}")
        return 1
    print(f"\ncoverage-guided: {files[-1]} files in {seconds} s, edges covered: {covered[0]} at first, {covered[-1]} at last; wrong: 0")
    return 0


if __name__ == "__main__":
    sys.exit(main())
