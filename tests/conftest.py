"""What every test may rely on: one thread a process, fixed seeds, no network, and skips that give their reason."""

from __future__ import annotations

import faulthandler
import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["tests.kernels.figures"]  # registers and spills of compiled kernels, in the summary

# Read by torch, OpenBLAS and numba when they are first imported, here and in every process that a test starts: results then do not
# depend on the number of cores, and tests running beside one another do not fight over them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Ray asks at home how it is used, and pages its own logs into the test's output, unless told not to.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Tests run commands in other folders, where a relative path would lead nowhere.
if os.environ.get("LATENTRAY_FILMS"):
    os.environ["LATENTRAY_FILMS"] = str((Path(__file__).resolve().parent.parent / os.environ["LATENTRAY_FILMS"]).resolve())

faulthandler.enable()


def _films_folder() -> Path | None:
    value = os.environ.get("LATENTRAY_FILMS")
    return Path(value) if value else None


def _skip_reason(item: pytest.Item) -> str | None:
    """Why this machine cannot run `item`, or None where it can."""
    if item.get_closest_marker("films") and _films_folder() is None:
        return "needs real films: set LATENTRAY_FILMS to their folder"
    if item.get_closest_marker("gpu"):
        import torch  # only where a test asks for a GPU: it takes seconds

        if not torch.cuda.is_available():
            return "needs a CUDA device"
    return None


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine lacks, and keeps the Ray tests in one process, since two local Rays would share its ports and memory."""
    for item in items:
        if " at 0x" in item.nodeid:  # processes that run the tests side by side must agree on their names
            raise pytest.UsageError(f"test named after an address in memory: {item.nodeid}")
        reason = _skip_reason(item)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses to run where the Ray tests would be spread over processes."""
    if hasattr(session.config, "workerinput") and session.config.getvalue("loadgroup"):
        loose = [item.nodeid for item in session.items if item.get_closest_marker("ray") and not item.nodeid.endswith("@ray")]
        if loose:
            raise pytest.UsageError(f"pytest-xdist does not keep the Ray tests together: {loose[0]}")


@pytest.fixture(scope="session")
def films() -> Path:
    """The folder of real films; skips the test where LATENTRAY_FILMS is unset, and fails it where that names no folder."""
    folder = _films_folder()
    if folder is None:
        pytest.skip("needs real films: set LATENTRAY_FILMS to their folder")
    assert folder.is_dir(), f"LATENTRAY_FILMS is not a folder: {folder}"
    return folder


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """A test that draws without its own generator still draws the same numbers alone and in company."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached. Ray tests are let be: Ray finds its own address by opening a socket outwards."""
    if request.node.get_closest_marker("ray"):
        return
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"a test reached for the network: {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture(scope="session")
def small_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PCA codec of 8 coefficients at 32x32, fitted on phantoms."""
    from trainers.presets.pca import PcaConfig
    from trainers.tasks.pca import fit_pca

    out = tmp_path_factory.mktemp("codecs") / "pca"
    fit_pca("phantom:24?seed=5&size=64", out, PcaConfig(components=8, resolution=32))
    return out


@pytest.fixture(scope="session")
def small_films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty phantoms of 64x64 as PNG files."""
    from engine.source.phantom import phantom_png

    folder = tmp_path_factory.mktemp("films")
    for index in range(40):
        (folder / f"film-{index:03d}.png").write_bytes(phantom_png(3, index, size=64))
    return folder
