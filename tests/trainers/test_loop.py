"""The loop: a stopped run ends as an uninterrupted one, parts add up, and what goes wrong leaves the last good checkpoint."""

import json
import resource

import pytest
import torch

from engine.errors import SettingsChanged, TrainError, TrainingDiverged
from tests.trainers.toy_task import GROWS_AT, ToyFeed, ToyTask
from trainers.checkpoint import checkpoints
from trainers.loop import CHECKPOINTS, Loop, split
from trainers.presets.loop import LoopConfig
from trainers.ranks import Ranks

ALONE = Ranks(device=torch.device("cpu"))


def loop(task, out, images, *, settings=None, **options):
    cfg = LoopConfig(images=images, seed=3, **options)
    return Loop(task, ToyFeed(), cfg, ALONE, out, settings=settings or {"lr": 0.01})


def weights(task):
    return {
        f"{name}/{key}": value.clone() for name in ("generator", "critic") for key, value in getattr(task, name).state_dict().items()
    } | {f"average/{key}": value.clone() for key, value in task.average.state_dict().items()}


def same_bits(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def train(out, *stops, **options):
    """A task after a run with a stop and a fresh start of everything at each of `stops`."""
    for sitting, images in enumerate(stops):
        task = ToyTask(**options)
        run = loop(task, out, images)
        if sitting:
            run.resume()
        outcome = run.run()
        assert outcome.images >= images
        assert not outcome.is_stopped
    return task


@pytest.mark.parametrize("stop", [8, 24, GROWS_AT, 52, 61])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, stop):
    whole = train(tmp_path / "whole", 80, repeats=2, every=3)
    resumed = train(tmp_path / "parts", stop, 80, repeats=2, every=3)
    assert same_bits(weights(whole), weights(resumed))
    for name, optimiser in whole.optimisers.items():
        again = resumed.optimisers[name].state_dict()["state"]
        for key, moments in optimiser.state_dict()["state"].items():
            assert all(torch.equal(moments[moment], again[key][moment]) for moment in moments)


def test_another_seed_is_another_run(tmp_path):
    one, other = ToyTask(), ToyTask()
    loop(one, tmp_path / "one", 24).run()
    Loop(other, ToyFeed(), LoopConfig(images=24, seed=4), ALONE, tmp_path / "other", settings={}).run()
    assert not same_bits(weights(one), weights(other))


def test_parts_add_up_to_the_step(tmp_path):
    whole = train(tmp_path / "whole", 80, part_size=8, dropout=0.0)
    parts = train(tmp_path / "parts", 80, part_size=3, dropout=0.0)  # pairs stay together: parts of two
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(parts)[name], value, rtol=1e-4, atol=1e-5)


def test_split_keeps_groups_whole():
    assert list(split(range(8, 24), 6, 4)) == [range(8, 12), range(12, 16), range(16, 20), range(20, 24)]
    assert list(split(range(10), 4, 1)) == [range(4), range(4, 8), range(8, 10)]
    assert list(split(range(8), 2, 8)) == [range(8)]


def test_phases_run_as_often_as_they_say(tmp_path):
    task = ToyTask(repeats=2, every=2)
    loop(task, tmp_path, 40).run()  # five steps
    steps = {name: {int(moments["step"]) for moments in optimiser.state.values()} for name, optimiser in task.optimisers.items()}
    assert steps == {"critic": {3}, "generator": {10}}


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_state(tmp_path):
    task = ToyTask(poison_at=56)
    with pytest.raises(TrainingDiverged, match=r"phase generator at image 56 .*checkpoint stands"):
        loop(task, tmp_path, 80, checkpoint_images=20).run()
    kept = checkpoints(tmp_path / CHECKPOINTS)
    assert [file.name for file in kept] == ["images-000000000024.safetensors", "images-000000000040.safetensors"]
    again = ToyTask()
    run = loop(again, tmp_path, 80)
    run.resume()
    run.run()
    assert same_bits(weights(again), weights(train(tmp_path / "whole", 80)))


def test_the_log_of_a_resumed_run_reads_as_one(tmp_path):
    loop(ToyTask(), tmp_path, 32, log_images=8, sample_images=16).run()
    with (tmp_path / "metrics.jsonl").open("a") as stream:  # as left by a run that was killed after its last checkpoint
        stream.write(json.dumps({"images": 36, "generator/loss": 1.0}) + '\n{"images": 40, "gene')
    run = loop(ToyTask(), tmp_path, 64, log_images=8, sample_images=16)
    run.resume()
    run.run()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["images"] for row in rows if "seconds" in row] == [8, 16, 24, 32, 40, 48, 56, 64]
    assert {"critic/loss", "critic/spread", "generator/loss", "images_per_second", "lr", "resolution"} <= rows[0].keys()
    assert [row["level"] for row in rows if "level" in row] == [rows[-1]["level"]] * 2  # at the end of each sitting
    assert [file.name for file in sorted((tmp_path / "samples").iterdir())] == [f"{n:012d}.png" for n in (16, 32, 48, 64)]
    assert list((tmp_path / "events").glob("events.*"))


def test_the_last_checkpoints_stay(tmp_path):
    loop(ToyTask(), tmp_path, 64, checkpoint_images=8, keep=2).run()
    assert [file.name for file in checkpoints(tmp_path / CHECKPOINTS)] == [
        "images-000000000056.safetensors",
        "images-000000000064.safetensors",
    ]


def test_other_settings_are_refused(tmp_path):
    loop(ToyTask(), tmp_path, 16).run()
    with pytest.raises(SettingsChanged, match=r"lr was 0.01, is 0.02, new was None, is 1") as caught:
        loop(ToyTask(), tmp_path, 32, settings={"lr": 0.02, "new": 1}).resume()
    assert caught.value.exit_code == 3


def test_what_cannot_be_resumed_is_said(tmp_path):
    with pytest.raises(TrainError, match="holds no checkpoint"):
        loop(ToyTask(), tmp_path, 16).resume()
    loop(ToyTask(), tmp_path, 16).run()
    other = ToyTask()
    other.name = "other"
    with pytest.raises(TrainError, match=r"of another task \(toy\), not of other"):
        loop(other, tmp_path, 32).resume()
    wider = ToyTask()
    wider.critic = torch.nn.Linear(3, 3)
    with pytest.raises(TrainError, match="does not fit the task"):
        loop(wider, tmp_path, 32).resume()
    file = checkpoints(tmp_path / CHECKPOINTS)[-1]
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TrainError, match="checkpoint is damaged"):
        loop(ToyTask(), tmp_path, 32).resume()


def test_a_stop_file_ends_the_run_after_its_step(tmp_path):
    (tmp_path / "stop").touch()
    outcome = loop(ToyTask(), tmp_path, 80).run()
    assert (outcome.images, outcome.is_stopped) == (8, True)
    assert len(checkpoints(tmp_path / CHECKPOINTS)) == 1


def test_a_full_disk_leaves_the_former_checkpoint_whole(tmp_path):
    loop(ToyTask(), tmp_path, 24).run()
    (former,) = checkpoints(tmp_path / CHECKPOINTS)
    before = former.read_bytes()
    run = loop(ToyTask(), tmp_path, 48)
    run.resume()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # a write beyond it fails, as on a disk that is full
    try:
        with pytest.raises(TrainError, match=r"checkpoint cannot be written \(File too large\); the former ones are whole"):
            run.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in (tmp_path / CHECKPOINTS).iterdir()] == [former.name]
    assert former.read_bytes() == before
