"""The plan: order, ids, shards and digests, what changes them and what does not, and that memory does not grow with the films."""

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import ArchiveError, ConfigError, SourceError
from engine.records import ImageRef
from engine.source.opening import read_bytes
from engine.source.plan import Plan, make_plan, open_plan
from engine.source.plan_file import group_rows

NAME_BYTES = st.binary(min_size=1, max_size=12).filter(lambda name: not set(name) & {0, ord("/")} and not name.startswith(b"."))


def make_films(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"film")
    return root


def refs_of(plan: Plan) -> list[ImageRef]:
    return [ref for shard in plan.shards() for ref in shard.refs]


def ids_of(plan: Plan) -> list[str]:
    return [ref.sample_id for ref in refs_of(plan)]


def write_manifest(path: Path, num_rows: int) -> Path:
    """Paths in no order, three labels."""
    with path.open("w") as file:
        file.write("path,view,age,finding\n")
        for at in range(num_rows):
            film = at * 7919 % num_rows  # 7919 is prime: each film once
            file.write(f"p{film % 100:03d}/film_{film:09d}.png,{'PA' if film % 2 else 'AP'},{20 + film % 70},normal\n")
    return path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return make_films(tmp_path / "films", *(f"p{at % 3}/film{at:02d}.png" for at in range(10)))


@pytest.fixture(scope="module")
def large_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("large") / "m.csv", 140_000)


def test_a_small_plan(films: Path, tmp_path: Path) -> None:
    plan = make_plan(str(films), tmp_path / "p.plan.parquet", shard_rows=4)
    assert (plan.num_rows, plan.shard_rows, plan.num_shards) == (10, 4, 3)
    shards = list(plan.shards())
    assert [shard.index for shard in shards] == [0, 1, 2]
    assert [len(shard.refs) for shard in shards] == [4, 4, 2]
    expected = sorted(str(path) for path in films.rglob("*.png"))
    assert refs_of(plan) == [ImageRef(row, Path(uri).stem, uri) for row, uri in enumerate(expected)]
    assert plan == open_plan(tmp_path / "p.plan.parquet")
    assert plan.file_sha256 == hashlib.sha256((tmp_path / "p.plan.parquet").read_bytes()).hexdigest()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "p.plan.parquet"]


def test_digests_are_what_the_readme_says(films: Path, tmp_path: Path) -> None:
    plan = make_plan(str(films), tmp_path / "p.parquet", shard_rows=4)
    whole = hashlib.sha256(b"latentray plan 1\n10 rows\n4 rows a shard\n")
    for shard in plan.shards():
        rows = "".join(f"{ref.sample_id}\0{os.path.relpath(ref.uri, films)}\0" for ref in shard.refs)
        assert shard.digest == hashlib.sha256(rows.encode()).hexdigest()
        whole.update(f"{shard.digest}\n".encode())
    assert plan.digest == whole.hexdigest()


