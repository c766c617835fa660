"""JSON of somebody else: nested without end, with numbers beyond measure, fields given twice: one clear line each, at every door."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from engine.errors import LatentrayError
from engine.json_object import MAX_BYTES, MAX_DEPTH, read_json_object
from tests.small_classifier import write_classifier


def with_field(document: str, value: str) -> str:
    """The document with one more field of this text."""
    return document.rstrip().removesuffix("}").rstrip() + ', "provenance": {"x": ' + value + "}}"


SPOILT: dict[str, Callable[[str], str]] = {
    "deeper than Python goes": lambda text: with_field(text, "[" * 100_000 + "]" * 100_000),
    "deeper than anybody needs": lambda text: with_field(text, '{"a":' * 400 + "1" + "}" * 400),
    "a number of 5,000 digits": lambda text: with_field(text, "9" * 5000),
    "a number of 400 digits": lambda text: with_field(text, "-" + "9" * 400),
    "half a character": lambda text: with_field(text, r'"\ud800"'),
    "half a character as a name": lambda text: with_field(text, r'{"\udfff": 1}'),
    "a field given twice": lambda text: with_field(text, '1, "x": 2'),
    "cut off": lambda text: text[: len(text) // 2],
    "a list": lambda text: f"[{text}]",
    "a number": lambda text: "7",
    "null": lambda text: "null",
    "nothing": lambda text: "",
    "an empty object": lambda text: "{}",
}
NOT_FINITE: dict[str, Callable[[str], str]] = {
    "not a number": lambda text: with_field(text, "NaN"),
    "infinite": lambda text: with_field(text, "-Infinity"),
    "infinite in disguise": lambda text: with_field(text, "1e999"),
}
EVERYWHERE = SPOILT | NOT_FINITE


def refused(door: Callable[[], object]) -> str:
    with pytest.raises(LatentrayError) as caught:
        door()
    said = str(caught.value)
    assert said
    assert said.isprintable()
    assert len(said) < 600
    return said


@pytest.mark.parametrize("spoil", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_codec(spoil: Callable[[str], str], small_codec: Path, tmp_path: Path) -> None:
    from engine.encode.codec import load_codec

    codec = tmp_path / "codec"
    shutil.copytree(small_codec, codec)
    document = json.loads((codec / "codec.json").read_text())
    del document["provenance"]
    (codec / "codec.json").write_text(spoil(json.dumps(document)))
    assert "codec.json" in refused(lambda: load_codec(codec))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "tiny")


@pytest.mark.parametrize("spoil", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_classifier(spoil: Callable[[str], str], classifier: Path, tmp_path: Path) -> None:
    from engine.classify.classifier import load_classifier

    model = tmp_path / "model"
    shutil.copytree(classifier, model)
    document = json.loads((model / "classifier.json").read_text())
    document.pop("provenance", None)
    (model / "classifier.json").write_text(spoil(json.dumps(document)))
    assert "classifier.json" in refused(lambda: load_classifier(model))


def header_of(file: Path, tensors: dict[str, Any], text: str) -> Path:
    """A safetensors file of these tensors whose one entry of metadata is this text."""
    header: dict[str, Any] = {"__metadata__": {"latentray": text}}
    data = b""
    for name, tensor in tensors.items():
        raw = np.asarray(tensor, dtype=np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(np.shape(tensor)), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    packed = json.dumps(header).encode()
    file.write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    return file


DIRECTION = {"format": "latentray-direction", "format_version": 1, "attribute": "sex", "method": "lda"}
DIRECTION |= {"spread": 1.0, "shape": [1, 3], "codec": "pca", "digest": "ab" * 32}


def test_a_direction_as_it_should_be(tmp_path: Path) -> None:
    from engine.latents.direction_file import read_direction

    found = read_direction(header_of(tmp_path / "d", {"direction": [0.0, 1.0, 0.0]}, json.dumps(DIRECTION)))
    assert (found.attribute, found.shape, found.spread) == ("sex", (1, 3), 1.0)


@pytest.mark.parametrize("spoil", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_direction(spoil: Callable[[str], str], tmp_path: Path) -> None:
    from engine.latents.direction_file import read_direction

    file = header_of(tmp_path / "d", {"direction": [0.0, 1.0, 0.0]}, spoil(json.dumps(DIRECTION)))
    refused(lambda: read_direction(file))


@pytest.mark.parametrize(
    "changes",
    [
        {"attribute": ["sex"]},
        {"digest": 7},
        {"spread": "wide"},
        {"spread": True},
        {"spread": None},
        {"shape": "13"},
        {"shape": [-1, -3]},
        {"shape": [2**40, 2**40]},
        {"shape": 3},
        {"shape": []},
        {"provenance": [1]},
        {"vector": [1]},
        {"stranger": 1},
        {"format": "latentray-codec"},
    ],
    ids=str,
)
def test_a_direction_of_other_types(changes: dict[str, Any], tmp_path: Path) -> None:
    from engine.latents.direction_file import read_direction

    file = header_of(tmp_path / "d", {"direction": [0.0, 1.0, 0.0]}, json.dumps(DIRECTION | changes))
    refused(lambda: read_direction(file))


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_checkpoint_of_a_training(spoil: Callable[[str], str], tmp_path: Path) -> None:
    from trainers.checkpoint import read_checkpoint

    text = json.dumps({"format": "latentray-checkpoint-1", "about": {"images": 1}, "states": {"dict": [["a", {"plain": 1}]]}})
    assert read_checkpoint(header_of(tmp_path / "c", {}, text)).states == {"a": 1}
    file = header_of(tmp_path / "c", {}, spoil(text))
    refused(lambda: read_checkpoint(file))


@pytest.mark.parametrize("states", [7, [], {"dict": 7}, {"dict": [["a"]]}, {"tensor": "none"}, {"code": "x"}, {"plain": 1}, {}], ids=str)
def test_states_of_a_training_that_are_none(states: Any, tmp_path: Path) -> None:
    from trainers.checkpoint import read_checkpoint

    text = json.dumps({"format": "latentray-checkpoint-1", "about": {"images": 1}, "states": states})
    file = header_of(tmp_path / "c", {}, text)
    refused(lambda: read_checkpoint(file))


@pytest.mark.parametrize("spoil", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_head_of_a_dgm(spoil: Callable[[str], str], tmp_path: Path) -> None:
    from engine.networks.dgm_head import load_head

    text = json.dumps({"format": "latentray-dgm-head-1", "settings": {"channels": 2}})
    file = header_of(tmp_path / "h", {"linear.weight": [[0.0, 0.0]], "linear.bias": [0.0]}, spoil(text))
    if "provenance" not in spoil(text) or json_refuses(spoil(text)):
        refused(lambda: load_head(file, device=torch.device("cpu")))


def json_refuses(text: str) -> bool:
    try:
        read_json_object(text)
    except ValueError:
        return True
    return False


@pytest.mark.parametrize("spoil", EVERYWHERE.values(), ids=EVERYWHERE)
def test_a_plan(spoil: Callable[[str], str], tmp_path: Path) -> None:
    from engine.source.plan_file import read_about

    about = {"num_rows": 1, "shard_rows": 1, "kind": "folder", "root": "/", "id_from": "stem", "hashed_ids": False, "label_names": []}
    text = json.dumps({"version": 1, "digest": "ab", **about})
    file = tmp_path / "films.plan.parquet"
    for content in (text, spoil(text)):
        table = pa.table({"row": [0], "sample_id": ["a"], "uri": ["/a"], "shard": [0]})
        with pq.ParquetWriter(file, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({b"latentray.plan": content.encode()})
        if content == text:
            assert read_about(file)[1] == "ab"
    refused(lambda: read_about(file))


@pytest.mark.parametrize("length", [2**63, 2**40, 99_999_999])
def test_a_header_that_claims_to_be_endless(length: int, small_codec: Path, tmp_path: Path) -> None:
    from engine.encode.weights import read_tensors
    from engine.latents.direction_file import read_direction

    data = length.to_bytes(8, "little") + b'{"a": 1}'
    refused(lambda: read_tensors("w.safetensors", data))
    (tmp_path / "d").write_bytes(data)
    refused(lambda: read_direction(tmp_path / "d"))


def numbers(document: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a document has a number."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for name, value in items:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*place, name)
        yield from numbers(value, (*place, name))


@pytest.mark.parametrize("value", [-1, 0, 2**31, 2**63, 2**100, 1e308, -0.5])
@pytest.mark.parametrize("name", ["pca", "demo"])
def test_no_number_of_a_codec_breaks_more_than_the_request(name: str, value: float, small_codec: Path, tmp_path: Path) -> None:
    from engine.encode.codec import codec_files, load_codec_files

    files = codec_files(small_codec if name == "pca" else "demo")
    document = json.loads(files["codec.json"])
    places = [place for place in numbers(document) if place[0] != "provenance"]
    assert len(places) > 3
    for place in places:
        spoilt = json.loads(files["codec.json"])
        inner = spoilt
        for step in place[:-1]:
            inner = inner[step]
        if inner[place[-1]] != value and (name == "pca" or place[0] != "recipe"):
            inner[place[-1]] = value
            with suppress(LatentrayError):  # anything else is a mistake of ours
                load_codec_files({**files, "codec.json": json.dumps(spoilt).encode()})


@pytest.mark.parametrize(
    "weights", ["../../x.safetensors", "/x.safetensors", "a/b.safetensors", "x.pt", "x\0.safetensors", "..", "C:\\x.safetensors"]
)
def test_weights_lie_beside_their_json(weights: str, small_codec: Path, tmp_path: Path) -> None:
    from engine.encode.codec import load_codec

    codec = tmp_path / "codec"
    shutil.copytree(small_codec, codec)
    document = json.loads((codec / "codec.json").read_text())
    document["generator"]["weights"] = weights
    (codec / "codec.json").write_text(json.dumps(document))
    assert "plain file name" in refused(lambda: load_codec(codec))


def test_what_the_reader_takes() -> None:
    assert read_json_object('{"a": [1, 2.5, "x", null, true, {"ä": 1e3}]}') == {"a": [1, 2.5, "x", None, True, {"ä": 1000.0}]}
    assert read_json_object(b'{"a": NaN}', finite=False)["a"] != 0
    inside = MAX_DEPTH - 1
    assert read_json_object('{"a":' * inside + "1" + "}" * inside)
    with pytest.raises(ValueError, match="100 deep"):
        read_json_object('{"a":' * (inside + 1) + "1" + "}" * (inside + 1))
    with pytest.raises(ValueError, match=f"{MAX_BYTES} bytes or less"):
        read_json_object('{"a": "' + "x" * MAX_BYTES + '"}')
