"""A codec may bring heads for coarse films: saved, digested and checked like all of its weights."""

import hashlib
import math
from dataclasses import replace

import pytest
import torch

from engine.encode.codec import codec_files, load_codec, load_codec_files, save_codec
from engine.encode.codec_spec import WeightsFile
from engine.errors import CodecError
from engine.networks.coarse import Head, heads_to_tensors
from tests.encode.test_codec import SPEC, edited, pca_spec, pca_weights, tiny_weights


@pytest.fixture
def saved(tmp_path):
    save_codec(tmp_path / "tiny", SPEC, weights=tiny_weights())
    return tmp_path / "tiny"


SIZE = math.prod(SPEC.code.shape)
HEADS = replace(SPEC, coarse=WeightsFile(weights="heads.safetensors"))


def head(resolution=16, channels=8):
    draw = torch.Generator().manual_seed(resolution)
    weight = torch.randn(1, channels, 1, 1, generator=draw)
    return Head(resolution=resolution, weight=weight, bias=torch.randn(1, generator=draw), explained=0.75)


def with_heads(*heads):
    return tiny_weights() | {"heads.safetensors": heads_to_tensors({one.resolution: one for one in heads})}


class TestCoarseHeads:
    def test_heads_are_saved_and_loaded(self, tmp_path):
        save_codec(tmp_path / "x", HEADS, weights=with_heads(head(8), head(16)))
        codec = load_codec_files(codec_files(tmp_path / "x"))  # as an archive keeps it
        assert sorted(codec.coarse) == [8, 16]
        for resolution, found in codec.coarse.items():
            assert torch.equal(found.weight, head(resolution).weight)
            assert torch.equal(found.bias, head(resolution).bias)
            assert found.explained == 0.75
            assert codec.frozen_generator(torch.float32, head=found)(torch.randn(2, 1, 12)).shape == (2, 1, resolution, resolution)

    def test_heads_are_part_of_the_digest(self, saved, tmp_path):
        digests = [load_codec(saved).digest]
        for name, heads in (("x", [head(8)]), ("y", [head(8), head(16)])):
            save_codec(tmp_path / name, HEADS, weights=with_heads(*heads))
            digests.append(load_codec(tmp_path / name).digest)
        assert len(set(digests)) == 3
        lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted((tmp_path / "y").iterdir()))
        assert digests[2] == hashlib.sha256(lines.encode()).hexdigest()
        assert any(name.startswith("heads-") for name in codec_files(tmp_path / "y"))

    @pytest.mark.parametrize(
        ("metric", "says"),
        [
            (torch.ones(3, 7), r"must be \[k, \d+\]: \[3, 7\]"),
            (torch.full((2, SIZE), torch.nan), "must be finite and of norm 1 at most"),
            (3 * torch.eye(2, SIZE), "must be finite and of norm 1 at most"),
        ],
    )
    def test_a_metric_that_would_mislead_is_refused(self, tmp_path, metric, says):
        weights = with_heads(head(16))
        weights["heads.safetensors"]["metric"] = metric
        with pytest.raises(CodecError, match=says):
            save_codec(tmp_path / "x", HEADS, weights=weights)

    def test_a_metric_comes_with_the_heads(self, tmp_path):
        weights = with_heads(head(16))
        weights["heads.safetensors"]["metric"] = torch.eye(2, SIZE)
        save_codec(tmp_path / "x", HEADS, weights=weights)
        assert torch.equal(load_codec(tmp_path / "x").metric, torch.eye(2, SIZE))

    def test_a_codec_of_before_has_none(self, saved):
        edited(saved, lambda d: d.pop("coarse"))
        assert load_codec(saved).coarse == {}

    @pytest.mark.parametrize(
        ("tensors", "says"),
        [
            (heads_to_tensors({16: head(channels=5)}), "no level of the generator fits its coarse head: 16 pixels, 5 channels"),
            (heads_to_tensors({20: head(20)}), "no level of the generator fits its coarse head: 20 pixels, 8 channels"),
            (heads_to_tensors({64: head(64, 4)}), "no level of the generator fits its coarse head: 64 pixels, 4 channels"),
            ({"sixteen.weight": torch.zeros(1)}, "no head has a tensor of this name: sixteen.weight"),
            ({"16.weight": torch.zeros(1, 8, 1, 1)}, "a head lacks its tensor: 16.bias"),
            (heads_to_tensors({16: head()}) | {"16.bias": torch.zeros(2)}, r"its bias \[1\]: 16"),
        ],
    )
    def test_heads_that_do_not_fit_are_one_line(self, tmp_path, tensors, says):
        with pytest.raises(CodecError, match=rf"^[^\n]*heads-\w+.safetensors: [^\n]*{says}$"):
            save_codec(tmp_path / "x", HEADS, weights=tiny_weights() | {"heads.safetensors": tensors})
        assert not (tmp_path / "x").exists()

    def test_a_generator_without_levels_takes_no_heads(self, tmp_path):
        spec = replace(pca_spec(), coarse=WeightsFile(weights="heads.safetensors"))
        weights = pca_weights() | {"heads.safetensors": heads_to_tensors({4: head(4)})}
        with pytest.raises(CodecError, match="makes no coarse films, but there is a head for pixels a side: 4"):
            save_codec(tmp_path / "x", spec, weights=weights)

    def test_a_file_that_is_missing_is_named(self, tmp_path):
        save_codec(tmp_path / "x", HEADS, weights=with_heads(head()))
        next((tmp_path / "x").glob("heads-*")).unlink()
        with pytest.raises(CodecError, match="heads-"):
            load_codec(tmp_path / "x")
