"""Which networks there are, by the names that `codec.json` uses, and how one is built from its settings."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from torch import nn

from engine.errors import CodecError
from engine.networks.settings import read_settings, shortened

Role = Literal["encoder", "generator", "classifier", "detector", "mapping"]

# module, network class, settings class; imported only when asked for, so that a generator runs where torchvision is missing
_NETWORKS: dict[Role, dict[str, tuple[str, str, str]]] = {
    "encoder": {
        "autoencoder_kl": ("autoencoder_kl", "AutoencoderKlEncoder", "AutoencoderKlSettings"),
        "convnext": ("convnext", "ConvNextEncoder", "ConvNextSettings"),
        "crg": ("crg", "CrgEncoder", "CrgSettings"),
        "dgm": ("dgm", "DgmEncoder", "DgmSettings"),
        "gmvae": ("gmvae", "GmVaeEncoder", "GmVaeEncoderSettings"),
        "pca": ("pca", "PcaEncoder", "PcaSettings"),
        "pggan-discriminator": ("pggan_discriminator", "PgganDiscriminatorEncoder", "PgganDiscriminatorSettings"),
        "vae": ("vae", "VaeEncoder", "VaeSettings"),
    },
    "generator": {
        "autoencoder_kl": ("autoencoder_kl", "AutoencoderKlGenerator", "AutoencoderKlSettings"),
        "dcgan": ("dcgan", "DcganGenerator", "DcganSettings"),
        "dgm": ("dgm", "DgmGenerator", "DgmSettings"),
        "gmvae": ("gmvae", "GmVaeGenerator", "GmVaeGeneratorSettings"),
        "pca": ("pca", "PcaGenerator", "PcaSettings"),
        "pggan": ("pggan", "PgganGenerator", "PgganSettings"),
        "stylegan": ("stylegan", "StyleGenerator", "StyleSettings"),
        "vae": ("vae", "VaeGenerator", "VaeSettings"),
    },
    "classifier": {
        "densenet": ("densenet", "DenseNetClassifier", "DenseNetSettings"),
        "pggan-discriminator": ("pggan_discriminator", "PgganDiscriminator", "PgganDiscriminatorSettings"),
        "residue-densenet": ("residue_densenet", "ResidueDenseNet", "ResidueDenseNetSettings"),
    },
    "detector": {
        "retinanet": ("retinanet", "RetinaNetDetector", "RetinaNetSettings"),
    },
    "mapping": {
        "stylegan": ("stylegan_mapping", "MappingNetwork", "MappingSettings"),
    },
}


def network_names(role: Role) -> list[str]:
    """The networks that can take a role, in alphabetical order."""
    return sorted(_NETWORKS[role])


def build_network(role: Role, name: str, settings: Any) -> nn.Module:
    """The network `name` with fresh weights, on torch's current default device.

    `settings` is the JSON object of `codec.json` (or `classifier.json`, `detector.json`). An encoder maps [N, 1, R, R] to [N, *code_shape],
    a generator the other way; both have `code_shape` and `resolution` (None where any will do). A classifier maps [N, 1, R, R] to logits
    [N, num_classes], by `embed` to [N, num_features], and has a `resolution`. A detector maps them to boxes [k, 4], in pixels, and scores
    [k], film by film. A mapping draws codes: normal numbers [N, code_size] -> codes [N, code_size].
    Raises CodecError on an unknown name and on unknown, missing or senseless settings.
    """
    if name not in _NETWORKS[role]:
        raise CodecError(f"{role}.network must be one of {', '.join(network_names(role))}: {shortened(name)}")
    file, network, kind = _NETWORKS[role][name]
    try:
        module = import_module(f"engine.networks.{file}")
    except ModuleNotFoundError as error:
        raise CodecError(f"{role} {name} needs a package that is not installed: {error.name}") from None
    built = getattr(module, network)(read_settings(getattr(module, kind), settings, f"{role}.settings"))
    assert isinstance(built, nn.Module)
    return built
