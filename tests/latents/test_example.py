"""The example runs as it stands, on an archive of phantoms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs_as_a_script(coded_phantoms: Path, tmp_path: Path) -> None:
    words = [str(ROOT / "engine" / "latents" / "example.py"), str(coded_phantoms), "--attribute", "portable: view=AP", "--out", "probe.png"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    area = float(done.stdout.rsplit(" ", 1)[1])
    assert 0.6 < area <= 1
    picture = cv2.imread(str(tmp_path / "probe.png"))
    assert picture.shape == (480, 1080, 3)
    assert picture.std() > 10
