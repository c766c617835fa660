"""A network as a safetensors file beside its codec: its weights, and in the header what they belong to. Nothing in it is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.encode.codec_directory import write_aside
from engine.encode.weights import fill, read_tensors
from engine.errors import CodecError, LatentrayError
from engine.json_object import read_json_object
from engine.networks.settings import Record, read_settings

_HEADER = "latentray"  # one entry: safetensors writes several in any order


@dataclass(frozen=True)
class NetworkFile:
    """A kind of such files: what a person calls it, its format's name with its version, and what is raised where one is no good."""

    what: str
    format: str
    error: type[LatentrayError] = CodecError

    def write(self, file: Path, settings: Any, state: Mapping[str, Tensor]) -> None:
        """Writes aside and then renames: equal bytes for equal weights, which are not folded. Raises `error` where it cannot."""
        tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
        header = json.dumps({"format": self.format, "settings": asdict(settings)})
        try:
            write_aside(file, save(tensors, metadata={_HEADER: header}))
        except OSError as error:
            raise self.error(f"{self.what} cannot be written ({error.strerror}): {file}") from None

    def settings(self, file: Path, kind: type[Record]) -> Record:
        """The settings that the file names. Raises as `stored`, and CodecError for settings that make no sense."""
        return read_settings(kind, self.stored(file), file.name)

    def stored(self, file: Path) -> Any:
        """The settings as the file has them. Raises `error` where it cannot be read or is none of this kind."""
        try:
            with safe_open(file, framework="pt") as opened:
                header = read_json_object((opened.metadata() or {}).get(_HEADER, "{}"))
            if header.get("format") != self.format:
                raise self.error(f"safetensors file holds no {self.what} of this trainer: {file}")
            return header["settings"]
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise self._unreadable(file, error) from None

    def fill(self, file: Path, network: nn.Module) -> None:
        """Puts the file's weights into a network, which may lie on the meta device. `error` or CodecError where they do not fit."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise self._unreadable(file, error) from None
        fill(network, read_tensors(file.name, data), file.name)

    def _unreadable(self, file: Path, error: Exception) -> LatentrayError:
        return self.error(f"{self.what} cannot be read ({type(error).__name__}): {file}")
