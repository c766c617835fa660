"""The page, the README's tables and every file of results: what is committed is what is generated, and all of it can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page as pages
from benchmarks.headlines import compared_to, comparisons, in_readme, layers, quality, speed
from benchmarks.plots import bars
from benchmarks.rates.fidelity_methods import FILM, RESIDUAL
from benchmarks.rates.fidelity_methods import PLAIN as PLAIN_CODEC
from benchmarks.registry import BENCHMARKS
from benchmarks.report import Bar, Row
from benchmarks.results_file import RESULTS, Head, Results, all_results
from engine.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
MACHINE = {"cpu": "AMD EPYC", "cores": 2, "memory_gb": 24, "gpus": [], "versions": {"torch": "2.14.1"}, "commit": "1a2b3c4", "load": 0.1}
PLAIN = Row(benchmark="encode", step="plain script", unit="films/s", values=(10.0, 11.0, 12.0))
OURS = Row(
    benchmark="encode",
    step="ours | PCA",
    unit="films/s",
    values=(20.0, 22.0, 24.0),
    ratio=2.0,
    ratio_to="plain script",
    bar=Bar(bound=2, sense="at least"),
    quality={"PSNR dB": 26.3},
)
LACKING = Row(benchmark="encode", step="GPU", unavailable="needs a CUDA device")


def results(time: str, *rows: Row, size: str = "whole", **settings: str | None) -> Results:
    head = Head(machine=MACHINE, time=f"2026-11-{time}T00:00:00+00:00", size=size, settings=settings)
    return Results(head=head, rows=rows, path=Path("amd-epyc-2c") / f"2026-11-{time}T000000Z.jsonl")


def test_the_committed_page_and_tables_are_those_of_the_committed_results() -> None:
    found = pages.newest(list(all_results()))
    again = "; `latentray bench --page` makes it anew"
    assert pages.PAGE.read_text() == pages.page(found), "benchmarks/README.md is not what its results say" + again
    assert pages.README.read_text() == in_readme(pages.README.read_text(), found), "README.md has other tables than the results" + again


def test_every_benchmark_is_one_line_of_the_index() -> None:
    index = pages.page([]).partition("## Benchmarks by name\n")[2].partition("\n\n")[0].splitlines()
    assert [line.partition("]")[0] for line in index[2:]] == [f"| [{name}" for name in BENCHMARKS]
    assert {line.count("|") - line.count("\\|") for line in index} == {5}


def test_plots_and_files_that_the_page_names_are_there_and_small() -> None:
    for name, each in pages.newest(list(all_results())):
        assert (RESULTS / each.name).is_file()
        if hasattr(pages.load(name), "plot"):
            assert 1_000 < pages.plot_path(name, each).stat().st_size < 400_000


def test_every_committed_file_can_be_read_and_is_written_as_it_was() -> None:
    found = list(all_results())
    assert len(found) > 20
    for each in found:
        assert each.rows, each.name
        for row in each.rows:
            line = row.to_json()
            assert Row.from_json(line) == row
            assert bool(line.get("median") is not None) == bool(row.values)


def test_the_newest_of_each_question_is_shown_and_whole_runs_go_before_nightly_ones() -> None:
    plain, lacking = (replace(row, benchmark="decode") for row in (PLAIN, LACKING))
    first, second = results("01", plain), results("02", plain, lacking)
    nightly, of_demo = results("03", plain, size="nightly"), results("04", plain, codec="demo", films=None)
    quick, empty = results("05", plain, size="quick"), results("06", lacking)
    shown = pages.newest([first, second, nightly, of_demo, quick, empty])
    assert [each.name for _, each in shown] == [second.name, of_demo.name]
    assert [each.name for _, each in pages.newest([nightly, quick])] == [nightly.name]
    assert pages.newest([results("07", PLAIN)]) == []  # `encode` had other rows then


def test_tables_keep_what_failed_and_split_by_columns() -> None:
    text = pages.markdown([PLAIN, OURS, LACKING]).splitlines()
    assert text[0] == "| step | median | unit | spread | PSNR dB | ratio | to | bar |"
    assert text[3] == "| ours \\| PCA | 22 | films/s | 20.8-23.2 | 26.3 | 2.00x | plain script | at least 2: met |"
    assert text[4].startswith("| GPU | unavailable: needs a CUDA device |")
    assert {line.replace("\\|", "").count("|") for line in text} == {9}


def test_of_many_rows_those_with_something_to_reach_stand_above_the_fold() -> None:
    many = [replace(PLAIN, step=f"step {at}") for at in range(pages.MANY)]
    text = pages.page([("encode", results("01", *many, OURS, LACKING))])
    above, folded = text.partition("## encode\n")[2].partition("\n## ")[0].split("<details>")
    assert "| ours" in above
    assert "step 3 " not in above
    assert all(f"| step {at} |" in folded for at in range(pages.MANY))
    assert "</details>\n\nFrom [amd-epyc-2c/2026-11-01T000000Z.jsonl](results/" in folded


def test_speed_is_told_beside_what_it_is_compared_to() -> None:
    found = [("encode", results("01", PLAIN, OURS, LACKING)), ("decode", results("02", replace(OURS, benchmark="decode")))]
    lines = list(speed(found))
    assert lines[2:] == [
        "| `encode`: ours | PCA | 22 films/s | 20.8-23.2 | plain script | 11 films/s | 2.00 | PSNR dB 26.3 |",
        "",
        "From `amd-epyc-2c/2026-11-01T000000Z.jsonl`.",
    ]
    assert list(speed([])) == []


def test_of_encode_each_comparison_is_told_once() -> None:
    decode, loop, script = (replace(PLAIN, step=f"PCA: {name}") for name in ("decode only", "published loop", "plain script"))
    job = replace(OURS, step="PCA: encode --workers 0", ratio_to="decode only")
    against = replace(OURS, step="PCA: encode --workers 0 against the plain script")
    on_ray = replace(OURS, step="PCA: encode --workers 2", ratio_to="decode only")
    slower = {"ratio": 0.5, "ratio_to": "encode"}
    rows = [decode, job, against, replace(script, **slower), replace(loop, **slower), on_ray, LACKING]
    assert comparisons(rows) == [job, against]
    assert [compared_to(row, rows) for row in (job, against, rows[4])] == [decode, rows[3], against]
    assert comparisons([*rows, replace(job, step="PCA, 20 steps: encode --workers 0", bar=None)]) == [job, against]


def test_of_ways_to_refine_the_fastest_is_told_of_each_question() -> None:
    loop = replace(PLAIN, benchmark="refine", step="published loop")
    ways = [replace(OURS, benchmark="refine", step=f"way {ratio}", ratio=ratio, ratio_to="published loop") for ratio in (3.0, 9.0, 4.0)]
    steps = replace(ways[0], unit="image-steps/s")
    assert comparisons([loop, *ways, steps]) == [ways[1], steps]


def test_what_a_row_is_compared_to_may_be_missing() -> None:
    assert compared_to(replace(OURS, ratio_to="nothing here"), [PLAIN, replace(OURS, ratio_to="nothing here")]) is None


def test_quality_is_told_at_up_to_so_many_bytes() -> None:
    def row(method: str, size: float, psnr: float, kind: str) -> Row:
        told = {"films": "real films", "method": method, "kind": kind}
        judged = {"mean PSNR dB": psnr, "SSIM": 0.8}
        step = f"{method}, {size}"
        return Row(
            benchmark="rate-distortion",
            step=step,
            unit="dB",
            values=(psnr,),
            value_of="film",
            quality=judged,
            figures={"bytes": size},
            settings=told,
        )

    rows = [row("demo", 512, 24.0, "code"), row("demo", 300, 23.9, "code"), row("AVIF", 500, 28.0, "picture"), row("vae", 64, 16.0, "code")]
    lines = list(quality([("rate-distortion", results("01", *rows))]))
    assert lines[0] == "| real films, 1 | up to 256 bytes | up to 512 bytes | up to 1,024 bytes |"
    assert lines[2] == "| demo |  | 24.0 / 0.800 (512) | 24.0 / 0.800 (512) |"
    assert lines[3] == "| AVIF |  | 28.0 / 0.800 (500) | 28.0 / 0.800 (500) |"
    assert lines[4:] == ["", "From `amd-epyc-2c/2026-11-01T000000Z.jsonl`."]


def test_layers_are_told_beside_the_best_plain_codec() -> None:
    def row(method: str, kind: str, size: float, **more: Any) -> Row:
        figures = {"mean bytes": size, "encode films/s": 36.0, "decode films/s": 244.0}
        told = {"target": "psnr=40", "method": method, "kind": kind}
        quality = {"mean PSNR dB": 40.15, "MS-SSIM": 0.9778}
        return Row(benchmark="fidelity", step=f"psnr=40: {method}", values=(size,), quality=quality, figures=figures, settings=told, **more)

    rows = [
        row("JPEG 2000", PLAIN_CODEC, 4432.75),
        row("AVIF", PLAIN_CODEC, 4521.0),
        row(FILM, FILM, 4456.75, ratio=1.0054, ratio_to="JPEG 2000"),
        row(RESIDUAL, RESIDUAL, 4826.75),
    ]
    lines = list(layers([("fidelity", results("01", *rows))]))
    assert lines[0].startswith("| bytes a film, 1 films | layer |")
    assert lines[2:4] == ["| `psnr=40` | 4,457 | 4,433 JPEG 2000 | 1.005 | 40.1 / 0.9778 | 36, 244 | 36, 244 | 4,827 |", ""]
    alone = replace(rows[2], settings=rows[2].settings | {"target": "lossless"}, ratio=None, ratio_to="")
    assert "| `lossless` | 4,457 |  |  | exact | 36, 244 |  |  |" in list(layers([("fidelity", results("02", alone))]))


def test_tables_go_between_their_marks_and_nowhere_else() -> None:
    text = "a\n<!-- bench: speed -->\nold\n<!-- end -->\nb\n<!-- bench: quality -->\nkept\n<!-- end -->\n"
    new = in_readme(text, [("encode", results("01", PLAIN, OURS))])
    assert new.startswith("a\n<!-- bench: speed -->\n| | |")
    assert "old" not in new
    assert new.endswith("<!-- end -->\nb\n<!-- bench: quality -->\nkept\n<!-- end -->\n")
    with pytest.raises(ConfigError, match="README has no place for a table"):
        in_readme("nothing", [("encode", results("01", PLAIN, OURS))])


def test_bars_are_drawn_of_rows_with_values(tmp_path: Path) -> None:
    bars([PLAIN, OURS, LACKING, replace(PLAIN, unit="ms/shard")], tmp_path / "plots" / "encode.png")
    assert (tmp_path / "plots" / "encode.png").read_bytes().startswith(b"\x89PNG")
