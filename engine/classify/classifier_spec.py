"""`classifier.json` as a frozen record: read strictly, written in one order."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.encode.codec_spec import NetworkSpec
from engine.encode.strict_json import read_versioned, to_json_bytes
from engine.errors import CodecError
from engine.networks.settings import read_settings, refuse_unknown, shortened, typed
from engine.recipe import PixelRecipe

FORMAT = "latentray-classifier"
FORMAT_VERSION = 1
CLASSIFIER_JSON = "classifier.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
_LABEL = re.compile(r"\S(.{0,98}\S)?")
_MOST_LABELS = 1000


@dataclass(frozen=True, kw_only=True)
class ClassifierSpec:
    """A classifier, but for its weights: what it says of a film, label by label.

    `thresholds`: the logit from which on a label counts as there, one for each of `labels`. `recipe`: how files become the films that it
    was trained on.
    """

    name: str
    network: NetworkSpec
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    recipe: PixelRecipe
    licence: str = "not stated"
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CodecError(f"name must be letters, digits and ._+- (100 at most, the first a letter or digit): {shortened(self.name)}")
        if not 1 <= len(self.labels) <= _MOST_LABELS or len(set(self.labels)) != len(self.labels):
            raise CodecError(f"labels must be 1 to {_MOST_LABELS} different names: {shortened(', '.join(self.labels))}")
        for label in self.labels:
            if not _LABEL.fullmatch(label):
                raise CodecError(f"a label must be 1 to 100 characters on one line, without space around it: {shortened(label)}")
        if len(self.thresholds) != len(self.labels) or not all(map(math.isfinite, self.thresholds)):
            raise CodecError(f"thresholds must be a finite number for each of {len(self.labels)} labels: {shortened(self.thresholds)}")

    def files(self) -> dict[str, str]:
        """The sha256 of the weights file by its name."""
        return {self.network.weights: self.network.sha256}

    def to_bytes(self) -> bytes:
        """The bytes of `classifier.json`: the same for equal specs."""
        return to_json_bytes(asdict(self), format_name=FORMAT, version=FORMAT_VERSION)


def read_spec(raw: bytes) -> ClassifierSpec:
    """The record in the bytes of a `classifier.json`; raises CodecError on anything that is not exactly one of version 1."""
    data = read_versioned(raw, CLASSIFIER_JSON, format_name=FORMAT, version=FORMAT_VERSION)
    refuse_unknown(data, set(ClassifierSpec.__dataclass_fields__), CLASSIFIER_JSON)
    missing = [name for name in ("name", "network", "labels", "thresholds", "recipe") if name not in data]
    if missing:
        raise CodecError(f"{CLASSIFIER_JSON} lacks fields: {', '.join(missing)}")
    spec = ClassifierSpec(
        **{name: typed(str, data[name], name) for name in ("name", "licence") if name in data},
        network=read_settings(NetworkSpec, data["network"], "network"),
        labels=typed(tuple[str, ...], data["labels"], "labels"),
        thresholds=typed(tuple[float, ...], data["thresholds"], "thresholds"),
        recipe=read_settings(PixelRecipe, data["recipe"], "recipe"),
        provenance=typed(dict, data.get("provenance", {}), "provenance"),
    )
    if not spec.network.sha256:
        raise CodecError(f"{CLASSIFIER_JSON} lacks the sha256 of its weights file: {spec.network.weights}")
    return spec
