"""The short form of the fuzz: some hundreds of files through guarded children, and through a whole run with its archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine import encode_dataset, open_archive
from engine.archive.reader import list_failures
from engine.archive.verify import verify_archive
from engine.records import Status
from tests.faults.fuzz.cases import make_case, replay
from tests.faults.fuzz.films import FORMATS
from tests.faults.fuzz.harness import ENDS, run_cases, table

SEED = 5


def test_cases_are_named_and_come_again() -> None:
    cases = [make_case(SEED, number) for number in range(40)]
    assert {case.format for case in cases} == set(FORMATS)
    assert len({case.name for case in cases}) == 40
    assert [replay(case.name) for case in cases] == cases
    assert {case.damage for case in cases} >= {"valid", "bytes", "structure"}


def test_no_file_crashes_hangs_or_raises() -> None:
    outcomes = list(run_cases(SEED, range(300)))
    wrong = [outcome for outcome in outcomes if outcome.is_wrong]
    assert wrong == [], f"replay by name: {', '.join(outcome.name for outcome in wrong)}"
    assert len(outcomes) == 300
    assert all(outcome.reason for outcome in outcomes if outcome.end == "failed")
    counted = [int(number) for number in table(outcomes).splitlines()[-1].split()[1 : 2 + len(ENDS)]]
    assert counted[0] == sum(counted[1:]) == 300


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PCA codec at 256x256."""
    from trainers.presets.pca import PcaConfig
    from trainers.tasks.pca import fit_pca

    out = tmp_path_factory.mktemp("codecs") / "pca"
    fit_pca("phantom:12?seed=5&size=256", out, PcaConfig(components=4, resolution=256))
    return out


def test_every_file_is_a_row(codec: Path, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    cases = [make_case(SEED + 1, number) for number in range(300)]
    for case in cases:
        (folder / f"{case.name}.bin").write_bytes(case.data)
    archive = tmp_path / "films.zarr"
    summary = encode_dataset(str(folder), str(archive), str(codec), workers=0, film_size=256, shard_rows=64, metrics="mse", quiet=True)
    assert (summary.rows, summary.ok + summary.failed, summary.pending) == (300, 300, 0)
    dataset = open_archive(archive)
    status = dict(zip(dataset["sample_id"].to_numpy().tolist(), dataset["status"].to_numpy().tolist(), strict=True))
    assert sorted(status) == sorted(case.name for case in cases)
    assert {status[case.name] for case in cases if case.damage == "valid"} == {Status.OK}
    reasons = {failure.sample_id: failure for failure in list_failures(archive)}
    assert reasons.keys() == {name for name, code in status.items() if code != Status.OK}
    assert all(failure.reason and failure.stage in ("read", "decode") for failure in reasons.values())
    is_ok = dataset["status"].to_numpy() == Status.OK
    assert np.isfinite(dataset["latent"].to_numpy()[is_ok]).all()
    assert verify_archive(archive, level=3) == []
