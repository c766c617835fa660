"""A pytest plugin: what compiled kernels take, as tests record it, in one table at the end of the run, with or without pytest-xdist.

A test gives its figures by `record_property("kernel", f"sm_{arch} {op} {kernel} {dtype} {size}: {resources}")`, and `Resources` prints
itself as "40 registers, 512 bytes shared, 0 spilled". Properties travel with a test's report, so they also arrive from other processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest

FIGURES = re.compile(r"sm_(\d+) (.+): (\d+) registers, (\d+) bytes shared, (\d+) spilled")


def table(lines: Iterable[str]) -> list[str]:
    """One row a kernel, one column an architecture: registers a thread / bytes shared in a program / bytes spilled a thread.

    Lines of another form stand below the table as they are.
    """
    cells: dict[str, dict[int, str]] = {}
    others = []
    for line in sorted(set(lines)):
        if match := FIGURES.fullmatch(line):
            arch, kernel, *figures = match.groups()
            cells.setdefault(kernel, {})[int(arch)] = "/".join(figures)
        else:
            others.append(line)
    if not cells:
        return others
    archs = sorted({arch for row in cells.values() for arch in row})
    rows = [["registers/shared/spilled", *(f"sm_{arch}" for arch in archs)]]
    rows += [[kernel, *(row.get(arch, "") for arch in archs)] for kernel, row in sorted(cells.items(), key=_by_value)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip() for row in rows] + others


def _by_value(row: tuple[str, dict[int, str]]) -> list[str | int]:
    """The kernel's name as words and numbers in turn, so that 16 comes before 100."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", row[0])]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    lines = table(value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "kernel")
    if lines:
        terminalreporter.section("compiled kernels")
        for line in lines:
            terminalreporter.line(line)
