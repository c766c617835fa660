"""The same nearest codes by FAISS, an extra: for asking about thousands of codes at once, which it does on all cores."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.errors import ConfigError
from engine.latents.codes import Codes, Rows, Values
from engine.latents.neighbours import Nearest, check_count, unit


def nearest_by_faiss(codes: Codes, values: Values, count: int, *, leave_out: Rows | None = None) -> Nearest:
    """As `neighbours.nearest`, and exact like it (`IndexFlatIP` of codes of length 1); cosines may differ in their last digits.

    Raises ConfigError where FAISS is not installed, and for more than there are.
    """
    check_count(codes, count, leave_out)
    index = _index(codes.space.size)
    index.add(unit(codes.values))
    wanted = count + (leave_out is not None)
    cosine, places = index.search(unit(values), wanted)
    if leave_out is not None:
        kept = np.argsort(places == leave_out[:, None], axis=1, kind="stable")[:, :count]  # the one left out comes last, if it is there
        cosine, places = np.take_along_axis(cosine, kept, axis=1), np.take_along_axis(places, kept, axis=1)
    return Nearest(places=places, cosine=cosine)


def _index(size: int) -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise ConfigError("faiss is not installed; pip install 'latentray[faiss]', or leave out --faiss") from None
    return faiss.IndexFlatIP(size)
