"""Which films a run is asked to train on, and the feed that comes of it: packed by the first process, opened by all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.config import DecodeConfig
from engine.errors import ConfigError, SourceError
from engine.recipe import PixelRecipe
from trainers.boxes import TRUTH, read_box_file, read_boxes
from trainers.film_feed import FilmFeed
from trainers.labels import check_classes, read_labels
from trainers.packing import pack_films
from trainers.presets.films import SplitConfig, augment_preset
from trainers.ranks import Ranks
from trainers.split import split_films


@dataclass(frozen=True, kw_only=True)
class FilmsRequest:
    """`source` as `encode` takes it; at most `limit` films of it. `augment`: a preset by name."""

    source: str
    limit: int | None = None
    split: SplitConfig = field(default_factory=SplitConfig)
    augment: str = "none"
    max_failed_fraction: float = 0.05
    decode: DecodeConfig = field(default_factory=DecodeConfig)


def build_feed(
    request: FilmsRequest,
    folder: Path,
    recipe: PixelRecipe,
    *,
    seed: int,
    replace: bool,
    ranks: Ranks,
    labels: Sequence[str] = (),
    alternate: str = "",
    boxes: str = "",
) -> FilmFeed:
    """Packs the films into `folder` where they are not there yet, divides them by patient, and says on stderr how.

    The first process packs while the others wait; then each opens the pack. `replace`: a pack of other films gives way. `labels` and
    `alternate`: as `Task` has them; `boxes`: as `WantsBoxes` has them, "" for none. Raises as `pack_films`, `split_films`, `read_labels`,
    `check_classes` and `read_boxes`, and ConfigError for variations that boxes cannot follow.
    """
    augment = augment_preset(request.augment)
    if boxes and (augment.rotation or augment.scale or augment.shift):
        raise ConfigError(f"boxes follow mirror images alone, so --augment must be none or mirror: {request.augment}")

    if boxes not in ("", TRUTH):
        read_box_file(Path(boxes))  # refused before the films are packed, which may take hours

    def pack() -> FilmFeed:
        packed = pack_films(
            request.source,
            folder,
            recipe,
            limit=request.limit,
            decode=request.decode,
            max_failed_fraction=request.max_failed_fraction,
            replace=replace and ranks.is_first,
        )
        found = read_labels(packed, labels) if labels else None
        split = split_films(packed, request.split, None if found is None else found.values)
        if found is not None:
            check_classes(found, split)
        marked = read_boxes(packed, boxes) if boxes else None
        if marked is not None and not marked.count(split.train)["boxes"]:
            raise SourceError(f"boxes cannot be learned, there is not one on the films that train: {len(split.train)}")
        if ranks.is_first:
            print(split.sentence(), file=sys.stderr)
        return FilmFeed(packed, split, seed=seed, augment=augment, labels=found, alternate=alternate, boxes=marked)

    feed = pack() if ranks.is_first else None
    ranks.wait()
    return feed or pack()
