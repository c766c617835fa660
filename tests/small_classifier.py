"""A classifier, tiny and with random weights, for tests of what is made of its logits."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from engine.classify.classifier import save_classifier
from engine.classify.classifier_spec import ClassifierSpec
from engine.encode.codec_spec import NetworkSpec
from engine.networks.densenet import DenseNetClassifier, DenseNetSettings
from engine.recipe import PixelRecipe

LABELS = ("effusion", "mass")
STEEP = 30.0  # times as steep as random weights are, so that films differ in their logits


def write_classifier(folder: Path, labels: tuple[str, ...] = LABELS, *, seed: int = 1) -> Path:
    """Writes a classifier of `labels` at 16x16, whose logits are about 0 for noise, and so are its thresholds."""
    settings = DenseNetSettings(blocks=(1, 1), growth=4, stem=4, bottleneck=2, classes=len(labels))
    torch.manual_seed(seed)
    network = DenseNetClassifier(settings)
    for _ in range(3):
        network(torch.rand(8, 1, 16, 16))  # running statistics of their own
    films = torch.rand(64, 1, 16, 16) * 2 - 1
    with torch.no_grad():
        network.eval().classifier.weight.mul_(STEEP)
        network.classifier.bias.sub_(network(films).mean(dim=0))
    spec = ClassifierSpec(
        name="tiny",
        network=NetworkSpec(network="densenet", settings=json.loads(json.dumps(asdict(settings))), weights="classifier.safetensors"),
        labels=labels,
        thresholds=(0.0,) * len(labels),
        recipe=PixelRecipe(resolution=16),
    )
    save_classifier(folder, spec, weights=network.state_dict())
    return folder
