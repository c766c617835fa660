"""Mends an archive as far as it can: from a copy, from what the root document says, and by making damaged shards pending again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.archive.cleaning import clean_uncommitted
from engine.archive.commits import CommitLog, describe_object, receipt_or_none
from engine.archive.merged_plan import plan_kind
from engine.archive.problem import Problem
from engine.archive.root import COMMIT, ROOT_KEY, AnyPath, Root, canonical_json, examine, plan_beside, plan_name, sealed, sha256
from engine.archive.store import open_store
from engine.archive.verify import verify_archive
from engine.errors import ArchiveError

MADE = "made"  # a part of the fingerprint of codes that no film gave
NO_FILMS = ("codes", "merged")  # kinds of plans that no `encode` follows


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What was done, or with `dry_run` would be.

    `restored`: keys of objects put back as they were; `requeued`: shards that are pending again, for the same `encode` to do; `plan`:
    whether the damaged plan was removed, which that `encode` writes anew; `left`: what nothing here can mend.
    """

    restored: tuple[str, ...]
    requeued: tuple[int, ...]
    plan: bool
    left: tuple[Problem, ...]


def repair_archive(path: AnyPath, *, copy: AnyPath | None = None, level: int = 3, dry_run: bool = False) -> Repaired:
    """Looks as `verify` does at `level`, and mends. Refuses while a run is writing, where the archive's place knows locks.

    Objects of which the right sha256 is known are taken from `copy`, an archive of the same run, where that has them whole; arrays'
    metadata from the root. A shard that stays damaged loses its record and objects, and no other is touched. Raises ArchiveError for a
    damaged root that no copy mends, for a copy of another run, and where shards would be lost for good: no film could fill them again.
    """
    if not open_store(path).has_any(""):
        raise ArchiveError(f"there is no archive: {path}")
    with open_store(path).held():
        return _repaired(path, copy, level, dry_run)


def _repaired(path: AnyPath, copy: AnyPath | None, level: int, dry_run: bool) -> Repaired:
    root, restored = _root(path, copy, dry_run)
    problems = [problem for problem in verify_archive(path, level=level) if not problem.is_note] if root else []
    if root is None:  # only a dry run comes here: what lies below the root is not known before it is back
        return Repaired(restored=tuple(restored), requeued=(), plan=False, left=())
    mended = _from_elsewhere(root, problems, _twin(root, copy), dry_run)
    back = {shard for key in mended if key.startswith(f"{COMMIT}/") and (shard := _shard_of(root, key)) is not None}
    rest = [problem for problem in problems if problem.object not in mended and _shard_of(root, problem.object) not in back]
    shards = sorted({shard for problem in rest if (shard := _shard_of(root, problem.object)) is not None})
    _refuse_loss(root, shards)
    has_plan = any(problem.object == plan_name(root.store.name) for problem in rest)
    if not dry_run:
        _requeue(root, shards)
        if has_plan:
            root.store.remove_beside(plan_name(root.store.name))
    left = [problem for problem in rest if _shard_of(root, problem.object) is None and not _is_answered(root, problem, shards)]
    return Repaired(restored=(*restored, *mended), requeued=tuple(shards), plan=has_plan, left=tuple(left))


def _root(path: AnyPath, copy: AnyPath | None, dry_run: bool) -> tuple[Root | None, list[str]]:
    """The root, put back from the copy where it is damaged and the commit records here are those of the copy."""
    root, what = examine(path)
    if root is not None:
        return root, []
    if copy is None:
        raise ArchiveError(f"its {ROOT_KEY} {what}, and nothing else tells what belongs here; name a copy with --from: {path}")
    twin, store = examine(copy)[0], open_store(path)
    if twin is None or not _same_run(Root(store, twin.document), twin):
        raise ArchiveError(f"the copy is damaged itself, or of another run: {copy}")
    if not dry_run:
        store.replace(ROOT_KEY, twin.store.read(ROOT_KEY))
    return (None if dry_run else examine(path)[0]), [ROOT_KEY]


def _same_run(root: Root, twin: Root) -> bool:
    """Whether records that can be read here name the very objects that the copy's name: a few of them do for an identity."""
    here, there = CommitLog(root).read_each(), CommitLog(twin).read_each()
    pairs = [(receipt, there.get(shard)) for shard, receipt in here.items() if receipt and there.get(shard)]
    return bool(pairs) and all((one.plan_digest, one.objects) == (other.plan_digest, other.objects) for one, other in pairs if other)


