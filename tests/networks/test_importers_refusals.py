"""Near misses of published layouts are refused in one line, and nothing that lies in a file is run."""

from __future__ import annotations

import os
import pickle
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.errors import CodecError
from engine.networks.importers import safe_reader
from engine.networks.importers.checkpoint import LAYOUTS, read_checkpoint
from tests.networks.published_layouts import (
    CODE_SIZE,
    SegalGenerator,
    ZooGenerator,
    karras_arrays,
    lightning_file,
    save_zoo,
    segal_discriminator,
    weber_file,
    zoo_config,
)

Change = Callable[[dict[str, Any]], Any]


def refusal(path: Path) -> str:
    with pytest.raises(CodecError) as caught:
        read_checkpoint(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 400 + len(str(path))
    return text


def put(name: str, value: Any) -> Change:
    return lambda state: state.__setitem__(name, value)


def drop(name: str) -> Change:
    return lambda state: state.pop(name)


COLOURS = "toRGB.2.module.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("init_conv.0.module.weight", torch.zeros(16, 16, 3, 5)), "another shape than its layers need, init_conv.0.module.weight"),
        (put("latent_linear.0.module.weight", torch.zeros(257, CODE_SIZE)), "another shape than its layers need, latent_linear"),
        (put("latent_linear.0.module.weight", torch.zeros(256, CODE_SIZE, 1)), "another number of dimensions than 2"),
        (put(COLOURS, torch.zeros(4, 8, 1, 1)), "another shape than its layers need, toRGB.0.module.weight"),
        (put(COLOURS, torch.zeros(3, 8, 3, 3)), "another shape than its layers need, toRGB.2.module.weight"),
        (drop(COLOURS), "does not know: ScaleBlocks.1.convolv.0.module.bias"),
        (drop("ScaleBlocks.0.convolv.3.module.bias"), "lacks a tensor of the layout segal: ScaleBlocks.0.convolv.3.module.bias"),
        (put("ScaleBlocks.0.noise.weight", torch.zeros(1)), "does not know: ScaleBlocks.0.noise.weight"),
        (put("toRGB.0.module.bias", torch.full((3,), torch.inf)), "no finite numbers in the tensor: toRGB.0.module.bias"),
        (put("toRGB.0.module.bias", torch.zeros(3, dtype=torch.int64)), "not whole and floating point: toRGB.0.module.bias"),
        (put("toRGB.0.module.bias", torch.zeros(1).expand(3)), "not whole and floating point: toRGB.0.module.bias"),
        (put("toRGB.0.module.bias", torch.zeros(3).to_sparse()), "something else than a plain tensor under the name: toRGB.0.module.bias"),
        (put("toRGB.0.module.bias", [0.0] * 3), "something else than a plain tensor under the name: toRGB.0.module.bias"),
        (put("alpha", torch.tensor(0.25)), "middle of a fade between two resolutions, its alpha must be 0: 0.25"),
        (put("alpha", torch.zeros(2)), "its alpha must be 0: tensor [2]"),
        (drop("alpha"), "does not say whether its fade"),
    ],
)
def test_a_generator_that_is_nearly_segals(change: Change, says: str, tmp_path: Path) -> None:
    state: dict[str, Any] = dict(SegalGenerator().state_dict())
    change(state)
    torch.save({"state_dict": state}, tmp_path / "g.pt")
    assert says in refusal(tmp_path / "g.pt")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"equalize": False}, "variant of segal that this version does not build, equalize must be True: False"),
        ({"norm_layers": False}, "norm_layers must be True: False"),
        ({"mode": "bilinear"}, "mode must be nearest: bilinear"),
        ({"leakiness": "a little"}, "leaky ReLU that is no number: a little"),
        ({"leakiness": 1.5}, "pggan.leak must be 0 or more and under 1: 1.5"),
        ({"g_alpha": torch.tensor(1.0)}, "its settings.g_alpha must be 0: 1.0"),
    ],
)
def test_settings_of_another_generator(settings: dict[str, Any], says: str, tmp_path: Path) -> None:
    torch.save({"state_dict": SegalGenerator().state_dict(), "settings": settings}, tmp_path / "g.pt")
    assert says in refusal(tmp_path / "g.pt")


