"""`detector.json` as a frozen record: read strictly, written in one order."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.encode.codec_spec import NetworkSpec
from engine.encode.strict_json import read_versioned, to_json_bytes
from engine.errors import CodecError
from engine.networks.settings import read_settings, refuse_unknown, shortened, typed
from engine.recipe import PixelRecipe

FORMAT = "latentray-detector"
FORMAT_VERSION = 1
DETECTOR_JSON = "detector.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_NEEDED = ("name", "network", "finding", "recipe")


@dataclass(frozen=True, kw_only=True)
class DetectorSpec:
    """A detector, but for its weights. `finding`: what its boxes are around. `recipe`: how files become the films it was trained on."""

    name: str
    network: NetworkSpec
    finding: str
    recipe: PixelRecipe
    licence: str = "not stated"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("name", "finding"):
            if not _NAME.fullmatch(getattr(self, name)):
                limits = "letters, digits and ._+- (100 at most, the first a letter or digit)"
                raise CodecError(f"{name} must be {limits}: {shortened(getattr(self, name))}")

    def files(self) -> dict[str, str]:
        """The sha256 of the weights file by its name."""
        return {self.network.weights: self.network.sha256}

    def to_bytes(self) -> bytes:
        """The bytes of `detector.json`: the same for equal specs."""
        return to_json_bytes(asdict(self), format_name=FORMAT, version=FORMAT_VERSION)


def read_spec(raw: bytes) -> DetectorSpec:
    """The record in the bytes of a `detector.json`; raises CodecError on anything that is not exactly one of version 1."""
    data = read_versioned(raw, DETECTOR_JSON, format_name=FORMAT, version=FORMAT_VERSION)
    refuse_unknown(data, set(DetectorSpec.__dataclass_fields__), DETECTOR_JSON)
    missing = [name for name in _NEEDED if name not in data]
    if missing:
        raise CodecError(f"{DETECTOR_JSON} lacks fields: {', '.join(missing)}")
    spec = DetectorSpec(
        **{name: typed(str, data[name], name) for name in ("name", "finding", "licence") if name in data},
        network=read_settings(NetworkSpec, data["network"], "network"),
        recipe=read_settings(PixelRecipe, data["recipe"], "recipe"),
        provenance=typed(dict, data.get("provenance", {}), "provenance"),
    )
    if not spec.network.sha256:
        raise CodecError(f"{DETECTOR_JSON} lacks the sha256 of its weights file: {spec.network.weights}")
    return spec
