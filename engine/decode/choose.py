"""Which decoder a run uses: DALI where it imports and a GPU is there, else the thread pool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch

from engine.config import DecodeConfig
from engine.decode.cpu import PoolDecoder
from engine.errors import ConfigError
from engine.recipe import PixelRecipe
from engine.records import ImageRef, PixelBatch


class Decoder(Protocol):
    """From refs to pixels. Every ref ends in one batch: among its `refs`, or among its `failures`."""

    name: str

    def batches(self, refs: Sequence[ImageRef]) -> Iterator[PixelBatch]:
        """Batches of consecutive stretches of the plan, in order; N is smaller where films fail, and may be 0."""
        ...

    def close(self) -> None:
        """Frees threads and pipelines."""
        ...


def build_decoder(
    recipe: PixelRecipe, cfg: DecodeConfig, *, read: Callable[[str], bytes], batch_size: int, film_size: int | None
) -> Decoder:
    """The decoder that `cfg.decoder` asks for, "auto" choosing the quicker one.

    `read` returns the bytes of a uri or raises ReadError; it is called from several threads. `film_size` None leaves `films` out.
    Raises ConfigError where DALI is asked for and cannot be imported.
    """
    on_gpu = torch.cuda.is_available()
    if cfg.decoder == "cpu" or (cfg.decoder == "auto" and not (on_gpu and _dali_imports())):
        return PoolDecoder(recipe, cfg, read=read, batch_size=batch_size, film_size=film_size)
    from engine.decode.dali import DaliDecoder

    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else None
    return DaliDecoder(recipe, cfg, read=read, batch_size=batch_size, film_size=film_size, device=device)


def _dali_imports() -> bool:
    from engine.decode.dali import import_dali

    try:
        import_dali()
    except ConfigError:
        return False
    return True
