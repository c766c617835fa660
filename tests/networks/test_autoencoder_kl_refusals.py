"""Near misses of published autoencoders are refused in one line: another kind, another shape, another variant, half a file, code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.errors import CodecError
from engine.networks.importers import checkpoint, safe_reader
from engine.networks.importers.checkpoint import read_checkpoint
from tests.networks import kl_layouts
from tests.networks.kl_layouts import Diffusers, Sizes, state_of, with_low_rank_changes

SMALL = Sizes(widths=(32, 32), blocks=1)
STATE = state_of(SMALL)
DIFFUSERS_STATE = state_of(kl_layouts.DIFFUSERS, Diffusers)
Change = Callable[[dict[str, Any]], Any]


def refusal(path: Path) -> str:
    with pytest.raises(CodecError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))
    return text


def put(name: str, *shape: int) -> Change:
    return lambda state: state.__setitem__(name, torch.zeros(shape))


def drop(*names: str) -> Change:
    return lambda state: [state.pop(name) for name in names]


def swap(old: str, new: str) -> Change:
    return lambda state: state.__setitem__(new, state.pop(old))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("encoder.down.0.block.0.conv1.weight", 32, 32, 3, 5), "than its layers need, encoder.down.0.block.0.conv1.weight"),
        (put("encoder.conv_in.weight", 32, 1, 3, 3, 3), "another number of dimensions than 4, encoder.conv_in.weight: [32, 1, 3, 3, 3]"),
        (put("encoder.conv_in.weight", 32, 2, 3, 3), "another number of colours than 1 or 3, encoder.conv_in.weight: 2"),
        (put("decoder.conv_out.weight", 4, 32, 3, 3), "another number of colours than 1 or 3, decoder.conv_out.weight: 4"),
        (put("encoder.conv_out.weight", 3, 32, 3, 3), "encoder.conv_out.weight: [3, 32, 3, 3] instead of [6, 32, 3, 3]"),
        (put("quant_conv.weight", 3, 3, 1, 1), "quant_conv.weight: [3, 3, 1, 1] instead of [2, 6, 1, 1]"),
        (put("post_quant_conv.weight", 3, 2, 1, 1), "quant_conv.weight: [2, 6, 1, 1] instead of [4, 6, 1, 1]"),
        (drop("quant_conv.weight"), "lacks a tensor of the layout latent-diffusion: quant_conv.weight"),
        (drop("post_quant_conv.bias"), "lacks a tensor of the layout latent-diffusion: post_quant_conv.bias"),
        (drop("decoder.up.1.upsample.conv.bias"), "lacks a tensor of the layout latent-diffusion: decoder.up.1.upsample.conv.bias"),
        (drop("encoder.mid.attn_1.norm.weight"), "does not know: encoder.mid.attn_1.k.bias"),
        (put("encoder.down.0.attn.0.q.weight", 32, 32, 1, 1), "does not know: encoder.down.0.attn.0.q.weight"),
        (put("encoder.down.1.attn.0.norm.weight", 32), "lacks a tensor of the layout latent-diffusion: encoder.down.1.attn.0.norm.bias"),
        (put("encoder.mid.attn_1.to_qkv.weight", 96, 32, 1, 1), "does not know: encoder.mid.attn_1.to_qkv.weight"),
        (put("encoder.mid.attn_1.q.weight", 32, 32, 3, 3), "than its layers need, encoder.mid.attn_1.q.weight: [32, 32, 3, 3]"),
        (put("encoder.down.1.block.1.conv1.weight", 32, 32, 3, 3), "does not know: encoder.down.1.block.1.conv1.weight"),
        (put("quantize.embedding.weight", 16, 3), "is a VQ model, whose codes are entries of a table"),
        (put("encoder.down.0.block.0.temb_proj.weight", 32, 8), "does not know: encoder.down.0.block.0.temb_proj.weight"),
        (drop("decoder.up.0.block.0.norm1.weight"), "has none of the known layouts"),
        (
            lambda state: state.__setitem__("quant_conv.bias", torch.full((2,), torch.nan)),
            "no finite numbers in the tensor: quant_conv.bias",
        ),
        (lambda state: state.__setitem__("quant_conv.bias", [0.0]), "something else than a plain tensor under the name: quant_conv.bias"),
    ],
)
def test_a_file_that_is_nearly_latent_diffusions(change: Change, says: str, tmp_path: Path) -> None:
    state: dict[str, Any] = dict(STATE)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    assert says in refusal(tmp_path / "last.ckpt")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            put("encoder.mid.block_1.conv1.lora_up.weight", 32, 5, 1, 1),
            "encoder.mid.block_1.conv1.lora_up.weight: [32, 5, 1, 1] instead of",
        ),
        (put("encoder.mid.block_1.conv1.lora_down.weight", 4, 32, 1, 1), "instead of [32, 32, 1, 1]"),
        (
            drop("encoder.mid.block_1.conv1.conv.weight"),
            "lacks a tensor of the layout latent-diffusion: encoder.mid.block_1.conv1.conv.weight",
        ),
        (
            drop("encoder.mid.block_1.conv1.lora_down.weight"),
            "lacks a tensor of the layout latent-diffusion: encoder.mid.block_1.conv1.weight",
        ),
        (
            drop("encoder.mid.block_1.conv1.lora_up.weight"),
            "lacks a tensor of the layout latent-diffusion: encoder.mid.block_1.conv1.lora_up.weight",
        ),
        (swap("encoder.mid.attn_1.q.lora_up.weight", "encoder.mid.attn_1.q.selector.weight"), "encoder.mid.attn_1.q.lora_up.weight"),
    ],
)
def test_low_rank_changes_that_do_not_fit(change: Change, says: str, tmp_path: Path) -> None:
    state: dict[str, Any] = with_low_rank_changes(STATE)
    change(state)
    torch.save({"state_dict": state}, tmp_path / "last.ckpt")
    assert says in refusal(tmp_path / "last.ckpt")


def diffusers_file(folder: Path, config: Any, state: dict[str, Tensor] = DIFFUSERS_STATE) -> Path:
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (None, "is of diffusers, whose config.json must lie beside it"),
        ("{", "has a config.json beside it that is no JSON"),
        ([1], "has a config.json beside it that is no JSON object: [1]"),
        ({"_class_name": "VQModel"}, "_class_name must be AutoencoderKL: VQModel"),
        ({"act_fn": "mish"}, "act_fn must be silu: mish"),
        ({"latents_mean": [0.1]}, "latents_mean must be None: [0.1]"),
        ({"down_block_types": ["DownBlock2D"]}, "that this version does not build, its blocks: ['DownBlock2D']"),
        ({"norm_num_groups": "8"}, "norm_num_groups is no whole number: 8"),
        ({"norm_num_groups": 7}, "widths must be multiples of its 7 groups"),
        ({"scaling_factor": "a"}, "scaling_factor is no number: a"),
        ({"scaling_factor": 0}, "autoencoder_kl.code_scale must be 1e-6 to 1e6: 0.0"),
    ],
)
def test_what_the_configuration_of_diffusers_may_say(config: Any, says: str, tmp_path: Path) -> None:
    whole = kl_layouts.DIFFUSERS_CONFIG | config if isinstance(config, dict) else config
    assert says in refusal(diffusers_file(tmp_path, whole))


def test_a_configuration_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MAX_CONFIG_BYTES", 10)
    assert "has a config.json beside it that is larger than 10 bytes" in refusal(diffusers_file(tmp_path, kl_layouts.DIFFUSERS_CONFIG))


def test_other_tensors_of_diffusers(tmp_path: Path) -> None:
    state = dict(DIFFUSERS_STATE)
    state["encoder.mid_block.attentions.0.to_q.weight"] = torch.zeros(32, 64)
    assert "encoder.mid_block.attentions.0.to_q.weight: [32, 64]" in refusal(diffusers_file(tmp_path, kl_layouts.DIFFUSERS_CONFIG, state))
    state = DIFFUSERS_STATE | {"encoder.mid_block.attentions.1.to_q.weight": torch.zeros(32, 32)}
    assert "does not know: encoder.mid_block.attentions.1.to_q.weight" in refusal(
        diffusers_file(tmp_path, kl_layouts.DIFFUSERS_CONFIG, state)
    )


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.98])
def test_a_truncated_file(keep: float, tmp_path: Path) -> None:
    torch.save({"state_dict": STATE}, tmp_path / "last.ckpt")
    for path in (tmp_path / "last.ckpt", diffusers_file(tmp_path, kl_layouts.DIFFUSERS_CONFIG)):
        data = path.read_bytes()
        path.write_bytes(data[: int(keep * len(data))])
        kind = "safetensors" if path.suffix == ".safetensors" else "torch.save or numpy.savez"
        assert f"checkpoint is damaged, or no file of tensors by {kind}: " in refusal(path)


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    torch.save({"state_dict": STATE, "hyper_parameters": Harmful(sentinel)}, tmp_path / "last.ckpt")
    assert "names code, which is never run (" in refusal(tmp_path / "last.ckpt")
    assert not sentinel.exists()


@pytest.mark.parametrize("name", safe_reader.LIGHTNING_CALLBACKS)
@pytest.mark.parametrize("made", [b"(tR.", b")\x81.", b"(S'x'\ntR."], ids=["called", "new", "called with a value"])
def test_nothing_is_made_of_a_class_that_may_be_a_key(name: str, made: bytes, tmp_path: Path) -> None:
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    module, _, kind = name.rpartition(".")
    pickled = b"\x80\x02c" + f"{module}\n{kind}\n".encode() + made
    parts = [*(pickle.dumps(part, protocol=2) for part in header), pickled, pickle.dumps([], protocol=2)]
    (tmp_path / "x.ckpt").write_bytes(b"".join(parts))
    assert "is damaged, or no file of tensors by torch.save" in refusal(tmp_path / "x.ckpt")
