"""No file that a user names is ever run: nothing in the packages unpickles, evaluates or starts a shell, but for what is listed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.security.calls import Use, is_constant, uses

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "kernels", "trainers", "benchmarks", "deploy", ".ci")

# Whole modules that make objects of bytes, by running what lies in them; and single functions that do, or that run text.
RUNS_BYTES = (
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "pandas.read_pickle",
    "numcodecs.pickles",
)
RUNS_TEXT = (
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "pty.spawn",
)
TORCH = (
    "torch.jit.load",
    "torch.hub.load",
    "torch.package",
    "torch.export.load",
    "torch_tensorrt.load",
    "torch.classes",
    "torch.ops.load_library",
)
ALLOWED = {
    # Names of errors, which torch raises for what it refuses.
    ("engine/networks/importers/safe_reader.py", "pickle.UnpicklingError"),
    ("engine/refine/weight_files.py", "pickle.UnpicklingError"),
    # The user's own cache, mode 0700; files that others own or may write are not read (`graph_cache.check_own`).
    ("engine/encode/graph_cache.py", "torch.export.load"),
    ("engine/encode/tensorrt.py", "torch_tensorrt.load"),
}


def offence(use: Use) -> str:
    """What is wrong with a use, or ""."""
    if any(use.name == name or use.name.startswith(name + ".") for name in (*RUNS_BYTES, *TORCH)):
        return use.name
    if use.name.removeprefix("builtins.") in RUNS_TEXT:
        return use.name
    if not use.is_call:  # passed on, to be called who knows how
        return use.name if use.name in ("torch.load", "numpy.load", "yaml.load") else ""
    if use.name == "torch.load" and not is_constant(use.keywords.get("weights_only"), True):
        return "torch.load without weights_only=True"
    if use.name == "numpy.load" and not is_constant(use.keywords.get("allow_pickle", False), False) and "allow_pickle" in use.keywords:
        return "numpy.load with allow_pickle"
    if use.name in ("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"):
        return use.name
    if use.name.startswith("subprocess.") and "shell" in use.keywords and not is_constant(use.keywords["shell"], False):
        return f"{use.name} with a shell"
    return ""


def offences(text: str) -> set[str]:
    """All of a file. A module's bare name is none: what counts is what is taken from it."""
    return {found for use in uses(text) if (found := offence(use)) and found not in RUNS_BYTES}


def test_nothing_in_the_packages_runs_a_file() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for name in offences(path.read_text())
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("import pickle as p\nread = p.loads", "pickle.loads"),
        ("from pickle import Unpickler\nUnpickler(f)", "pickle.Unpickler"),
        ("def f():\n    from joblib import load as read\n    read(f)", "joblib.load"),
        ("import torch\ntorch.load(f)", "torch.load without weights_only=True"),
        ("import torch\ntorch.load(f, weights_only=flag)", "torch.load without weights_only=True"),
        ("from torch import load\nload(f, map_location='cpu')", "torch.load without weights_only=True"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy.load with allow_pickle"),
        ("import numpy as np\nnp.load(f, allow_pickle=flag)", "numpy.load with allow_pickle"),
        ("import yaml\nyaml.load(f, Loader=yaml.Loader)", "yaml.load"),
        ("eval(text)", "eval"),
        ("from builtins import exec as run\nrun(text)", "builtins.exec"),
        ("import numpy as np\narrays = map(np.load, files)", "numpy.load"),
        ("import subprocess as s\ns.run(text, shell=True)", "subprocess.run with a shell"),
        ("import os\nos.system(text)", "os.system"),
        ("import torch\ntorch.jit.load(f)", "torch.jit.load"),
        ("import torch\ntorch.load(f, weights_only=True)", ""),
        ("import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)", ""),
        ("import re\nre.compile(text)\nnetwork.eval()", ""),
        ("import yaml\nyaml.safe_load(f)", ""),
        ("import subprocess\nsubprocess.run(words)", ""),
    ],
)
def test_the_test_sees_what_it_is_for(text: str, name: str) -> None:
    assert offences(text) == ({name} if name else set())
