"""The one command for a GPU: on an image with torch, Triton, NumPy and safetensors alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BARE = """
import sys
from importlib.machinery import PathFinder

MISSING = {
    "zarr", "ray", "pyarrow", "lpips", "PIL", "cv2", "tifffile", "imagecodecs", "pydicom", "pandas", "torchvision", "xarray", "scipy",
    "tqdm", "numcodecs", "nvidia", "pytest", "torch_tensorrt", "tensorrt",
}


class Bare:
    find_distributions = PathFinder.find_distributions
    invalidate_caches = PathFinder.invalidate_caches

    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""


def run_bare(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A Python, and all that it starts, without the packages that such an image lacks."""
    (folder / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_nothing_that_such_an_image_lacks_is_imported(tmp_path: Path) -> None:
    ours = "import benchmarks.gpu, benchmarks.refinement.floor, engine.refiner, engine.encode.backends"
    done = run_bare(tmp_path, "-c", f"{ours}, importlib.util as found; assert not found.find_spec('zarr')")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_all_parts_run_and_leave_results(tmp_path: Path) -> None:
    done = run_bare(tmp_path, "-m", "benchmarks.gpu", "--tiny", "--out", str(tmp_path / "results"))
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = tmp_path.glob("results/*/*.jsonl")
    head, *rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert (head["size"], head["schema"], head["films"]) == ("quick", 2, "")
    assert set(head["seconds"]) == {"kernels", "gpu: steps", "gpu: time to quality"}
    assert all(row["warm_up"] == 1 and row["seeds"] for row in rows)
    steps = {row["step"] for row in rows}
    assert {"published loop", "+ Inductor, one graph", "published loop, its last loss", "+ bf16, Inductor"} <= steps
    assert any(step.startswith("floor, beside ") for step in steps)
    assert all(
        row["unavailable"] or row["quality"] for row in rows if row["unit"] in ("image-steps/s", "films/s") and "floor" not in row["step"]
    )
