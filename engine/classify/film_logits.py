"""What classifiers say of the films of a plan: logits, film by film, each film read once for all classifiers that see it alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from engine.classify.classifier import Classifier
from engine.classify.roc import Array
from engine.config import DecodeConfig
from engine.decode.choose import build_decoder
from engine.recipe import PixelRecipe
from engine.records import PixelBatch
from engine.source.opening import read_bytes
from engine.source.plan import Plan

_BATCH = 32


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmLogits:
    """`logits` by classifier [films, its labels] float32, of the films `ids`, in the plan's order. `unread`: films that gave none."""

    ids: Sequence[str]
    logits: Mapping[str, Array]
    unread: int


def film_logits(plan: Plan, classifiers: Mapping[str, Classifier], *, limits: DecodeConfig | None = None) -> FilmLogits:
    """Every film of the plan as each classifier sees it, by the recipe that it was trained with.

    Films are decoded once for each recipe, so once where the classifiers have one in common. A film that cannot be read is left out, for
    all of them. Memory is that of a batch, and of the logits. `classifiers` must be one or more.
    """
    found: dict[str, dict[str, Array]] = {name: {} for name in classifiers}
    for recipe in dict.fromkeys(classifier.recipe for classifier in classifiers.values()):
        alike = {name: classifier for name, classifier in classifiers.items() if classifier.recipe == recipe}
        for batch in _batches(plan, recipe, limits or DecodeConfig()):
            for name, logits in _judged(batch, alike).items():
                found[name] |= logits
    first, *others = found.values()
    ids = [each for each in first if all(each in other for other in others)]
    return FilmLogits(
        ids=ids,
        logits={
            name: np.array([of[each] for each in ids], np.float32).reshape(len(ids), len(classifiers[name].labels))
            for name, of in found.items()
        },
        unread=plan.num_rows - len(ids),
    )


def _batches(plan: Plan, recipe: PixelRecipe, limits: DecodeConfig) -> Iterator[PixelBatch]:
    decoder = build_decoder(recipe, limits, read=partial(read_bytes, max_bytes=limits.max_bytes), batch_size=_BATCH, film_size=None)
    try:
        for shard in plan.shards():
            yield from (batch for batch in decoder.batches(shard.refs) if batch.refs)
    finally:
        decoder.close()


@torch.inference_mode()
def _judged(batch: PixelBatch, classifiers: Mapping[str, Classifier]) -> dict[str, dict[str, Array]]:
    """The logits [labels] of each film, by classifier and id."""
    ids = [ref.sample_id for ref in batch.refs]
    return {name: dict(zip(ids, each.logits(batch.pixels).cpu().numpy(), strict=True)) for name, each in classifiers.items()}
