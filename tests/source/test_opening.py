"""Bytes come back as they are, and each way a film can be unreadable is one reason that names no path."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from engine.errors import ReadError
from engine.source.opening import read_bytes
from engine.source.place import local_path, local_uri

LIMIT = 1000


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def reason_of(uri: str | Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_bytes(str(uri), max_bytes=LIMIT)
    assert str(uri) not in caught.value.reason
    return caught.value.reason


def test_reads_what_is_there_up_to_the_limit(tmp_path: Path, memory: fsspec.AbstractFileSystem) -> None:
    data = bytes(range(250)) * 4
    (tmp_path / "a b.png").write_bytes(data)
    memory.pipe("/films/a.png", data)
    assert read_bytes(str(tmp_path / "a b.png"), max_bytes=LIMIT) == data
    assert read_bytes((tmp_path / "a b.png").as_uri(), max_bytes=LIMIT) == data
    assert read_bytes("memory://films/a.png", max_bytes=LIMIT) == data


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/film\xff%41.png")
    Path(path).write_bytes(b"film")
    uri = local_uri(path)
    uri.encode()  # can be stored as text
    assert local_path(uri) == path
    assert read_bytes(uri, max_bytes=LIMIT) == b"film"


def test_local_reasons(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "large.png").write_bytes(bytes(LIMIT + 1))
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert reason_of(tmp_path / "gone.png") == "file vanished"
    assert reason_of(tmp_path / "empty.png" / "below.png") == "file vanished"
    assert reason_of(tmp_path / "empty.png") == "file is empty"
    assert reason_of(tmp_path / "large.png") == "file is larger than the limit: 1001 > 1000 bytes"
    assert reason_of(tmp_path) == "is a folder, not a file"
    assert reason_of(tmp_path / "pipe.png") == "is not a regular file"
    assert reason_of(tmp_path / "loop.png") == "cannot be read: too many levels of symbolic links"
    assert reason_of(tmp_path / ("x" * 300)) == "cannot be read: file name too long"
    assert reason_of(f"{tmp_path}/a\0b") == "cannot be read: its name is not valid"


def test_permission_denied(tmp_path: Path) -> None:
    locked = tmp_path / "locked.png"
    locked.write_bytes(b"film")
    locked.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        assert reason_of(locked) == "cannot be read: permission denied"
    finally:
        os.seteuid(user)


def test_remote_reasons(memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe("/films/empty.png", b"")
    memory.pipe("/films/large.png", bytes(LIMIT + 1))
    assert reason_of("memory://films/gone.png") == "file vanished"
    assert reason_of("memory://films/empty.png") == "file is empty"
    assert reason_of("memory://films/large.png") == "file is larger than the limit: 1001 > 1000 bytes"
    assert reason_of("nosuchscheme://films/a.png") == "cannot be read: no driver for nosuchscheme://"


@pytest.mark.parametrize("uri", ["/data/DOE_JOHN_1950.zip::zip://a.png", "patients/DOE^JOHN://x.png", "DOE JOHN://x.png"])
def test_what_is_no_protocol_is_not_quoted(uri: str) -> None:
    assert reason_of(uri) == "cannot be read: no driver for this kind of URL"


def test_phantoms() -> None:
    uri = "phantom:?seed=3&size=64&index=17"
    data = read_bytes(uri, max_bytes=100_000)
    assert data.startswith(b"\x89PNG")
    assert data == read_bytes(uri, max_bytes=100_000)
    assert data != read_bytes("phantom:?seed=3&size=64&index=18", max_bytes=100_000)
    assert reason_of("phantom:?seed=3&size=64") == "is not a phantom that can be drawn"
    assert reason_of("phantom:?seed=x&size=64&index=0") == "is not a phantom that can be drawn"
    assert reason_of(uri).startswith("file is larger than the limit")
