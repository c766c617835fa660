"""Writes `autoencoder_kl.npz` beside this file: codes and films of the packages medvae 0.1.7 and diffusers 0.42.1 themselves.

Neither is needed to run the tests. In an environment that has them both (with einops), from the root of the checkout:

    python -m tests.networks.data.record_autoencoder_kl

Weights are those that `kl_layouts` draws by name; films are gray, given as equal colours, and the films that come back are averaged.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from tests.networks import kl_layouts
from tests.networks.kl_layouts import CompVis, Diffusers, film, projection, state_of, with_low_rank_changes


@torch.no_grad()
def main() -> None:
    """Both packages on the same film. They are no dependencies, so they are imported here, by name."""
    inject_trainable_lora_extended = import_module("medvae.utils.lora").inject_trainable_lora_extended
    MedvaeAutoencoder = import_module("medvae.models.autoencoder_kl").AutoencoderKL
    AutoencoderKL = import_module("diffusers").AutoencoderKL
    colours = film().expand(-1, 3, -1, -1)
    sizes = kl_layouts.MEDVAE
    ddconfig = {"double_z": True, "z_channels": sizes.z, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2]}
    medvae = MedvaeAutoencoder({**ddconfig, "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0}, sizes.code)
    inject_trainable_lora_extended(medvae, {"ResnetBlock", "AttnBlock"}, r=kl_layouts.RANK)
    medvae.load_state_dict(with_low_rank_changes(state_of(sizes, CompVis)) | projection(sizes.code))
    codes = medvae.eval().encode(colours).mode()
    found = {"medvae_codes": codes, "medvae_films": medvae.decode(codes).mean(1, keepdim=True)}
    plain = {name: value for name, value in kl_layouts.DIFFUSERS_CONFIG.items() if not name.startswith("_")}
    diffusers = AutoencoderKL(**plain)
    diffusers.load_state_dict(state_of(kl_layouts.DIFFUSERS, Diffusers))
    codes = diffusers.eval().encode(colours).latent_dist.mode()
    found |= {"diffusers_codes": codes, "diffusers_films": diffusers.decode(codes).sample.mean(1, keepdim=True)}
    np.savez_compressed(Path(__file__).with_name("autoencoder_kl.npz"), **{name: value.numpy() for name, value in found.items()})


if __name__ == "__main__":
    main()