@settings(max_examples=60, deadline=None)
@given(names=st.sets(NAME_BYTES, min_size=1, max_size=12))
def test_any_file_name_is_ordered_bytewise_and_found_again(names: set[bytes]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = os.fsencode(scratch) + b"/films"
        os.mkdir(root)
        for name in names:
            with open(root + b"/" + name, "wb") as file:
                file.write(b"film of " + name)
        decoded = [os.fsdecode(name) for name in sorted(names)]
        if any(re.search("[\x00-\x1f\x7f-\x9f]", name) for name in decoded):
            with pytest.raises(SourceError, match="control characters"):
                make_plan(os.fsdecode(root), Path(scratch, "p.parquet"), shard_rows=5, id_from="relpath")
            return
        plan = make_plan(os.fsdecode(root), Path(scratch, "p.parquet"), shard_rows=5, id_from="relpath")
        assert [read_bytes(ref.uri, max_bytes=100) for ref in refs_of(plan)] == [b"film of " + name for name in sorted(names)]


@settings(max_examples=60, deadline=None)
@given(paths=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20), min_size=1, max_size=20))
def test_any_manifest_path_is_ordered_bytewise(paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pq.write_table(pa.table({"path": paths, "id": [str(at) for at in range(len(paths))]}), f"{scratch}/m.parquet")
        plan = make_plan(f"{scratch}/m.parquet", Path(scratch, "p.parquet"), shard_rows=7)
        written = [re.sub("^([.]/+)+", "", paths[int(sample_id)]).encode() for sample_id in ids_of(plan)]
        assert written == sorted(written)
        assert sorted(ids_of(plan), key=int) == [str(at) for at in range(len(paths))]


def test_undecodable_names_have_ids_and_digests(tmp_path: Path) -> None:
    for root in (tmp_path / "one", tmp_path / "two"):
        root.mkdir()
        Path(os.fsdecode(os.fsencode(root) + b"/film\xff.png")).write_bytes(b"film")
    one, two = (make_plan(str(tmp_path / name), tmp_path / f"{name}.parquet", shard_rows=4) for name in ("one", "two"))
    assert ids_of(one) == ["film%FF"]
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("id_from", "expected"), [(None, ["7", "8"]), ("column", ["7", "8"]), ("stem", ["a", "b"]), ("relpath", ["x/a.png", "y/b.png"])]
)
def test_where_ids_come_from(tmp_path: Path, id_from: str | None, expected: list[str]) -> None:
    (tmp_path / "m.csv").write_text(f"path,id\n{tmp_path}/x/a.png,7\n{tmp_path}/y/b.png,8\n")
    assert ids_of(make_plan(str(tmp_path / "m.csv"), tmp_path / "p.parquet", shard_rows=4, id_from=id_from)) == expected


def test_hashed_ids_depend_on_the_key_alone(films: Path, tmp_path: Path) -> None:
    plain = make_plan(str(films), tmp_path / "p.parquet", shard_rows=4)
    one, same, other = (ids_of(make_plan(str(films), tmp_path / "h.parquet", shard_rows=4, hash_key=key)) for key in (b"k", b"k", b"other"))
    assert one == same
    assert not set(one) & set(other)
    assert all(re.fullmatch("[0-9a-f]{32}", sample_id) for sample_id in one)
    assert not set(one) & set(ids_of(plain))


def test_limit_keeps_the_first_rows(films: Path, tmp_path: Path) -> None:
    whole = make_plan(str(films), tmp_path / "p.parquet", shard_rows=4)
    some = make_plan(str(films), tmp_path / "q.parquet", shard_rows=4, limit=5)
    assert refs_of(some) == refs_of(whole)[:5]
    assert make_plan(str(films), tmp_path / "r.parquet", shard_rows=4, limit=500).digest == whole.digest


