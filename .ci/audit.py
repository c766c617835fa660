#!/usr/bin/env python3
"""Asks the package index for known faults in the locked dependencies: exit 1 where a newer version mends one, else 0; `make audit`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[1] / "requirements.lock"
SECONDS = 300


def ask() -> dict[str, Any] | None:
    """What pip-audit reports of the lock, or None where it got no answer. Nothing is installed, and nothing in the lock is resolved."""
    words = [
        "--requirement",
        str(LOCK),
        "--disable-pip",
        "--require-hashes",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--timeout",
        "15",
    ]
    try:
        done = subprocess.run([sys.executable, "-m", "pip_audit", *words], capture_output=True, text=True, timeout=SECONDS, check=False)
        report: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # no network: it prints no report
        return None
    return report


def judge(report: dict[str, Any] | None) -> tuple[int, list[str]]:
    """The exit code and the lines to print. An index that knows none of the packages has not answered."""
    answered = [found for found in (report or {}).get("dependencies", []) if "vulns" in found]
    if not answered:
        return 0, ["no index answered, so nothing is known of faults in the dependencies; run `make audit` where one does"]
    lines, mended = [], 0
    for found in answered:
        for fault in found["vulns"]:
            mended += bool(fault["fix_versions"])
            remedy = f"mended in {', '.join(fault['fix_versions'])}" if fault["fix_versions"] else "no version mends it yet"
            lines.append(f"{found['name']} {found['version']}: {fault['id']}, {remedy}")
    skipped = len((report or {})["dependencies"]) - len(answered)
    lines.append(f"{len(lines)} faults in {len(answered)} dependencies, {mended} mended by a newer version; {skipped} not known there")
    return int(mended > 0), lines


def main() -> int:
    """Prints what there is to tell."""
    code, lines = judge(ask())
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
