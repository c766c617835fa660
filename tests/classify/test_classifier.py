"""A classifier directory: what is written is what is read, films of any side are judged, and damage is one clear line."""

import json
import os
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from engine.classify.classifier import load_classifier, resized, save_classifier
from engine.classify.classifier_spec import ClassifierSpec, read_spec
from engine.encode.codec_spec import NetworkSpec
from engine.errors import CodecError
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.recipe import PixelRecipe

SETTINGS = DenseNetSettings(blocks=(1, 1), growth=4, stem=4, bottleneck=2, classes=2)
SPEC = ClassifierSpec(
    name="tiny",
    network=NetworkSpec(network="densenet", settings=json.loads(json.dumps(asdict(SETTINGS))), weights="classifier.safetensors"),
    labels=("effusion", "mass, left"),
    thresholds=(-0.5, 1.25),
    recipe=PixelRecipe(resolution=16),
    provenance={"seed": 3},
)


def network():
    torch.manual_seed(1)
    made = DenseNetClassifier(SETTINGS)
    for _ in range(3):
        made(torch.rand(8, 1, 16, 16))  # running statistics of their own
    return made.eval()


@pytest.fixture
def folder(tmp_path):
    save_classifier(tmp_path / "c", SPEC, weights=network().state_dict())
    return tmp_path / "c"


def change(folder, **fields):
    """`classifier.json` with these fields replaced, or left out where they are None."""
    data = json.loads((folder / "classifier.json").read_text()) | fields
    (folder / "classifier.json").write_text(json.dumps({name: value for name, value in data.items() if value is not None}))


def test_what_is_read_is_what_was_written(folder):
    found = load_classifier(folder)
    assert (found.labels, found.thresholds, found.name) == (SPEC.labels, SPEC.thresholds, "tiny")
    assert (found.recipe, found.resolution) == (SPEC.recipe, 16)
    assert found.spec.provenance == {"seed": 3}
    assert found.index("mass, left") == 1
    films = torch.rand(3, 1, 16, 16) * 2 - 1
    torch.testing.assert_close(found.logits(films), network()(films), rtol=1e-5, atol=1e-6)
    assert found.features(films).shape == (3, network().num_features)
    torch.testing.assert_close(found.network.classifier(found.features(films)), found.logits(films))
    assert found.to("cpu") is found


def test_equal_weights_make_equal_bytes_and_digests(folder, tmp_path):
    save_classifier(tmp_path / "again", SPEC, weights=network().state_dict())
    one, other = ({file.name: file.read_bytes() for file in place.iterdir()} for place in (folder, tmp_path / "again"))
    assert one == other
    assert load_classifier(folder).digest == load_classifier(tmp_path / "again").digest
    save_classifier(tmp_path / "again", replace(SPEC, thresholds=(0.0, 0.0)), weights=network().state_dict())
    assert load_classifier(folder).digest != load_classifier(tmp_path / "again").digest


