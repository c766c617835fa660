"""A published checkpoint as a network: which layout a file has, and its importer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import CodecError
from engine.networks.importers.autoencoder_kl import (
    DIFFUSERS,
    LATENT_DIFFUSION,
    MEDVAE,
    has_compvis,
    has_diffusers,
    read_compvis,
    read_diffusers,
)
from engine.networks.importers.equalised_pggan import SEGAL, ZOO, has_segal_generator, read_segal, read_zoo
from engine.networks.importers.imported_network import ImportedNetwork
from engine.networks.importers.karras_pggan import KARRAS, has_karras_generator, read_karras
from engine.networks.importers.moco_features import MOCO, has_moco, read_moco
from engine.networks.importers.safe_reader import FileContent, read_file
from engine.networks.importers.weber_encoder import WEBER, read_weber
from engine.networks.settings import shortened

LAYOUTS = (SEGAL, ZOO, KARRAS, WEBER, MOCO, MEDVAE, LATENT_DIFFUSION, DIFFUSERS)
MAX_CONFIG_BYTES = 2**20
_DISCRIMINATOR = ("fromRGB.", "DecisionLinear.", "fromRGBLayers.", "decisionLayer.", "FromRGB_lod")


def read_checkpoint(path: str | Path) -> ImportedNetwork:
    """The network in a published file, its weights folded to plain ones. Nothing that lies in the file is run (`safe_reader`).

    Raises CodecError in one line: for what is not readable, has none of the `LAYOUTS`, or has one of them with other shapes, left-over
    tensors, values that are no numbers, a fade that is not over or a variant that the networks here are not.
    """
    file = read_file(Path(path))
    try:
        return replace(_read(file, Path(path).parent / "config.json"), file_sha256=file.sha256)
    except CodecError as error:
        raise CodecError(f"checkpoint {path}: {error}") from None


def _read(file: FileContent, config: Path) -> ImportedNetwork:
    content = file.content
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise CodecError(f"has none of the known layouts ({', '.join(LAYOUTS)}), it holds: {type(content).__name__}")
    if file.is_npz:
        if has_karras_generator(content):
            return read_karras(content)
        raise _refusal(content)
    if "config" in content and ({"netG", "avgG", "netD"} & set(content)):
        return read_zoo(content)
    if isinstance(content.get("model"), Mapping):
        return read_weber(content["model"])
    state: Any = content.get("state_dict", content)
    if isinstance(state, Mapping) and all(isinstance(name, str) for name in state):
        if has_segal_generator(state):
            return read_segal(state, content.get("settings"))
        if has_moco(state):
            return read_moco(state)
        if has_compvis(state):
            return read_compvis(state)
        if has_diffusers(state):
            return read_diffusers(state, _read_json(config))
        raise _refusal(state)
    raise _refusal(content)


def _read_json(file: Path) -> Any:
    """What the file holds, None where there is none."""
    try:
        if not file.is_file():
            return None
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise CodecError(f"has a {file.name} beside it that is larger than {MAX_CONFIG_BYTES} bytes: {file}")
        return json.loads(file.read_bytes())
    except OSError as error:
        raise CodecError(f"has a {file.name} beside it that cannot be read ({error.strerror}): {file}") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise CodecError(f"has a {file.name} beside it that is no JSON: {file}") from None


def _refusal(names: Mapping[str, Any]) -> CodecError:
    if any(part in name for name in names for part in _DISCRIMINATOR):
        return CodecError(f"is a discriminator, which makes no films; the generator's file is needed: {shortened(', '.join(names))}")
    return CodecError(f"has none of the known layouts ({', '.join(LAYOUTS)}), it holds: {shortened(', '.join(names)) or 'nothing'}")