def test_two_colours(tmp_path: Path) -> None:
    torch.save({"state_dict": SegalGenerator(colours=2).state_dict()}, tmp_path / "g.pt")
    assert refusal(tmp_path / "g.pt").endswith("neither 1 nor 3: 2")


def test_an_average_in_the_middle_of_a_fade(tmp_path: Path) -> None:
    content = lightning_file(SegalGenerator(), SegalGenerator())
    content["state_dict"]["gen_shadow.alpha"] = torch.tensor(0.5)
    torch.save(content, tmp_path / "all.pth")
    assert refusal(tmp_path / "all.pth").endswith("its gen_shadow.alpha must be 0: 0.5")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"alpha": 0.5}, "its config.alpha must be 0: 0.5"),
        ({"alpha": None}, "its config.alpha must be 0: None"),
        ({"perChannelNormalization": False}, "perChannelNormalization must be True: False"),
        ({"equalizedlR": False}, "equalizedlR must be True: False"),
        ({"categoryVectorDim": 5}, "categoryVectorDim must be 0: 5"),
        ({"lossCriterion": "DCGAN"}, "end in a tanh, or an unknown one: DCGAN"),
    ],
)
def test_a_variant_of_the_zoo(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    save_zoo(tmp_path / "zoo.pth", {"avgG": ZooGenerator().state_dict()}, zoo_config(**config))
    assert says in refusal(tmp_path / "zoo.pth")


def test_the_zoos_file_without_generator_or_configuration(tmp_path: Path) -> None:
    save_zoo(tmp_path / "d.pth", {"netD": segal_discriminator()}, zoo_config())
    assert refusal(tmp_path / "d.pth").endswith("has no generator, it lacks: avgG, netG")
    config = zoo_config()
    del config["alpha"]
    save_zoo(tmp_path / "silent.pth", {"netG": ZooGenerator().state_dict()}, config)
    assert "does not say whether its fade" in refusal(tmp_path / "silent.pth")
    torch.save({"config": 3, "netG": ZooGenerator().state_dict()}, tmp_path / "number.pth")
    assert refusal(tmp_path / "number.pth").endswith("has it: int")
    save_zoo(tmp_path / "empty.pth", {"netG": ZooGenerator().state_dict()}, {})
    assert "does not say whether its fade" in refusal(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("lod", np.float32(1.5)), "its lod must be 0: 1.5"),
        (put("8x8/Conv1/weight", np.zeros((3, 3, 12, 16), np.float32)), "another shape than its layers need, 8x8/Conv1/weight"),
        (put("8x8/Conv0_up/weight", np.zeros((3, 3, 16, 12), np.float32)), "another shape than its layers need, 8x8/Conv0_up/weight"),
        (put("8x8/Conv0/weight", np.zeros((3, 3, 16, 12), np.float32)), "does not know: 8x8/Conv0/weight"),
        (put("4x4/Dense/bias", np.array(["a"] * 16)), "something else than a plain tensor under the name: 4x4/Dense/bias"),
        (put("4x4/Dense/bias", np.zeros(16, np.int32)), "not whole and floating point: 4x4/Dense/bias"),
        (drop("16x16/Conv1/bias"), "lacks a tensor of the layout karras: 16x16/Conv1/bias"),
        (drop("ToRGB_lod0/weight"), "lacks a tensor of the layout karras: ToRGB_lod0/weight"),
        (drop("4x4/Dense/weight"), f"has none of the known layouts ({', '.join(LAYOUTS)})"),
    ],
)
def test_variables_that_are_nearly_karras(change: Change, says: str, tmp_path: Path) -> None:
    arrays = karras_arrays(is_fused=True)
    change(arrays)
    np.savez(tmp_path / "gs.npz", **arrays)
    assert says in refusal(tmp_path / "gs.npz")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (drop("module.model.features.0.0.weight"), "lacks a tensor of the layout weber: features.0.0.weight"),
        (drop("module.model.features.1.0.layer_scale"), "lacks a tensor of the layout weber: features.1.0.layer_scale"),
        (drop("module.model.classifier.0.bias"), "lacks a tensor of the layout weber: classifier.0.bias"),
        (put("module.model.features.0.0.weight", torch.zeros(8, 2, 4, 4)), "convnext.in_channels must be 1 or 3: 2"),
        (put("module.model.head.weight", torch.zeros(1)), "does not know: head.weight"),
        (put("module.model.classifier.2.weight", torch.zeros(CODE_SIZE, 17)), "another shape than its layers need, classifier.2.weight"),
    ],
)
def test_an_encoder_that_is_nearly_webers(change: Change, says: str, tmp_path: Path) -> None:
    content = weber_file()
    change(content["model"])
    torch.save(content, tmp_path / "e.pt")
    assert says in refusal(tmp_path / "e.pt")


