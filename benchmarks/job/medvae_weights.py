"""Random weights for MedVAE's own command, in the cache where it looks for its files. Run by the Python that has the package `medvae`."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

REPOSITORY = "models--stanfordmimi--MedVAE"
REVISION = "0" * 40  # of a snapshot that no one has published
CONFIG, WEIGHTS = "model_weights/medvae_4x1.yaml", "model_weights/vae_4x_1c_2D.ckpt"
NETWORK: dict[str, Any] = {
    "double_z": True,
    "z_channels": 1,
    "resolution": 256,
    "in_channels": 1,
    "out_ch": 1,
    "ch": 128,
    "ch_mult": [1, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}


def write_weights(cache: Path, *, width: int) -> Path:
    """The network `medvae_4_1_2d` with `width` channels at the film's own resolution; returns the file of weights.

    Its posteriors have next to no variance, and its projection is the identity: the command's codes are then the posterior's means.
    """
    torch.manual_seed(0)
    network = import_module("medvae.models").AutoencoderKL_2D(NETWORK | {"ch": width}, 1)
    with torch.no_grad():
        network.quant_conv.weight[1].zero_()
        network.quant_conv.bias[1] = -30.0
        network.channel_ds[-1].weight.zero_()
        network.channel_ds[-1].bias.zero_()
        network.channel_proj.weight.fill_(1.0)
        network.channel_proj.bias.zero_()
    home = cache / REPOSITORY
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    weights = home / "snapshots" / REVISION / WEIGHTS
    weights.parent.mkdir(parents=True)
    torch.save({"state_dict": network.state_dict()}, weights)
    (weights.parent.parent / CONFIG).write_text(json.dumps({"ddconfig": NETWORK | {"ch": width}, "embed_dim": 1}))  # JSON is YAML
    return weights


if __name__ == "__main__":
    print(write_weights(Path(sys.argv[1]), width=int(sys.argv[2])))
