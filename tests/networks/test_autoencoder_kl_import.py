"""Published autoencoders give the codes and films of their documented forward pass, and those that their own packages gave.

`data/autoencoder_kl.npz` holds what medvae 0.1.7 and diffusers 0.42.1 made of one film with the weights that `kl_layouts` draws by name;
`data/record_autoencoder_kl.py` says how it was recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.networks.importers.checkpoint import read_checkpoint
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.registry import build_network
from tests.networks import kl_layouts
from tests.networks.kl_layouts import CompVis, Diffusers, Documented, Sizes, film, projection, state_of, with_low_rank_changes

SMALL = Sizes(widths=(32, 32), blocks=1, middle=False)


def built(found: ImportedNetwork, resolution: int = 32) -> tuple[nn.Module, nn.Module]:
    """Encoder and generator."""
    assert found.role == "codec"
    assert found.encoder is not None
    nets = []
    for role, part in (("encoder", found.encoder), ("generator", found)):
        net = build_network(role, part.network, {**part.settings, "resolution": resolution})  # type: ignore[arg-type]
        net.load_state_dict(part.state)
        nets.append(net.eval())
    return nets[0], nets[1]


@torch.no_grad()
def assert_documented(found: ImportedNetwork, documented: Documented, *, scale: float = 1, shift: float = 0) -> None:
    encoder, generator = built(found)
    colours = documented.sizes.colours
    codes = documented.mean(film().expand(-1, colours, -1, -1))
    films = documented.films(codes).mean(1, keepdim=True)
    assert codes.std() > 0.1
    assert films.std() > 0.1
    scaled = ((codes - shift) * scale).float()
    torch.testing.assert_close(encoder(film()), scaled, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator(scaled), films.float(), rtol=0, atol=1e-5)


def save_diffusers(folder: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(kl_layouts.DIFFUSERS_CONFIG | changes))
    return folder / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    "sizes",
    [
        Sizes(),
        Sizes(colours=3, code=4, z=4, middle=False),
        Sizes(widths=(32, 32, 64), blocks=1, attention=(1, 2)),
    ],
    ids=["one colour", "no attention", "attention"],
)
def test_latent_diffusions_names(sizes: Sizes, tmp_path: Path) -> None:
    state = state_of(sizes)
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(())}, "epoch": 1}, tmp_path / "last.ckpt")
    found = read_checkpoint(tmp_path / "last.ckpt")
    assert (found.layout, found.network, found.recipe, found.facts) == (
        "latent-diffusion",
        "autoencoder_kl",
        {},
        {"colours": sizes.colours},
    )
    assert (found.settings["widths"], found.settings["middle_attention"]) == (list(sizes.widths), sizes.middle)
    assert found.settings["attention_levels"] == list(sizes.attention)
    assert_documented(found, Documented(state, sizes))


@pytest.mark.parametrize("prefix", ["module.", "first_stage_model."])
def test_prefixes_of_training_and_of_whole_diffusion_models(prefix: str, tmp_path: Path) -> None:
    state = state_of(SMALL)
    others = {"model.diffusion_model.out.2.weight": torch.zeros(4, 3)} if prefix == "first_stage_model." else {}
    save_file({f"{prefix}{name}": value for name, value in state.items()} | others, tmp_path / "v1.safetensors")
    found = read_checkpoint(tmp_path / "v1.safetensors")
    assert found.encoder is not None
    assert torch.equal(found.encoder.state["middle.first.conv1.weight"], state["encoder.mid.block_1.conv1.weight"])
    assert torch.equal(found.state["levels.1.resample.bias"], state["decoder.up.1.upsample.conv.bias"])


@pytest.mark.parametrize("code", [1, 3, 4])
def test_medvaes_plain_networks(code: int, tmp_path: Path) -> None:
    sizes = Sizes(blocks=1, code=code, z=3 if code == 3 else 4)
    state = state_of(sizes)
    torch.save({"state_dict": state | projection(code)}, tmp_path / "vae_4x_1c_2D.ckpt")
    found = read_checkpoint(tmp_path / "vae_4x_1c_2D.ckpt")
    assert (found.layout, found.recipe, found.settings["code_channels"]) == ("medvae", {"intensity": "minmax"}, code)
    assert_documented(found, Documented(state, sizes))


@torch.no_grad()
def test_medvaes_low_rank_changes_are_added(tmp_path: Path) -> None:
    changed = with_low_rank_changes(state_of(kl_layouts.MEDVAE)) | projection(3)
    torch.save({"state_dict": changed}, tmp_path / "vae_4x_3c_2D.ckpt")
    found = read_checkpoint(tmp_path / "vae_4x_3c_2D.ckpt")
    layers = sum(name.endswith("lora_up.weight") for name in changed)
    assert found.facts == {"colours": 3, "low_rank_changes": layers}
    encoder, generator = built(found)
    with np.load(Path(__file__).parent / "data" / "autoencoder_kl.npz") as recorded:
        codes, films = (torch.from_numpy(recorded[f"medvae_{what}"]) for what in ("codes", "films"))
    torch.testing.assert_close(encoder(film()), codes, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator(codes), films, rtol=0, atol=1e-5)
    without, _ = built(read_checkpoint(_saved(tmp_path, {n: v * ("lora_up" not in n) for n, v in changed.items()})))
    assert (without(film()) - codes).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("has_old_names", [False, True])
@pytest.mark.parametrize("is_pickled", [False, True])
def test_diffusers_file_gives_its_packages_codes(has_old_names: bool, is_pickled: bool, tmp_path: Path) -> None:
    state = state_of(kl_layouts.DIFFUSERS, Diffusers)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"} if has_old_names else {}
    for new, former in old.items():
        state = {name.replace(f".{new}.", f".{former}."): value for name, value in state.items()}
    path = save_diffusers(tmp_path, state)
    if is_pickled:
        path = tmp_path / "diffusion_pytorch_model.bin"
        torch.save(state, path)
    found = read_checkpoint(path)
    assert (found.layout, found.facts, found.recipe) == ("diffusers", {"colours": 3, "sample_size": 32}, {})
    assert (found.settings["code_scale"], found.settings["code_shift"], found.settings["groups"]) == (0.7, 0.1, 8)
    encoder, generator = built(found)
    with np.load(Path(__file__).parent / "data" / "autoencoder_kl.npz") as recorded:
        means, films = (torch.from_numpy(recorded[f"diffusers_{what}"]) for what in ("codes", "films"))
    torch.testing.assert_close(encoder(film()), (means - 0.1) * 0.7, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator((means - 0.1) * 0.7), films, rtol=0, atol=1e-5)


@pytest.mark.parametrize("has_quant", [True, False])
def test_diffusers_documented_pass(has_quant: bool, tmp_path: Path) -> None:
    sizes = Sizes(widths=(16, 32), blocks=1, colours=1, code=4, z=4, middle=False, groups=8, has_quant=has_quant)
    state = state_of(sizes, Diffusers)
    found = read_checkpoint(save_diffusers(tmp_path, state, scaling_factor=2, shift_factor=None))
    assert_documented(found, Documented(state, sizes, Diffusers), scale=2)


def test_a_name_of_lightning_is_only_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent diffusion's own files keep a callback's state under its class, which is not imported."""
    state = state_of(SMALL)
    content = kl_layouts.lightning_callbacks(_lightning_class(monkeypatch)) | {"state_dict": state}
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.undo()
    (tmp_path / "pytorch_lightning.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert read_checkpoint(tmp_path / "last.ckpt").layout == "latent-diffusion"


def _lightning_class(monkeypatch: pytest.MonkeyPatch) -> type:
    import sys
    import types

    name = "pytorch_lightning.callbacks.model_checkpoint"
    module = types.ModuleType(name)
    kind = type("ModelCheckpoint", (), {"__module__": name})
    module.ModelCheckpoint = kind  # type: ignore[attr-defined]
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    monkeypatch.setitem(sys.modules, name, module)
    return kind


def _saved(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save({"state_dict": state}, folder / "changed.ckpt")
    return folder / "changed.ckpt"


def test_the_names_here_are_not_the_importers() -> None:
    """Both layouts have all their tensors under different names, and as many."""
    sizes = Sizes(code=4, z=4)
    one, other = set(state_of(sizes, CompVis)), set(state_of(sizes, Diffusers))
    assert len(one) == len(other)
    assert one & other == {f"{layer}.{kind}" for layer in _SHARED for kind in ("weight", "bias")}


_SHARED = ("encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out", "quant_conv", "post_quant_conv")
