"""`latentray import-checkpoint` as a user meets it: a codec that loads and makes the published films, or one clear line and exit 2."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torchvision.models import resnet50

from engine.calibrate import calibrate_codec
from engine.cli import run_verb
from engine.encode.codec import load_codec
from engine.networks.resnet50 import ResNet50Trunk
from engine.refine.weight_files import find_network, read_weights
from engine.verbs import import_checkpoint
from tests.networks.published_layouts import (
    CODE_SIZE,
    SegalGenerator,
    ZooGenerator,
    karras_arrays,
    karras_films,
    lightning_file,
    save_zoo,
    segal_discriminator,
    weber_codes,
    weber_file,
    zoo_config,
)
from tests.small_pggan import make_pggan_codec


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    try:
        code = run_verb("import-checkpoint", import_checkpoint, [str(word) for word in words])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def codes() -> torch.Tensor:
    return torch.randn(3, 1, CODE_SIZE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def segal_file(tmp_path: Path) -> Path:
    torch.save(lightning_file(SegalGenerator(), SegalGenerator()), tmp_path / "Final_Full_Model.pth")
    return tmp_path / "Final_Full_Model.pth"


@torch.no_grad()
def test_a_generator_becomes_a_codec_that_makes_its_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shadow = SegalGenerator()
    torch.save(lightning_file(SegalGenerator(), shadow), tmp_path / "all.pth")
    code, out, err = run(capsys, tmp_path / "all.pth", "--out", tmp_path / "codec", "--licence", "MIT", "--mean-films", "8")
    assert code == 0, err
    assert "segal: generator pggan" in out
    assert "averaged over training" in out
    assert f"latentray calibrate {tmp_path / 'codec'}" in out
    assert "making 8 films of 16x16 to find the code in their middle" in err
    codec = load_codec(tmp_path / "codec")
    assert (codec.name, codec.code_shape, codec.gauge, codec.has_encoder) == ("segal-16", (1, CODE_SIZE), "sphere", False)
    assert (codec.recipe.resolution, codec.recipe.square, codec.spec.licence) == (16, "pad", "MIT")
    films = shadow(codes().squeeze(1)).mean(1, keepdim=True)
    torch.testing.assert_close(codec.generate(codes()), (2 * films - 1).clamp(-1, 1), rtol=0, atol=1e-5)
    about = codec.spec.provenance["imported"]["generator"]
    digest = hashlib.sha256((tmp_path / "all.pth").read_bytes()).hexdigest()
    assert about == {"layout": "segal", "file_sha256": digest, "is_average": True, "licence": "MIT", "colours": 3}
    assert str(tmp_path) not in (tmp_path / "codec" / "codec.json").read_text()


@torch.no_grad()
def test_the_mean_code_makes_a_film_near_the_mean_film(segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, segal_file, "--out", tmp_path / "codec", "--mean-films", "32")[0] == 0
    codec = load_codec(tmp_path / "codec")
    mean = codec.mean_latents(1)
    torch.testing.assert_close(mean.square().mean(), torch.tensor(1.0))  # on the sphere
    draw = torch.randn(32, 1, CODE_SIZE, generator=torch.Generator().manual_seed(0))
    films = codec.generate(draw)
    distances = (films - films.mean(0)).square().sum((1, 2, 3))
    torch.testing.assert_close(codec.generate(mean), films[distances.argmin()][None], rtol=0, atol=1e-5)
    assert codec.spec.provenance["mean_code"] == {"films": 32, "seed": 0}


def test_the_same_file_makes_the_same_codec(segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for folder in ("one", "two", "two"):
        code, out, _ = run(capsys, segal_file, "--out", tmp_path / folder, "--name", "cxr", "--mean-films", "4", "--json")
        report = json.loads(out.splitlines()[-1])
        assert code == 0
        digests.append(report["digest"])
    assert len(set(digests)) == 1
    assert (report["written"], report["layout"], report["has_encoder"], report["has_mean_code"]) == ("cxr", "segal", False, True)
    assert load_codec(tmp_path / "two").digest == digests[0]


@torch.no_grad()
def test_zoo_and_karras_become_codecs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, arrays = ZooGenerator(), karras_arrays(is_fused=True)
    save_zoo(tmp_path / "zoo.pth", {"avgG": net.state_dict()}, zoo_config())
    np.savez(tmp_path / "gs.npz", **arrays)
    wanted = {"zoo.pth": net(codes().squeeze(1)), "gs.npz": torch.from_numpy(karras_films(arrays, codes().squeeze(1).numpy())).float()}
    for file, films in wanted.items():
        assert run(capsys, tmp_path / file, "--out", tmp_path / "codec", "--mean-films", "0")[0] == 0
        codec = load_codec(tmp_path / "codec")
        torch.testing.assert_close(codec.generate(codes()), films.mean(1, keepdim=True).clamp(-1, 1), rtol=0, atol=1e-5)
        assert codec.spec.code.mean is None


def test_an_encoder_joins_a_calibrated_codec(segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = SegalGenerator((12, 12, 8, 8))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "g.pt")
    words = ("--out", tmp_path / "alone", "--mean-films", "4", "--licence", "MIT")
    assert run(capsys, tmp_path / "g.pt", *words)[0] == 0
    calibrate_codec(tmp_path / "alone", films=8)
    alone, content = load_codec(tmp_path / "alone"), weber_file()
    torch.save(content, tmp_path / "fine.pt")
    code, out, err = run(capsys, tmp_path / "fine.pt", "--codec", tmp_path / "alone", "--out", tmp_path / "whole", "--licence", "CC BY")
    assert (code, err) == (0, "")
    assert "weber: encoder convnext" in out
    assert "licence: generator: MIT; encoder: CC BY" in out
    assert "calibrate" not in out  # it was, and its heads are the generator's
    whole = load_codec(tmp_path / "whole")
    assert (whole.name, whole.has_encoder, whole.gauge) == ("segal-32-weber", True, "sphere")
    assert torch.equal(whole.generate(codes()), alone.generate(codes()))
    assert torch.equal(whole.mean_latents(1), alone.mean_latents(1))
    assert list(whole.coarse) == list(alone.coarse) != []
    assert whole.metric is not None
    films = torch.rand(2, 1, 32, 32) * 2 - 1
    wanted = weber_codes(content, ((films + 1) / 2).expand(-1, 3, -1, -1).double()).float()
    torch.testing.assert_close(whole.encode(films), whole.project(wanted.unsqueeze(1)), rtol=0, atol=1e-5)
    assert whole.spec.licence == "generator: MIT; encoder: CC BY"
    assert set(whole.spec.provenance["imported"]) == {"generator", "encoder"}
    assert whole.spec.provenance["generator_codec"] == alone.digest
    # in place, and again: the name does not grow
    assert run(capsys, tmp_path / "fine.pt", "--codec", tmp_path / "whole", "--out", tmp_path / "whole")[0] == 0
    assert load_codec(tmp_path / "whole").name == "segal-32-weber"


def test_moco_becomes_a_file_that_a_loss_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = resnet50()
    torch.save({"state_dict": {f"module.encoder_q.{name}": value for name, value in net.state_dict().items()}}, tmp_path / "moco.pth.tar")
    code, out, _ = run(capsys, tmp_path / "moco.pth.tar", "--out", tmp_path / "weights", "--licence", "CC BY-NC 4.0")
    assert code == 0
    assert f"--weights {tmp_path / 'weights'}" in out
    found = find_network("moco", str(tmp_path / "weights"))
    assert found == tmp_path / "weights" / "moco_v2_800ep_pretrain.safetensors"
    read = read_weights(found, ResNet50Trunk().published_shapes())
    assert torch.equal(read["layer4.2.conv3.weight"], net.state_dict()["layer4.2.conv3.weight"])
    with safe_open(found, "pt") as file:
        header = file.metadata()
    assert list(header) == ["latentray"]  # of several, bytes would be in any order
    assert json.loads(header["latentray"])["licence"] == "CC BY-NC 4.0"


def test_a_dry_run_writes_nothing(segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, segal_file, "--out", tmp_path / "codec", "--dry-run", "--json")
    report = json.loads(out.splitlines()[-1])
    assert (code, err) == (0, "")
    assert report["settings"]["channels"] == [16, 12, 8]
    assert (report["dry_run"], report["digest"]) == (True, "")
    assert not (tmp_path / "codec").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"state_dict": {**SegalGenerator().state_dict(), "alpha": torch.tensor(0.5)}}, "in the middle of a fade"),
        ({"state_dict": segal_discriminator()}, "is a discriminator"),
        ({"weights": torch.zeros(1)}, "has none of the known layouts"),
        (weber_file(), "the file holds an encoder only; name the codec whose generator it was trained for with --codec DIR: "),
    ],
    ids=["fade", "discriminator", "unknown", "encoder alone"],
)
def test_a_bad_file_is_one_clear_line(content: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "x.pt")
    code, out, err = run(capsys, tmp_path / "x.pt", "--out", tmp_path / "codec")
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert says in err
    assert not (tmp_path / "codec").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mean-films", "-1"], "mean-films must be 0 or more: -1"),
        (["--licence", "two\nlines"], "licence must be one line"),
        (["--name", "a b"], "name must be letters, digits"),
        (["--codec", "other"], "--codec is for a file with an encoder; this one holds the network pggan: "),
        (["--stepps", "1"], "unrecognized arguments"),
    ],
    ids=lambda words: words[0] if isinstance(words, list) else "",
)
def test_a_bad_request_is_one_clear_line(
    words: list[str], says: str, segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, segal_file, "--out", tmp_path / "codec", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert says in err
    assert not (tmp_path / "codec").exists()


def test_a_directory_of_other_things_is_left_alone(segal_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "film.png").touch()
    for out, says in ((tmp_path / "films", "holds other files"), (segal_file, "where a file is")):
        code, _, err = run(capsys, segal_file, "--out", out)
        assert (code, len(err.splitlines())) == (2, 1), err
        assert says in err


def test_an_encoder_for_other_codes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_pggan_codec(tmp_path / "other", resolution=8)
    torch.save(weber_file(), tmp_path / "e.pt")
    code, _, err = run(capsys, tmp_path / "e.pt", "--codec", other, "--out", tmp_path / "codec")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert err.rstrip().endswith("[1, 16], gauge sphere")
    code, _, err = run(capsys, tmp_path / "e.pt", "--codec", tmp_path / "none", "--out", tmp_path / "codec")
    assert code == 2
    assert "there is no such codec directory" in err
