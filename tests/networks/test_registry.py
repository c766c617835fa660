"""Networks are built by name from JSON settings, and from nothing else."""

import pytest
import torch

from engine.errors import CodecError
from engine.networks.registry import build_network, network_names

KL = {"resolution": 8, "widths": [4, 4], "groups": 2, "code_channels": 3, "num_res_blocks": 1}
CASES = [
    ("encoder", "autoencoder_kl", KL, (3, 4, 4), 8),
    ("generator", "autoencoder_kl", KL, (3, 4, 4), 8),
    ("encoder", "convnext", {"depths": [1, 1], "widths": [8, 16], "code_size": 12}, (1, 12), None),
    ("encoder", "dgm", {"resolution": 8, "widths": [4, 5], "blocks": 1}, (10, 2, 2), 8),
    ("generator", "dgm", {"resolution": 8, "widths": [4, 5], "blocks": 1}, (10, 2, 2), 8),
    ("encoder", "crg", {"blocks": [1], "widths": [2], "stem": 1, "hidden": 3, "code_size": 6, "layers": 2}, (2, 6), None),
    ("encoder", "gmvae", {"resolution": 8, "widths": [4], "code_size": 5, "features": "plain", "normalise": False}, (1, 5), 8),
    ("generator", "gmvae", {"resolution": 8, "channels": [4, 3], "code_size": 6}, (1, 6), 8),
    ("encoder", "vae", {"resolution": 8, "widths": [4, 5], "code_size": 6}, (1, 6), 8),
    ("generator", "vae", {"resolution": 8, "widths": [4, 5], "code_size": 6}, (1, 6), 8),
    ("encoder", "pca", {"resolution": 8, "components": 5}, (1, 5), 8),
    ("encoder", "pggan-discriminator", {"channels": [5, 4], "classes": 6}, (1, 6), 8),
    ("generator", "dcgan", {"channels": [4], "code_size": 6}, (1, 6), 8),
    ("generator", "pca", {"resolution": 8, "components": 5}, (1, 5), 8),
    ("generator", "pggan", {"channels": [8, 4], "code_size": 6}, (1, 6), 8),
    ("generator", "stylegan", {"channels": [8, 4], "code_size": 6, "space": "w+"}, (4, 6), 8),
]
GENERATORS = ", ".join(sorted(name for role, name, *_ in CASES if role == "generator"))


@pytest.mark.parametrize(("role", "name", "settings", "code_shape", "resolution"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_builds_from_settings(role, name, settings, code_shape, resolution):
    net = build_network(role, name, settings)
    assert (net.code_shape, net.resolution) == (code_shape, resolution)
    result = net(
        torch.zeros(2, 1, 32, 32) if name == "convnext" else torch.zeros(2, 1, 8, 8) if role == "encoder" else torch.zeros(2, *code_shape)
    )
    assert result.shape == ((2, *code_shape) if role == "encoder" else (2, 1, resolution, resolution))


def test_every_network_is_covered():
    assert {(role, name) for role in ("encoder", "generator") for name in network_names(role)} == {case[:2] for case in CASES}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("stylegan9", {}, f"generator.network must be one of {GENERATORS}: stylegan9"),
        ("convnext", {}, f"must be one of {GENERATORS}: convnext"),
        ("pca", {"resolution": 8, "colour": True}, "generator.settings has unknown fields: colour"),
        ("pca", {"resolution": "8"}, "generator.settings.resolution must be of type int: 8"),
        ("pca", {"resolution": True}, "must be of type int: True"),
        ("pca", [1], "generator.settings must be a JSON object"),
        ("pggan", {"channels": 8}, "generator.settings.channels must be a list: 8"),
        ("pggan", {"channels": [8, "x"]}, "generator.settings.channels must be of type int: x"),
        ("pggan", {"leak": float("nan")}, "generator.settings.leak must be a finite number"),
        ("pggan", {"norm_after_linear": 1}, "generator.settings.norm_after_linear must be of type bool: 1"),
    ],
)
def test_wrong_names_and_settings_are_one_clear_line(name, settings, message):
    with pytest.raises(CodecError, match=r"^[^\n]*$") as caught:
        build_network("generator", name, settings)
    assert message in str(caught.value)
