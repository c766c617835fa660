"""Trusts nothing: finds every object that is missing, cut, changed or too many, and every row that contradicts its record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from pyarrow import ArrowException

from engine.archive.chunks import ChunkCodec, column_codecs
from engine.archive.commits import CommitLog, content_digest
from engine.archive.folder_store import file_sha256, is_temporary
from engine.archive.ids import IdLedger, plan_ids
from engine.archive.problem import Problem
from engine.archive.root import COMMIT, ROOT_KEY, AnyPath, Root, examine, fingerprint, plan_beside, plan_name
from engine.archive.shard_check import ShardCheck
from engine.records import ShardReceipt

THREADS = 4  # each holds one shard

__all__ = ["Problem", "verify_archive"]


def verify_archive(path: AnyPath, *, level: int = 3) -> list[Problem]:
    """Everything that is wrong with an archive; empty, or notes only, when every object is there, whole and as committed.

    Level 1: every record and object exists and has its size. 2: and its sha256. 3 (and more): and decodes to rows that agree with
    their record, with unique ids, those of the plan where it is there. Raises ArchiveError where there is no archive at all.
    """
    root, what = examine(path)
    if root is None:
        return [Problem(ROOT_KEY, what)]
    sizes = dict(root.store.walk())
    codecs = column_codecs(root)
    receipts, problems = _records(root)
    problems += _static_objects(root, sizes, level)
    problems += _content(root, receipts)
    problems += _plan(root, level)
    plan_is_whole = level >= 3 and not any(problem.object == plan_name(root.store.name) for problem in problems)
    problems += _shards(ShardCheck(root, codecs, sizes, level), receipts, plan_is_whole)
    problems += _leftovers(root, sizes, codecs, receipts)
    return problems


def _records(root: Root) -> tuple[dict[int, ShardReceipt], list[Problem]]:
    log = CommitLog(root)
    found = log.read_each()
    problems = [Problem(log.key(shard), "the commit record is damaged") for shard, receipt in found.items() if receipt is None]
    pending = sorted(set(range(root.num_shards)) - found.keys())
    if pending:
        problems.append(Problem(COMMIT, f"not finished, {len(pending)} of {root.num_shards} shards are pending: {_ranges(pending)}"))
    return {shard: receipt for shard, receipt in found.items() if receipt is not None}, problems


def _static_objects(root: Root, sizes: Mapping[str, int], level: int) -> list[Problem]:
    problems = []
    for key, digest in root.static_objects.items():
        if key not in sizes:
            problems.append(Problem(key, "is missing"))
        elif level >= 2 and root.store.sha256(key) != digest:
            problems.append(Problem(key, "its sha256 is not the one in the root"))
    if fingerprint(root.parts) != root.attributes["fingerprint"]:
        problems.append(Problem(ROOT_KEY, "the fingerprint is not that of its parts"))
    return problems


def _content(root: Root, receipts: Mapping[int, ShardReceipt]) -> list[Problem]:
    if len(receipts) != root.num_shards:
        return []
    content = root.attributes.get("content")
    if content is None:
        return [Problem(ROOT_KEY, "all shards are there, but the archive was not finalised; run the same encode again", is_note=True)]
    if content != content_digest(list(receipts.values())):
        return [Problem(ROOT_KEY, "the commit records are not those that the archive was finalised with")]
    return []


def _plan(root: Root, level: int) -> list[Problem]:
    name, path = plan_name(root.store.name), plan_beside(root.store.where)
    if not path.exists():
        return [Problem(name, "the plan is not beside the archive, so ids cannot be held against it", is_note=True)]
    if level >= 2 and file_sha256(path) != root.attributes["plan"]["sha256"]:
        return [Problem(name, "its sha256 is not the one in the root")]
    return []


def _shards(check: ShardCheck, receipts: Mapping[int, ShardReceipt], plan_is_whole: bool) -> list[Problem]:
    problems: list[Problem] = []
    ledger = IdLedger()
    planned = enumerate(plan_ids(plan_beside(check.root.store.where), shard_rows=check.root.shard_rows)) if plan_is_whole else None
    pool = ThreadPoolExecutor(THREADS)
    try:
        results = pool.map(check.check, receipts.keys(), receipts.values())
        for shard, checked in zip(receipts, results, strict=True):
            problems += checked.problems
            if checked.ids is None:
                continue
            ledger.add(checked.ids, first_row=check.root.rows_of(shard)[0])
            if planned is not None and not _equals_plan(planned, shard, checked.ids):
                problems.append(Problem(check.codecs["sample_id"].key(shard), "the ids are not those of the plan"))
    finally:
        pool.shutdown(cancel_futures=True)  # so that an interrupt does not wait for thousands of shards
    return problems + _repeated_ids(check, ledger)


def _equals_plan(planned: Iterator[tuple[int, list[str]]], shard: int, ids: list[str]) -> bool:
    try:  # both go upwards, so passing over shards that are not there loses nothing
        return next((expected for at, expected in planned if at == shard), None) == ids
    except (ArrowException, OSError):  # its sha256 is the one it was made with, and yet it is no plan
        return False


def _repeated_ids(check: ShardCheck, ledger: IdLedger) -> list[Problem]:
    codec = check.codecs["sample_id"]
    problems = []
    for group in ledger.suspects():
        named = sorted((_id_of_row(check, codec, row), row) for row in group)
        for name, same in groupby(named, key=lambda pair: pair[0]):
            repeated = [row for _, row in same]
            if len(repeated) > 1:
                key = codec.key(repeated[1] // check.root.shard_rows)
                problems.append(Problem(key, f"rows {', '.join(map(str, repeated))} have one id: {name}"))
    return problems


def _id_of_row(check: ShardCheck, codec: ChunkCodec, row: int) -> str:
    shard = row // check.root.shard_rows
    ids = codec.decode(shard, check.root.store.read(codec.key(shard)))
    return str(ids[row - check.root.rows_of(shard)[0]])


def _leftovers(
    root: Root, sizes: Mapping[str, int], codecs: Mapping[str, ChunkCodec], receipts: Mapping[int, ShardReceipt]
) -> list[Problem]:
    """Notes on files that no record names; those of a shard whose record is unreadable may well be good."""
    log = CommitLog(root)
    committed = {shard for shard in log.committed() if shard < root.num_shards}
    named = {ROOT_KEY, *root.static_objects, *map(log.key, committed)}
    named |= {key for receipt in receipts.values() for key in receipt.objects}
    named |= {codec.key(shard) for shard in committed - receipts.keys() for codec in codecs.values()}
    problems = []
    for key in sorted(sizes.keys() - named):
        if is_temporary(key):
            what = "left by a writer that was killed; `latentray gc` removes it"
        elif key.startswith(tuple(f"{name}/c/" for name in (*codecs, COMMIT))):
            what = "no commit record names it; `latentray gc` removes it"
        else:
            what = "is no part of the archive"
        problems.append(Problem(key, what, is_note=True))
    return problems


def _ranges(numbers: list[int]) -> str:
    """`0-2, 5, 9-11 ...`: at most five stretches."""
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][-1] + 1:
            stretches[-1][1:] = [number]
        else:
            stretches.append([number])
    shown = ["-".join(map(str, stretch)) for stretch in stretches[:5]]
    return ", ".join(shown) + (" ..." if len(stretches) > 5 else "")
