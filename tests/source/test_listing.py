"""What each kind of source lists, and the one clear line for each that cannot be listed."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import SourceError
from engine.source.folder import Glob, walk
from engine.source.listing import Entry, list_source
from engine.source.place import Item, LocalPlace


def make_files(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"film")


def paths_of(source: str | Path) -> list[str]:
    return sorted(entry.path for entry in list_source(str(source)).entries)


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def test_folder_rows_are_all_files_but_hidden_tables_and_text(tmp_path: Path) -> None:
    make_files(tmp_path, "b.png", "a.dcm", "no_suffix", "sub/deep/c.jpg", "notes.pdf")
    make_files(tmp_path, ".hidden.png", ".cache/d.png", "sub/.x/e.png")
    make_files(
        tmp_path, *(f"t{at}{s}" for at, s in enumerate([".csv", ".TSV", ".parquet", ".json", ".yaml", ".yml", ".txt", ".md", ".xml"]))
    )
    listing = list_source(str(tmp_path))
    entries = sorted(listing.entries)
    assert [entry.path for entry in entries] == ["a.dcm", "b.png", "no_suffix", "notes.pdf", "sub/deep/c.jpg"]
    assert entries[-1].uri == f"{tmp_path}/sub/deep/c.jpg"
    assert (listing.kind, listing.root) == ("folder", f"{tmp_path}/")


def test_folder_may_itself_be_hidden_relative_or_bracketed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_files(tmp_path, ".store/films [2020]/a.png")
    monkeypatch.chdir(tmp_path)
    listing = list_source("./.store/films [2020]/")
    assert [entry.uri for entry in listing.entries] == [f"{tmp_path}/.store/films [2020]/a.png"]


def test_links_that_loop_end_and_each_real_folder_is_listed_once(tmp_path: Path) -> None:
    make_files(tmp_path, "in/a/1.png", "in/b/2.png", "out/3.png", "out/sub/4.png")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/b/self").symlink_to("self")
    (tmp_path / "in/a/twin").symlink_to(tmp_path / "in/b")
    (tmp_path / "in/z").symlink_to(tmp_path / "out")
    (tmp_path / "in/y").symlink_to(tmp_path / "out")
    (tmp_path / "in/film.png").symlink_to(tmp_path / "out/3.png")
    (tmp_path / "in/gone.png").symlink_to(tmp_path / "nowhere.png")
    # The link onto itself and the one that leads nowhere are rows, which fail when they are read.
    assert paths_of(tmp_path / "in") == ["a/1.png", "b/2.png", "b/self", "film.png", "gone.png", "y/3.png", "y/sub/4.png"]


def test_unreadable_subfolder_is_refused_rather_than_skipped() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as scratch:  # pytest's own folders are closed to the user that root becomes
        root = Path(scratch)
        make_files(root, "a.png", "locked/b.png")
        root.chmod(0o755)
        (root / "locked").chmod(0)
        try:
            if user == 0:
                os.seteuid(65534)  # root may read everything
            with pytest.raises(SourceError, match=r"folder cannot be read: permission denied: .*locked"):
                paths_of(root)
        finally:
            os.seteuid(user)
            (root / "locked").chmod(0o755)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("*/?.png", ["x/b.png", "y/c.png"]),
        ("x/*", ["b.png"]),
        ("[xz]/**/*.png", ["x/b.png", "x/deep/d.png"]),
        ("**", ["a.png", "x/b.png", "x/deep/d.png", "y/c.png"]),
        ("**/deep/*", ["x/deep/d.png"]),
    ],
)
def test_glob_is_relative_to_its_fixed_part(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    make_files(tmp_path, "a.png", "x/b.png", "x/deep/d.png", "y/c.png", "x/labels.csv", ".h/e.png")
    listing = list_source(f"{tmp_path}/{pattern}")
    assert sorted(entry.path for entry in listing.entries) == expected
    assert listing.kind == "glob"


def test_glob_does_not_enter_folders_that_cannot_match(tmp_path: Path) -> None:
    make_files(tmp_path, "x1/films/a.png", "x1/more/c.png", "other/films/b.png")
    entered: list[str] = []

    class Watched(LocalPlace):
        def items(self, folder: str) -> Iterator[Item]:
            entered.append(folder)
            return super().items(folder)

    assert list(walk(Watched(), str(tmp_path), glob=Glob("x*/films/*.png"))) == ["x1/films/a.png"]
    assert entered == [str(tmp_path), f"{tmp_path}/x1", f"{tmp_path}/x1/films"]


def test_one_file_is_one_row(tmp_path: Path) -> None:
    make_files(tmp_path, "only.png")
    assert list(list_source(f"{tmp_path}/only.png").entries) == [Entry("only.png", f"{tmp_path}/only.png")]


def test_manifest_paths_ids_and_labels(tmp_path: Path) -> None:
    text = "id,path,view,age\n1,./films/a.png,PA,\n2,/elsewhere/b.png,AP,70\n3,s3://bucket/c.png,,5\n4,file:///x%20y/d.png,PA,1\n"
    (tmp_path / "films.csv").write_text(text, encoding="utf-8-sig")
    listing = list_source(str(tmp_path / "films.csv"))
    assert (listing.kind, listing.has_ids, listing.label_names) == ("csv", True, ("view", "age"))
    assert list(listing.entries) == [
        Entry("films/a.png", f"{tmp_path}/films/a.png", "1", ("PA", None)),
        Entry("/elsewhere/b.png", "/elsewhere/b.png", "2", ("AP", "70")),
        Entry("s3://bucket/c.png", "s3://bucket/c.png", "3", (None, "5")),
        Entry("file:///x%20y/d.png", "/x y/d.png", "4", ("PA", "1")),
    ]


def test_parquet_manifest_reads_like_csv_and_carries_other_types_as_text(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png"], "id": [7, 8], "age": [None, 70], "boxes": [[1, 2], None], "late": [True, False]})
    pq.write_table(table, tmp_path / "films.parquet")
    entries = list(list_source(str(tmp_path / "films.parquet")).entries)
    assert entries[0] == Entry("a.png", f"{tmp_path}/a.png", "7", (None, "[1, 2]", "true"))
    assert entries[1] == Entry("b.png", f"{tmp_path}/b.png", "8", ("70", None, "false"))


def test_tsv_and_quoted_cells(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('path\tnote\n"a\tb.png"\t"two\nlines"\n\n')
    (entry,) = list_source(str(tmp_path / "t.tsv")).entries
    assert (entry.path, entry.labels) == ("a\tb.png", ("two\nlines",))


def test_object_store_folder_glob_manifest_and_file(memory: fsspec.AbstractFileSystem) -> None:
    for name in ("/films/a.png", "/films/s/b.png", "/films/.h/x.png", "/films/t.txt"):
        memory.pipe(name, b"film")
    memory.pipe("/films/m.csv", b"path,view\ns/b.png,PA\n")
    listing = list_source("memory://films")
    assert listing.root == "memory://films/"
    assert sorted(listing.entries) == [Entry("a.png", "memory://films/a.png"), Entry("s/b.png", "memory://films/s/b.png")]
    assert paths_of("memory://films/*/*.png") == ["s/b.png"]
    assert paths_of("memory://films/s/b.png") == ["b.png"]
    assert list(list_source("memory://films/m.csv").entries) == [Entry("s/b.png", "memory://films/s/b.png", None, ("PA",))]


def test_file_url_is_the_local_folder(tmp_path: Path) -> None:
    make_files(tmp_path, "my films/a.png")
    by_url, by_path = list_source((tmp_path / "my films").as_uri()), list_source(f"{tmp_path}/my films")
    assert (by_url.root, list(by_url.entries)) == (by_path.root, list(by_path.entries))


def test_phantoms(tmp_path: Path) -> None:
    entries = list(list_source("phantom:3?seed=5&size=64").entries)
    assert entries[2] == Entry("phantom-000002", "phantom:?seed=5&size=64&index=2")
    assert len(entries) == 3
    assert next(list_source("phantom:48").entries).uri == "phantom:?seed=0&size=1024&index=0"


@pytest.mark.parametrize(
    "source",
    ["phantom:", "phantom:0", "phantom:-1", "phantom:x", "phantom:3?seed=-1", "phantom:3?size=4", "phantom:3?colour=1", "phantom:3?seed"],
)
def test_bad_phantoms(source: str) -> None:
    with pytest.raises(SourceError, match=f"phantoms .*: {source.replace('?', '[?]')}$"):
        list_source(source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"", "no column `path`; it has none"),
        ("m.csv", b"Path,view\na.png,PA\n", "no column `path`; it has Path, view"),
        ("m.csv", b"path,view,view\n", "two columns of one name, view"),
        ("m.csv", b"path,view\na.png,PA\nb.png\n", "1 cells instead of 2 in line 3"),
        ("m.csv", b"path,view\na.png,PA\n,AP\n", "empty `path` in its row 2"),
        ("m.csv", b"path\na\0.png\n", "NUL character in its row 1"),
        ("m.csv", b"path\n\xff\xfe.png\n", "not UTF-8 text"),
        ("m.csv", b'path\n"open quote\n', "not a readable table in line 2"),
        ("m.parquet", b"PAR1 this is no parquet file", "not a readable Parquet file"),
        ("notes.txt", b"a.png\n", "neither a film nor a manifest"),
    ],
)
def test_bad_manifests(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message) as caught:
        list(list_source(str(tmp_path / name)).entries)
    assert str(caught.value).endswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["", "nowhere", "nowhere/*.png", "nowhere.csv", "memory://nowhere", "a\0b"])
def test_what_is_not_there(source: str) -> None:
    with pytest.raises(SourceError, match=r"does not exist|is not a path"):
        list_source(source)


def test_urls_that_cannot_be_used() -> None:
    fsspec.register_implementation("nodriver", "no_such_package.Fs", errtxt="install no_such_package", clobber=True)
    with pytest.raises(SourceError, match=r"driver for nodriver:// is not installed; .*: nodriver://b/x$"):
        list_source("nodriver://b/x")
    with pytest.raises(SourceError, match="no fsspec driver knows"):
        list_source("nosuchscheme://b/x")
    with pytest.raises(SourceError, match="chained URLs"):
        list_source("zip://*.png::memory://a.zip")


def test_missing_s3_driver_names_the_extra() -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(SourceError, match=r"pip install 'latentray\[s3\]': s3://bucket/films$"):
            list_source("s3://bucket/films")
    else:
        pytest.skip("the s3 driver is installed here")
