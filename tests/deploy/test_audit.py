"""`make audit`: what it makes of an index's answer, and of silence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.script import loaded

FAULT = {"id": "CVE-2026-1", "fix_versions": ["2.1"], "description": "..."}
OPEN = {"id": "CVE-2026-2", "fix_versions": [], "description": "..."}
WELL = {"name": "zarr", "version": "3.1.6", "vulns": []}
UNKNOWN = {"name": "ray", "skip_reason": "not found"}


@pytest.mark.parametrize("report", [None, {}, {"dependencies": []}, {"dependencies": [UNKNOWN]}])
def test_silence_is_said_and_passes(report: dict[str, Any] | None) -> None:
    code, lines = loaded(".ci/audit.py").judge(report)
    assert code == 0
    assert lines == ["no index answered, so nothing is known of faults in the dependencies; run `make audit` where one does"]


def test_a_fault_that_can_be_mended_fails() -> None:
    found = {"name": "pillow", "version": "2.0", "vulns": [FAULT, OPEN]}
    code, lines = loaded(".ci/audit.py").judge({"dependencies": [WELL, found, UNKNOWN]})
    assert code == 1
    assert lines == [
        "pillow 2.0: CVE-2026-1, mended in 2.1",
        "pillow 2.0: CVE-2026-2, no version mends it yet",
        "2 faults in 2 dependencies, 1 mended by a newer version; 1 not known there",
    ]


def test_a_fault_without_remedy_is_told_and_passes() -> None:
    code, lines = loaded(".ci/audit.py").judge({"dependencies": [{"name": "ray", "version": "2.60.0", "vulns": [OPEN]}]})
    assert (code, len(lines)) == (0, 2)