def _twin(root: Root, copy: AnyPath | None) -> Root | None:
    """The copy's root; raises ArchiveError where it is damaged or of another run."""
    twin = None if copy is None else examine(copy)[0]
    if copy is not None and (twin is None or twin.attributes["fingerprint"] != root.attributes["fingerprint"]):
        raise ArchiveError(f"the copy is damaged itself, or of another run: {copy}")
    return twin


def _from_elsewhere(root: Root, problems: Sequence[Problem], copy: Root | None, dry_run: bool) -> list[str]:
    """Puts back what can be had: lost and damaged records with what they name, then objects that records and the root name. Their keys."""
    log, mended = CommitLog(root), dict[str, bytes]()
    receipts = log.read_each()
    for shard in range(root.num_shards) if copy is not None else ():
        if receipts.get(shard) is None:
            mended |= _whole_shard(root, copy, shard)  # type: ignore[arg-type]  # not None in this loop
    named = {key: entry["sha256"] for receipt in receipts.values() if receipt for key, entry in receipt.objects.items() if entry}
    for key in dict.fromkeys(problem.object for problem in problems):
        data = _known(root, key, root.static_objects.get(key) or named.get(key), copy)
        if data is not None:
            mended[key] = data
    if not dry_run:
        for key, data in mended.items():
            root.store.replace(key, data)
    return list(mended)


def _whole_shard(root: Root, copy: Root, shard: int) -> dict[str, bytes]:
    """What has to be put here for a shard to be as the copy has it, the record last; nothing unless the copy's is whole."""
    key_of_record = CommitLog(copy).key(shard)
    record = copy.store.read_or_none(key_of_record)
    receipt = None if record is None else receipt_or_none(record)
    if record is None or receipt is None:
        return {}
    needed: dict[str, bytes] = {}
    for key, entry in receipt.objects.items():
        if describe_object(root.store.read_or_none(key)) == entry:
            continue
        there = copy.store.read_or_none(key)
        if there is None or describe_object(there) != entry:
            return {}
        needed[key] = there
    return {**needed, key_of_record: record}


def _known(root: Root, key: str, digest: str | None, copy: Root | None) -> bytes | None:
    """The bytes with this digest: an array's metadata as the root has it, or the copy's object."""
    candidates = []
    if key.endswith(f"/{ROOT_KEY}") and key.removesuffix(f"/{ROOT_KEY}") in root.nodes:
        candidates.append(canonical_json(root.nodes[key.removesuffix(f"/{ROOT_KEY}")]))
    if copy is not None and digest is not None:
        candidates.append(copy.store.read_or_none(key) or b"")
    return next((data for data in candidates if sha256(data) == digest), None)


def _shard_of(root: Root, key: str) -> int | None:
    """Which shard an object belongs to; None for others."""
    for array in (*root.columns, COMMIT):
        number = key.removeprefix(f"{array}/c/").partition("/")[0]
        if key.startswith(f"{array}/c/") and number.isdecimal() and int(number) < root.num_shards:
            return int(number)
    return None


def _is_answered(root: Root, problem: Problem, shards: Sequence[int]) -> bool:
    """Whether a problem of the whole archive is one of its shards', or of the plan, and goes with them."""
    return problem.object in (COMMIT, plan_name(root.store.name)) or (problem.object == ROOT_KEY and bool(shards))


def _refuse_loss(root: Root, shards: Sequence[int]) -> None:
    if not shards:
        return
    if MADE in root.parts or plan_kind(plan_beside(root.store.where)) in NO_FILMS:
        raise ArchiveError(
            f"no films would fill these rows again; name a copy with --from: {len(shards)} damaged shards of {root.store.where}"
        )


def _requeue(root: Root, shards: Sequence[int]) -> None:
    """Makes shards pending: first their records go, which alone make them true, then their objects; the archive is open again."""
    if not shards:
        return
    attributes = {name: value for name, value in root.attributes.items() if name != "content"}
    root.store.replace(ROOT_KEY, sealed({**root.document, "attributes": attributes}))
    log = CommitLog(root)
    for shard in shards:
        root.store.remove(log.key(shard))
    clean_uncommitted(root.store.where, shards)