def test_films_of_any_side_are_judged(folder):
    found = load_classifier(folder)
    large = torch.rand(2, 1, 48, 48) * 2 - 1
    torch.testing.assert_close(found.logits(large), found.logits(F.avg_pool2d(large, 3)))
    odd = torch.rand(2, 1, 40, 24) * 2 - 1
    shrunk = F.interpolate(odd, size=(16, 16), mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(found.logits(odd), found.logits(shrunk))
    assert torch.equal(resized(shrunk, 16), shrunk)
    flat = torch.full((1, 1, 9, 9), 0.25)
    torch.testing.assert_close(resized(flat, 16), torch.full((1, 1, 16, 16), 0.25))
    for wrong in ((2, 3, 16, 16), (2, 16, 16), (2, 1, 0, 16)):
        with pytest.raises(CodecError, match=r"classifier tiny takes films \[N, 1, H, W\]"):
            found.logits(torch.zeros(wrong))


def test_gradients_reach_films_and_never_weights(folder):
    found = load_classifier(folder)
    films = (torch.rand(2, 1, 32, 32) * 2 - 1).requires_grad_()
    found.logits(films)[:, 0].sum().backward()
    assert films.grad.abs().amax((1, 2, 3)).min() > 0
    assert not any(parameter.requires_grad for parameter in found.network.parameters())


def test_a_film_is_judged_alone(folder):
    found = load_classifier(folder)
    films = torch.rand(5, 1, 16, 16) * 2 - 1
    torch.testing.assert_close(found.logits(films[2:3]), found.logits(films)[2:3], rtol=1e-5, atol=1e-6)


def test_an_unknown_label_is_named(folder):
    with pytest.raises(CodecError, match="labels of classifier tiny are effusion, mass, left: gout"):
        load_classifier(folder).index("gout")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"format": "latentray-codec"}, "format must be latentray-classifier"),
        ({"format_version": 2}, "version that this release cannot read (it reads 1): 2"),
        ({"colour": 1}, "classifier.json has unknown fields: colour"),
        ({"labels": None}, "classifier.json lacks fields: labels"),
        ({"labels": ["a", "a"]}, "labels must be 1 to 1000 different names: a, a"),
        ({"labels": ["a", " b"]}, "without space around it"),
        ({"labels": ["a", "b", "c"], "thresholds": [0, 0, 0]}, "another number of classes than there are labels (3): 2"),
        ({"thresholds": [0.0]}, "thresholds must be a finite number for each of 2 labels: (0.0,)"),
        ({"thresholds": ["0", "1"]}, "thresholds must be of type float"),
        ({"recipe": {"resolution": 0}}, "recipe.resolution must be 1 to 16384: 0"),
        ({"name": "a/b"}, "name must be letters, digits"),
    ],
)
def test_wrong_json_is_one_line(folder, fields, says):
    change(folder, **fields)
    with pytest.raises(CodecError, match=r"^[^\n]*$") as caught:
        load_classifier(folder)
    assert str(caught.value).startswith(f"classifier {folder}: ")
    assert says in str(caught.value)


def test_wrong_networks_are_one_line(folder):
    part = json.loads((folder / "classifier.json").read_text())["network"]
    for fields, says in (
        ({**part, "network": "pggan"}, "classifier.network must be one of densenet, pggan-discriminator, residue-densenet: pggan"),
        ({**part, "settings": {**part["settings"], "growth": 8}}, "tensor of another shape"),
        ({**part, "weights": "../w.safetensors"}, "plain file name"),
        ({**part, "sha256": ""}, "lacks the sha256 of its weights file"),
        ({**part, "sha256": "0" * 64}, "is damaged or of another classifier"),
    ):
        change(folder, network=fields)
        with pytest.raises(CodecError) as caught:
            load_classifier(folder)
        assert says in str(caught.value)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(CodecError, match=r"there is no such classifier directory .*latentray train densenet.*: .*nowhere"):
        load_classifier(tmp_path / "nowhere")
    (weights,) = folder.glob("*.safetensors")
    with pytest.raises(CodecError, match=f"a classifier is a directory with classifier.json, not a file: {weights}"):
        load_classifier(weights)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CodecError, match=f"damaged or of another classifier .*: {weights.name}"):
        load_classifier(folder)
    weights.unlink()
    with pytest.raises(CodecError, match=f"classifier file is missing: {weights}"):
        load_classifier(folder)
    (folder / "classifier.json").write_text("{")
    with pytest.raises(CodecError, match=r"classifier.json is not valid JSON"):
        load_classifier(folder)
    (folder / "classifier.json").unlink()
    with pytest.raises(CodecError, match=r"the directory holds no classifier.json, so it is not a classifier"):
        load_classifier(folder)


def test_writing_replaces_a_classifier_and_nothing_else(folder, tmp_path):
    (former,) = folder.glob("*.safetensors")
    other = {name: value + 1 for name, value in network().state_dict().items()}
    (folder / "metrics.jsonl").write_text("kept")
    save_classifier(folder, SPEC, weights=other)
    assert not former.exists()
    assert sorted(file.suffix for file in folder.iterdir()) == [".json", ".jsonl", ".safetensors"]
    strange = tmp_path / "films"
    strange.mkdir()
    (strange / "film.png").write_bytes(b"film")
    with pytest.raises(CodecError, match=r"holds other files \(such as film.png\) and no classifier; name an empty or new one"):
        save_classifier(strange, SPEC, weights=other)
    assert os.listdir(strange) == ["film.png"]


def test_nothing_is_written_that_does_not_load(tmp_path):
    with pytest.raises(CodecError, match="lacks a tensor that the network needs"):
        save_classifier(tmp_path / "c", SPEC, weights={"classifier.bias": torch.zeros(2)})
    assert not (tmp_path / "c").exists()


def test_the_spec_survives_its_own_bytes(folder):
    spec = load_classifier(folder).spec
    assert read_spec(spec.to_bytes()) == spec
