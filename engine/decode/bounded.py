"""A file in memory that can be read from only so often: a header that sends its reader in circles, or on for ever, comes to an end."""

from __future__ import annotations

import io

from engine.errors import DecodeError

# A directory or element takes its reader 1 to 4 reads. Enhanced films of a thousand frames need 200,000; a million takes 2 seconds.
_MOST_READS = 1_000_000


class BoundedFile(io.BytesIO):
    """Bytes as a file. The read after the last one that is allowed raises DecodeError, and so does each after that."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As a file's `read`; raises DecodeError once there have been too many."""
        self._left -= 1
        if self._left < 0:
            raise DecodeError("header goes on for ever, or in circles")
        return super().read(size)