def test_shard_rows_may_be_chosen_from_the_number_of_films(films: Path, tmp_path: Path) -> None:
    assert make_plan(str(films), tmp_path / "p.parquet", shard_rows=lambda films: films // 2).num_shards == 2


def test_moving_the_films_keeps_the_digest_and_changing_them_does_not(films: Path, tmp_path: Path) -> None:
    def digest(root: Path, shard_rows: int = 4) -> str:
        return make_plan(str(root), tmp_path / "p.parquet", shard_rows=shard_rows).digest

    before = digest(films)
    moved = tmp_path / "elsewhere" / "films"
    shutil.copytree(films, moved)
    assert digest(moved) == before
    assert digest(moved, shard_rows=5) != before
    (moved / "p0/film00.png").rename(moved / "p0/film0.png")
    assert digest(moved) != before
    (moved / "p0/film0.png").rename(moved / "p0/film00.png")
    assert digest(moved) == before
    (moved / "p2/film99.png").write_bytes(b"film")
    assert digest(moved) != before


def test_same_films_same_digest_by_folder_glob_and_manifest(films: Path, tmp_path: Path) -> None:
    paths = sorted((str(path.relative_to(films)) for path in films.rglob("*.png")), reverse=True)
    (films / "m.csv").write_text("path,view\n" + "".join(f"{path},PA\n" for path in paths))
    pq.write_table(pa.table({"path": paths}), films / "m.parquet")
    sources = [films, f"{films}/**/*.png", films / "m.csv", films / "m.parquet", films.as_uri()]
    assert len({make_plan(str(source), tmp_path / "p.parquet", shard_rows=4).digest for source in sources}) == 1


def test_labels_stay_beside_their_films_and_out_of_the_digest(tmp_path: Path) -> None:
    def plan_with(view: str) -> Plan:
        (tmp_path / "m.csv").write_text(f"path,view,row\nb.png,{view},2\na.png,,1\n")
        return make_plan(str(tmp_path / "m.csv"), tmp_path / "p.parquet", shard_rows=4)

    digest = plan_with("PA").digest
    plan = plan_with("AP")
    assert plan.digest == digest
    assert plan.label_names == ("view", "row")
    assert plan.labels("view").to_pylist() == [None, "AP"]
    assert plan.table(["label:row", "sample_id", "row"]).to_pydict() == {"label:row": ["1", "2"], "sample_id": ["a", "b"], "row": [0, 1]}
    assert plan.table().column_names == ["row", "sample_id", "uri", "shard", "label:view", "label:row"]
    with pytest.raises(SourceError, match="labels are view, row: sex"):
        plan.labels("sex")


@pytest.mark.parametrize("shard_rows", [40_000, 70_000, 1_000])
def test_streamed_shards_equal_one_pass(large_manifest: Path, tmp_path: Path, shard_rows: int) -> None:
    plan = make_plan(str(large_manifest), tmp_path / "p.parquet", shard_rows=shard_rows)
    sizes = [pq.ParquetFile(plan.path).metadata.row_group(at).num_rows for at in range(3 if shard_rows != 1_000 else 2)]
    assert sizes[0] == group_rows(shard_rows) <= 65_536
    shards = list(plan.shards())
    assert [ref.row for shard in shards for ref in shard.refs] == list(range(140_000))
    uris = [ref.uri for shard in shards for ref in shard.refs]
    assert uris == sorted(uris) == plan.table(["uri"]).column(0).to_pylist()
    last = plan.num_shards - 1
    assert [shard for index in range(0, plan.num_shards, 9) for shard in plan.shards([index])] == shards[::9]
    assert list(plan.shards([last, 0, last])) == [shards[0], shards[last]]
    assert list(plan.shards([])) == []
    with pytest.raises(IndexError, match=f"plan has {last + 1} shards"):
        plan.shards([last + 1])


def test_only_needed_row_groups_are_read_and_damage_is_seen(large_manifest: Path, tmp_path: Path) -> None:
    plan = make_plan(str(large_manifest), tmp_path / "p.parquet", shard_rows=1_000)
    uris = pq.ParquetFile(plan.path).metadata.row_group(0).column(2)
    data = bytearray(plan.path.read_bytes())
    data[uris.data_page_offset + uris.total_compressed_size // 2] ^= 1
    plan.path.write_bytes(data)
    assert next(plan.shards([plan.num_shards - 1])).refs[-1].row == 139_999
    with pytest.raises(ArchiveError, match="plan is damaged; delete it"):
        next(plan.shards([0]))


def test_equal_ids_are_named(tmp_path: Path) -> None:
    make_films(tmp_path / "films", *(f"p{at}/film{at // 2}.png" for at in range(14)))
    with pytest.raises(SourceError, match=r"not unique, film0 \(2 times\), .*film4 \(2 times\) and more; use --id relpath: /"):
        make_plan(str(tmp_path / "films"), tmp_path / "p.parquet", shard_rows=4)
    assert make_plan(str(tmp_path / "films"), tmp_path / "p.parquet", shard_rows=4, id_from="relpath").num_rows == 14
    (tmp_path / "m.csv").write_text("path\na.png\na.png\n")
    with pytest.raises(SourceError, match=r"a\.png \(2 times\); list each film once"):
        make_plan(str(tmp_path / "m.csv"), tmp_path / "p.parquet", shard_rows=4, id_from="relpath")


@pytest.mark.parametrize(
    ("rows", "id_from", "message"),
    [
        ("a.png,\n", None, "sample id is empty"),
        ('a.png,"x\ty"\n', None, r"control characters.*'x\\ty'"),
        (f"a.png,{'é' * 128}\n", None, "longer than 255 bytes"),
        ("a.png,1\n", "name", "--id must be one of stem, relpath, column: name"),
        ("", None, "source has no films"),
    ],
)
def test_bad_ids_and_empty_manifests(tmp_path: Path, rows: str, id_from: str | None, message: str) -> None:
    (tmp_path / "m.csv").write_text("path,id\n" + rows)
    with pytest.raises(SourceError, match=message) as caught:
        make_plan(str(tmp_path / "m.csv"), tmp_path / "p.parquet", shard_rows=4, id_from=id_from)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.csv"]


def test_other_requests_that_make_no_sense(films: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/labels.csv").write_text("path\n")
    target = tmp_path / "p.parquet"
    with pytest.raises(SourceError, match=r"source has no films: .*empty"):
        make_plan(str(tmp_path / "empty"), target, shard_rows=4)
    with pytest.raises(SourceError, match=r"needs a manifest with a column `id`.*: folder"):
        make_plan(str(films), target, shard_rows=4, id_from="column")
    with pytest.raises(ConfigError, match="shard-rows must be 1 or more: 0"):
        make_plan(str(films), target, shard_rows=0)
    with pytest.raises(ConfigError, match="limit must be 1 or more: 0"):
        make_plan(str(films), target, shard_rows=4, limit=0)
    with pytest.raises(ConfigError, match="key that hashes ids"):
        make_plan(str(films), target, shard_rows=4, hash_key=b"")
    assert not target.exists()


def test_plans_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="plan is missing"):
        open_plan(tmp_path / "gone.parquet")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ArchiveError, match="plan is damaged"):
        open_plan(tmp_path / "cut.parquet")
    pq.write_table(pa.table({"row": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ArchiveError, match="is not a plan"):
        open_plan(tmp_path / "other.parquet")
    pq.write_table(
        pa.table({"row": [1]}).replace_schema_metadata({"latentray.plan": '{"version": 99, "digest": ""}'}), tmp_path / "new.parquet"
    )
    with pytest.raises(ArchiveError, match="version that is unknown here, 99"):
        open_plan(tmp_path / "new.parquet")


def test_a_disk_that_fills_up_leaves_the_old_plan(large_manifest: Path, films: Path, tmp_path: Path) -> None:
    target = tmp_path / "plans" / "p.parquet"
    old = make_plan(str(films), target, shard_rows=4)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(ArchiveError, match="plan cannot be written: file too large: /"):
            make_plan(str(large_manifest), target, shard_rows=1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert open_plan(target) == old
    assert [path.name for path in target.parent.iterdir()] == ["p.parquet"]


# VmHWM and not getrusage's ru_maxrss, which a child inherits: that is at least what this process held when it forked.
CHILD = """
import re, sys, time
from pathlib import Path
from engine.source.plan import make_plan
start = time.perf_counter()
plan = make_plan(sys.argv[1], Path(sys.argv[2]), shard_rows=512)
seconds = time.perf_counter() - start
rows = sum(len(shard.refs) for shard in plan.shards())
print(rows, seconds, int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20)
"""


@pytest.mark.slow
def test_a_million_rows_stay_under_two_gibibytes(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "m.csv", 1_000_000)
    command = [sys.executable, "-c", CHILD, str(manifest), str(tmp_path / "p.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    rows, _, gibibytes = done.stdout.split()
    assert int(rows) == 1_000_000
    assert float(gibibytes) < 2