def test_a_resnet_of_another_size(tmp_path: Path) -> None:
    torch.save({"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(64, 3, 3, 3)}}, tmp_path / "moco.pth.tar")
    assert "another shape than its layers need, conv1.weight" in refusal(tmp_path / "moco.pth.tar")


@pytest.mark.parametrize("is_bare", [True, False])
def test_a_discriminator(is_bare: bool, tmp_path: Path) -> None:
    state = segal_discriminator()
    content = state if is_bare else {"state_dict": state, "settings": {"input_channels": 3, "channel_depth": [512], "leakiness": 0.2}}
    torch.save(content, tmp_path / "d.pt")
    assert "is a discriminator, which makes no films" in refusal(tmp_path / "d.pt")
    np.savez(tmp_path / "d.npz", **{"FromRGB_lod0/weight": np.zeros((1, 1, 3, 8), np.float32)})
    assert "is a discriminator, which makes no films" in refusal(tmp_path / "d.npz")


@pytest.mark.parametrize("content", [{"weights": torch.zeros(3)}, {}, [torch.zeros(3)], torch.zeros(3), {3: torch.zeros(3)}, 7], ids=repr)
def test_an_unknown_layout(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert f"has none of the known layouts ({', '.join(LAYOUTS)}), it holds: " in refusal(tmp_path / "x.pt")


class Harmful:
    """Unpickling it makes a directory."""

    def __init__(self, call: Callable[[str], Any], path: Path) -> None:
        self.call, self.path = call, path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return self.call, (str(self.path),)


def is_harmful(content: bytes) -> bool:
    return b"mkdir" in content or b"makedirs" in content


@pytest.mark.parametrize("call", [os.mkdir, os.makedirs], ids=["built in", "module"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "npz", "config", "inside config"])
def test_code_in_a_file_is_not_run(call: Callable[[str], Any], kind: str, tmp_path: Path) -> None:
    sentinel, path = tmp_path / "sentinel", tmp_path / "checkpoint"
    harmful = Harmful(call, sentinel)
    content = {"state_dict": SegalGenerator().state_dict(), "settings": harmful}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "npz":
        np.savez(tmp_path / "x.npz", **karras_arrays(is_fused=True), extra=np.array([harmful], dtype=object))
        (tmp_path / "x.npz").rename(path)
    elif kind == "config":
        torch.save({"config": harmful, "netG": ZooGenerator().state_dict()}, path)
    else:
        save_zoo(path, {"netG": ZooGenerator().state_dict()}, zoo_config(miniBatchScheduler=harmful))
    assert is_harmful(path.read_bytes())
    text = refusal(path)
    assert not sentinel.exists()
    if kind == "npz":
        assert "holds pickled objects instead of arrays, which are never loaded" in text
    elif kind != "pickle":
        assert "names code, which is never run (" in text
        assert call.__name__ in text
    if kind == "zip":  # and it would have been run by whoever trusts the file
        torch.load(path, weights_only=False)
        assert sentinel.is_dir()


def test_the_zoos_class_is_not_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that happens to be called `models` lies in the way, and is not imported."""
    save_zoo(tmp_path / "zoo.pth", {"netG": ZooGenerator().state_dict()}, zoo_config())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = torch.serialization.get_safe_globals()
    assert read_checkpoint(tmp_path / "zoo.pth").layout == "pytorch_GAN_zoo"
    assert set(torch.serialization.get_safe_globals()) == set(before)


def test_a_configuration_cannot_be_called(tmp_path: Path) -> None:
    """The one name that a file may give is a record: with arguments, or another state than a dictionary, it is refused."""
    for kind in (b"(S'x'\ntR.", b")\x81(S'x'\ntb."):
        (tmp_path / "x.pt").write_bytes(_legacy(b"\x80\x02cmodels.utils.config\nBaseConfig\n" + kind))
        assert "is damaged, or no file of tensors" in refusal(tmp_path / "x.pt")


def _legacy(pickled: bytes) -> bytes:
    """The header of torch's format before the zip, and one pickle."""
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, protocol=2) for part in header) + pickled + pickle.dumps([], protocol=2)


def test_the_legacy_header_here_is_torchs(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(_legacy(b"\x80\x02cmodels.utils.config\nBaseConfig\n)\x81."))
    assert refusal(tmp_path / "x.pt").endswith("it holds: ZooConfig")


@pytest.mark.parametrize("save", ["zip", "legacy", "npz"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_a_truncated_file(save: str, keep: float, tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    if save == "npz":
        np.savez(path, **karras_arrays(is_fused=True))
    else:
        torch.save({"state_dict": SegalGenerator().state_dict()}, path, _use_new_zipfile_serialization=save == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    assert "is damaged, or no file of tensors by torch.save or numpy.savez: " in refusal(path)


def test_a_damaged_stream_in_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "g.npz"
    np.savez_compressed(path, **karras_arrays(is_fused=True))
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[0]
    data = bytearray(path.read_bytes())
    extra = int.from_bytes(data[member.header_offset + 28 : member.header_offset + 30], "little")
    data[member.header_offset + 30 + len(member.filename) + extra] |= 7  # a last block, of a kind that deflate does not have
    path.write_bytes(data)
    with pytest.raises(zlib.error), np.load(path) as arrays:
        arrays[member.filename.removesuffix(".npy")]
    assert "is damaged, or no file of tensors by torch.save or numpy.savez: " in refusal(path)


def test_a_damaged_header_of_an_array(tmp_path: Path) -> None:
    """NumPy takes a header that is no literal for one of Python 2, and looks for its tokens."""
    path, header = tmp_path / "g.npz", b"{'descr': '<f4', 'fortran_order': False, 'shape': (3,"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("lod.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(tokenize.TokenError), np.load(path) as arrays:
        arrays["lod"]
    assert "is damaged, or no file of tensors by torch.save or numpy.savez: " in refusal(path)


def test_what_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, text, array = tmp_path / "empty.pt", tmp_path / "page.html", tmp_path / "one.npy"
    empty.touch()
    text.write_text("<html>not found</html>")
    np.save(array, np.zeros(3))
    assert refusal(empty) == f"checkpoint is empty: {empty}"
    assert "is damaged, or no file of tensors" in refusal(text)
    assert "is damaged, or no file of tensors" in refusal(array)
    assert refusal(tmp_path) == f"a checkpoint is a file, not a directory: {tmp_path}"
    assert refusal(tmp_path / "none.pt") == f"there is no such checkpoint: {tmp_path / 'none.pt'}"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(tmp_path / "pipe") == f"a checkpoint must be a plain file: {tmp_path / 'pipe'}"
    monkeypatch.setattr(safe_reader, "MAX_BYTES", 10)
    assert refusal(text) == f"checkpoint is larger than 10 bytes: {text}"


def test_archives_that_unpack_to_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", **{"4x4/Dense/weight": np.zeros(10**6, np.float32)})
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(1000))
    assert "is a compressed archive, which torch.save does not write" in refusal(tmp_path / "packed.pt")
    monkeypatch.setattr(safe_reader, "MAX_BYTES", 10**6)
    assert refusal(tmp_path / "zeros.npz").startswith("checkpoint unpacks to more than 1000000 bytes: ")


def test_a_tensor_larger_than_its_file(tmp_path: Path) -> None:
    state: dict[str, Tensor] = dict(SegalGenerator((8, 8)).state_dict())
    state["latent_linear.0.module.weight"] = torch.zeros(1, 1).expand(128, 8192)
    torch.save({"state_dict": state}, tmp_path / "g.pt")
    assert refusal(tmp_path / "g.pt").endswith("not whole and floating point: latent_linear.0.module.weight")
