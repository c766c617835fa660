"""The sample id of each film: by stem, by relative path or from the manifest, checked, and hashed where asked."""

from __future__ import annotations

import hmac
import posixpath
import re
from collections.abc import Callable
from typing import Literal, cast

from engine.errors import SourceError
from engine.source.listing import Entry, Listing
from engine.source.place import escape_undecodable

IdFrom = Literal["stem", "relpath", "column"]
MAX_ID_BYTES = 255  # what a file system takes as a name
_HASH_DIGITS = 32
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def choose_id_from(listing: Listing, id_from: str | None) -> IdFrom:
    """What ids are made of; None takes the manifest's column `id` where it has one, and the stem elsewhere. Raises SourceError."""
    if id_from is None:
        return "column" if listing.has_ids else "stem"
    if id_from not in ("stem", "relpath", "column"):
        raise SourceError(f"--id must be one of stem, relpath, column: {id_from}")
    if id_from == "column" and not listing.has_ids:
        raise SourceError(f"--id column needs a manifest with a column `id`; the source is of another kind: {listing.kind}")
    return cast(IdFrom, id_from)


def id_maker(listing: Listing, id_from: IdFrom) -> Callable[[Entry], str]:
    """The function from an entry to its sample id, which raises SourceError for an id that could not be a file's name later."""

    def stem(entry: Entry) -> str:
        return posixpath.splitext(entry.path.rpartition("/")[2])[0]

    def relpath(entry: Entry) -> str:
        return entry.path.removeprefix(listing.root)

    def column(entry: Entry) -> str:
        return entry.given_id or ""

    make = {"stem": stem, "relpath": relpath, "column": column}[id_from]
    return lambda entry: _checked(escape_undecodable(make(entry)), entry)


def hash_id(sample_id: str, key: bytes) -> str:
    """HMAC-SHA256 of an id under `key`, its first 32 hex digits: the same id for whoever has the key, meaningless to others."""
    return hmac.digest(key, sample_id.encode(), "sha256").hex()[:_HASH_DIGITS]


def _checked(sample_id: str, entry: Entry) -> str:
    if not sample_id:
        raise SourceError(f"sample id is empty; fill the manifest's column `id` or choose another --id: {escape_undecodable(entry.path)!r}")
    if _CONTROL.search(sample_id):
        raise SourceError(f"sample id has control characters; rename the film: {sample_id!r}")
    if len(sample_id) * 4 > MAX_ID_BYTES and len(sample_id.encode()) > MAX_ID_BYTES:
        raise SourceError(f"sample id is longer than {MAX_ID_BYTES} bytes; choose another --id: {sample_id}")
    return sample_id
