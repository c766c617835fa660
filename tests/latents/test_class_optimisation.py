"""Class optimisation: the climb against its equation, slots that change nothing, draws by number, and the labelled archive it ends in."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.archive.root import read_root
from engine.classify.classifier import load_classifier
from engine.encode.codec import Codec, load_codec
from engine.encode.gauge import project
from engine.errors import ArchiveError, BackendError, ConfigError
from engine.latents.class_optimisation import Ascent, Start, climb
from engine.latents.codes import Space, read_codes
from engine.latents.codes_archive import like_archive, like_codec, write_codes
from engine.latents.film_labels import read_table
from engine.latents.optimised import COLUMNS, Climb, optimise_class, write_archive, write_films
from engine.latents.starts import Draws, Prior, prior_of, truncated_normal
from engine.latents.uphill import build_uphill, judge_of, score_of
from engine.replay import Replay
from tests.small_classifier import write_classifier
from tests.small_pggan import make_pggan_codec

SPACE = Space(shape=(1, 24), gauge="sphere", codec="none", digest="0" * 64)
PRIOR = Prior(space=SPACE, centre=np.zeros(24, np.float32), scale=1.0)


@pytest.fixture(scope="module")
def small_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def pggan_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pggan_codec(tmp_path_factory.mktemp("pggan"), resolution=16)


def on_sphere(codes: torch.Tensor) -> torch.Tensor:
    return project(codes, "sphere")


def bent(codes: torch.Tensor) -> torch.Tensor:
    """A logit with a curved gradient, of each row by itself."""
    flat = codes.flatten(1)
    return flat[:, 0] * 2 + (flat[:, 1:] * flat[:, :-1]).sum(dim=1)


def ascent(score: Callable[[torch.Tensor], torch.Tensor], judge: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Ascent:
    """What a climb is told, by autograd."""

    def slope(codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = codes.clone().requires_grad_(True)
        logits = score(codes)
        (gradient,) = torch.autograd.grad(logits.sum(), codes)
        return logits.detach(), gradient

    return Ascent(slope=slope, judge=judge)


BENT = ascent(bent)


def starts(count: int, goal: float = 20.0) -> list[Start]:
    return [replace(Draws(seed=4).start(PRIOR, "x", number, 0.0), goal=goal + number % 3) for number in range(count)]


def test_a_step_is_the_gradient_at_one_length_then_the_gauge() -> None:
    (start,) = starts(1)
    (found,) = climb([start], BENT, on_sphere, stride=0.1, steps=2, slots=1)
    code = start.code.double().numpy().ravel()
    for _ in range(2):
        slope = np.zeros(24)
        slope[0] = 2
        slope[1:] += code[:-1]
        slope[:-1] += code[1:]
        code = code + 0.1 * slope / np.sqrt(np.mean(slope**2))
        code /= np.sqrt(np.mean(code**2))
    assert found.steps == 2
    assert not found.reached
    assert found.code.numpy().ravel() == pytest.approx(code, abs=1e-5)
    assert found.logit == pytest.approx(2 * code[0] + (code[1:] * code[:-1]).sum(), abs=1e-4)


def test_each_stops_at_its_own_goal_and_not_a_step_later() -> None:
    found = list(climb(starts(11), BENT, on_sphere, stride=0.05, steps=300, slots=4))
    assert sorted(each.start.number for each in found) == list(range(11))
    for each in found:
        assert each.reached
        assert each.logit >= each.start.goal
        assert each.logit == pytest.approx(bent(each.code[None]).item(), abs=1e-4)
        (before,) = climb([each.start], BENT, on_sphere, stride=0.05, steps=each.steps - 1, slots=1)
        assert not before.reached
    assert len({each.steps for each in found}) > 3


def test_no_film_depends_on_those_beside_it() -> None:
    given = starts(9)
    expected = {each.start.number: each for each in climb(given, BENT, on_sphere, stride=0.05, steps=40, slots=8)}
    for slots, some in ((2, given), (3, given[::-1]), (5, given[4:5]), (64, given)):
        for each in climb(some, BENT, on_sphere, stride=0.05, steps=40, slots=slots):
            same = expected[each.start.number]
            assert torch.equal(each.code, same.code)
            assert (each.steps, each.logit) == (same.steps, same.logit)


def test_slots_are_refilled_and_never_overfull() -> None:
    sizes: list[int] = []

    def counted(codes: torch.Tensor) -> torch.Tensor:
        sizes.append(len(codes))
        return bent(codes)

    given = starts(20)
    found = list(climb(given, ascent(counted), on_sphere, stride=0.05, steps=300, slots=4))
    assert set(sizes) == {4}
    work = sum(each.steps + 1 for each in found)
    assert len(sizes) < work / 4 + max(each.steps for each in found) + 1  # as if every slot were full until the queue is empty


def test_a_start_that_shows_enough_takes_no_step_and_one_without_a_finite_logit_ends() -> None:
    (done,) = climb(starts(1, goal=-1e3), BENT, on_sphere, stride=0.1, steps=9, slots=2)
    assert (done.steps, done.reached) == (0, True)
    assert torch.equal(done.code, done.start.code)
    for bad in (math.nan, -math.inf):
        nowhere = ascent(lambda codes, bad=bad: codes.flatten(1).sum(dim=1) * 0 + bad)  # type: ignore[misc]
        (ended,) = climb(starts(1), nowhere, on_sphere, stride=0.1, steps=9, slots=2)
        assert (ended.steps, ended.reached) == (0, False)


def test_starts_are_truncated_normal_numbers() -> None:
    found = truncated_normal(np.random.default_rng(0), 20_000, 0.7)
    assert np.abs(found).max() <= 0.7
    density = math.exp(-(0.7**2) / 2) / math.sqrt(2 * math.pi)
    assert np.var(found) == pytest.approx(1 - 1.4 * density / math.erf(0.7 / math.sqrt(2)), rel=0.03)
    assert np.mean(found) == pytest.approx(0, abs=0.01)


def test_draws_are_by_seed_label_and_number() -> None:
    draws = Draws(seed=3)
    one = draws.start(PRIOR, "effusion", 7, threshold=1.5)
    assert torch.equal(one.code, draws.start(PRIOR, "effusion", 7, threshold=0.0).code)
    for other in (
        draws.start(PRIOR, "effusion", 8, 1.5),
        draws.start(PRIOR, "mass", 7, 1.5),
        Draws(seed=4).start(PRIOR, "effusion", 7, 1.5),
    ):
        assert not torch.equal(one.code, other.code)
    assert one.code.square().mean().item() == pytest.approx(1, abs=1e-5)  # on the sphere
    severity = np.array([draws.start(PRIOR, "effusion", number, 1.5).goal - 1.5 for number in range(2000)])
    assert severity.min() >= 0
    assert severity.mean() == pytest.approx(1.1666, abs=0.06)  # of |N(1, 1)|: 2 phi(1) + 1 - 2 Phi(-1)


def test_a_patient_has_three_to_six_films_around_its_code() -> None:
    draws, code = Draws(seed=1), np.asarray(starts(1)[0].code).ravel()
    flat = replace(PRIOR, space=replace(SPACE, gauge="none"), scale=3.0)
    made = [draws.series(flat, "x", number, code) for number in range(300)]
    assert {len(films) for films in made} == {3, 4, 5, 6}
    assert all(np.array_equal(films[0], code) for films in made)
    moved = np.concatenate([films[1:] - code for films in made])
    assert moved.std() == pytest.approx(0.2 * 3.0, rel=0.03)
    assert len(Draws(films=(1, 1)).series(PRIOR, "x", 0, code)) == 1
    assert np.square(draws.series(PRIOR, "x", 0, code)).mean(axis=1) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ConfigError, match="the fewer first: 6-3"):
        Draws(films=(6, 3))


def test_codes_of_an_archive_say_where_to_start(coded_phantoms: Path, small_codec: Path, pggan_codec: Path) -> None:
    codec, codes = load_codec(small_codec), read_codes(coded_phantoms)
    prior = prior_of(codec, coded_phantoms)
    assert prior.scale == pytest.approx(np.sqrt(codes.values.var(axis=0).mean()), rel=1e-4)
    wide = np.stack([prior.draw(np.random.default_rng(number), 50.0) for number in range(4000)])
    assert wide.mean(axis=0) == pytest.approx(codes.values.mean(axis=0), abs=0.1)
    assert np.cov(wide.T) == pytest.approx(np.cov(codes.values.T, bias=True), abs=0.12)
    assert prior_of(codec).deviations is None  # whitened codes of mean zero
    with pytest.raises(ConfigError, match="codes of --codes are of another codec than"):
        prior_of(load_codec(pggan_codec), coded_phantoms)
    nowhere = load_codec(small_codec)
    nowhere.spec = replace(nowhere.spec, code=replace(nowhere.spec.code, mean=None))
    with pytest.raises(ConfigError, match=f"name an archive of them with --codes: {nowhere.name}"):
        prior_of(nowhere)


def test_patients_become_a_labelled_archive_and_films(small_codec: Path, small_classifier: Path, tmp_path: Path) -> None:
    codec, classifier = load_codec(small_codec), load_classifier(small_classifier)
    prior, climbing = prior_of(codec), Climb(lr=0.1, steps=60, slots=4)
    found = optimise_class(codec, classifier, "mass", count=6, prior=prior, climbing=climbing)
    figures = found.figures
    assert figures["starts"] == 6
    assert figures["reached"] == sum(each.reached for each in found.optimised) > 0
    assert figures["films"] == len(found.values) == len(found.ids)
    assert figures["around"] == sum(row["film"] != "1" for row in found.rows)
    (fewer,) = optimise_class(codec, classifier, "mass", count=1, prior=prior, climbing=climbing).optimised
    assert torch.equal(fewer.code, found.optimised[0].code)

    archive = tmp_path / "made.zarr"
    write_archive(archive, like_codec(codec, software={}, codec_files=None), [found], {"seed": 0})
    stored = read_codes(archive)
    assert np.array_equal(stored.values, found.values)
    assert stored.space.digest == codec.digest
    assert read_root(archive).parts["made"] == {"by": "optimise-class", "seed": 0}
    table = read_table(None, archive, COLUMNS)
    films = Replay(archive, codec=str(small_codec)).films(torch.from_numpy(stored.values).reshape(-1, *codec.code_shape)) * 2 - 1
    logits = classifier.logits(films)[:, classifier.index("mass")]
    for name, logit in zip(stored.ids, logits.tolist(), strict=True):
        assert float(table["logit"][name] or "") == pytest.approx(logit, abs=1e-3)
        needed = table["goal" if name.endswith("-1") else "threshold"][name]
        assert (table["reached"][name] == "1") == (logit >= float(needed or ""))
    assert write_films(archive, tmp_path / "films", [found], size=16, codec=str(small_codec)) == len(stored.ids)
    with (tmp_path / "films" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == list(stored.ids)
    assert {name: row[name] for row in rows[:1] for name in COLUMNS} == found.rows[0]
    assert all((tmp_path / "films" / row["path"]).is_file() for row in rows)
    with pytest.raises(ArchiveError, match="archive is there already"):
        write_archive(archive, like_codec(codec, software={}, codec_files=None), [found], {})


def test_a_start_that_fails_stays_alone(small_codec: Path, small_classifier: Path) -> None:
    codec, classifier = load_codec(small_codec), load_classifier(small_classifier)
    found = optimise_class(codec, classifier, "mass", count=3, prior=prior_of(codec), climbing=Climb(steps=0))
    alone = [each for each in found.optimised if not each.reached]
    assert alone
    for each in alone:
        assert [row["reached"] for row in found.rows if row["patient"] == f"mass-{each.start.number:06d}"] == ["0"]
    assert math.isnan(found.figures["steps_median"]) or found.figures["steps_median"] == 0


def test_codes_that_were_made_from_an_archive_keep_its_type_and_origin(coded_phantoms: Path, tmp_path: Path) -> None:
    like, codes = like_archive(coded_phantoms), read_codes(coded_phantoms)
    write_codes(tmp_path / "new.zarr", like, values=codes.values[:3], ids=["a", "b", "c"], made={"by": "test"})
    parts = read_root(tmp_path / "new.zarr").parts
    assert parts["made"]["from"]["fingerprint"] == read_root(coded_phantoms).attributes["fingerprint"]
    assert parts["latent"] == read_root(coded_phantoms).parts["latent"]


def test_only_the_judge_says_that_a_goal_is_reached() -> None:
    """A slope whose logits are too high by 3 sends its codes to the judge, who sends them on; what is yielded is the judge's."""
    asked: list[int] = []

    def judge(codes: torch.Tensor) -> torch.Tensor:
        asked.append(len(codes))
        return bent(codes)

    eager = ascent(lambda codes: bent(codes) + 3, judge)
    expected = {each.start.number: each for each in climb(starts(5), BENT, on_sphere, stride=0.05, steps=300, slots=4)}
    for each in climb(starts(5), eager, on_sphere, stride=0.05, steps=300, slots=4):
        same = expected[each.start.number]
        assert (each.steps, each.reached) == (same.steps, True)
        assert torch.equal(each.code, same.code)
        assert each.logit == pytest.approx(same.logit, abs=1e-4)
    assert set(asked) == {1}
    assert len(asked) > 5
    (short,) = climb(starts(1), eager, on_sphere, stride=0.05, steps=1, slots=1)
    assert not short.reached
    assert short.logit == pytest.approx(bent(short.code[None]).item(), abs=1e-4)


def test_the_score_is_the_classifiers_logit_of_the_codecs_film(pggan_codec: Path, small_classifier: Path) -> None:
    codec, classifier = load_codec(pggan_codec), load_classifier(small_classifier)
    codes = codec.project(torch.randn(3, *codec.code_shape)).requires_grad_(True)
    found = score_of(codec, classifier)(codes)
    torch.testing.assert_close(found, classifier.logits(codec.generate(codes)), rtol=1e-4, atol=1e-4)
    assert torch.equal(judge_of(codec, classifier, "mass")(codes), found[:, 1].detach())
    (slope,) = torch.autograd.grad(found[:, 1].sum(), codes)
    assert (slope.flatten(1).abs().amax(dim=1) > 0).all()
    logits, gradient = build_uphill(codec, classifier).ascent("mass").slope(codes.detach())
    torch.testing.assert_close(logits, found[:, 1].detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradient, slope, rtol=1e-3, atol=1e-4)


def test_half_precision_climbs_but_does_not_judge(pggan_codec: Path, small_classifier: Path) -> None:
    codec, classifier = load_codec(pggan_codec), load_classifier(small_classifier)
    uphill = build_uphill(codec, classifier, backend="eager", precision="bf16", slots=4)
    assert (uphill.parity["backend"], uphill.parity["precision"]) == ("eager", "bf16")
    assert 0 < uphill.parity["gradient"]["eager"]["relative"] <= uphill.parity["gradient"]["limit"]
    found = optimise_class(codec, classifier, "mass", count=4, prior=prior_of(codec), climbing=Climb(lr=0.1, slots=4), uphill=uphill)
    judge = judge_of(codec, classifier, "mass")
    assert found.figures["reached"] > 0
    for each in found.optimised:
        assert each.logit == judge(each.code[None]).item()
    other = optimise_class(codec, classifier, "mass", count=2, prior=prior_of(codec), climbing=Climb(lr=0.1, slots=2), uphill=uphill)
    for one, two in zip(other.optimised, found.optimised, strict=False):
        assert torch.equal(one.code, two.code)


def test_a_gradient_that_is_wrong_is_refused_with_its_figures(
    pggan_codec: Path, small_classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, classifier = load_codec(pggan_codec), load_classifier(small_classifier)
    right = codec.frozen_generator(torch.float32)
    monkeypatch.setattr(codec, "frozen_generator", lambda *_, **__: Opposite(right))
    with pytest.raises(BackendError, match=r"eager fp32 fails the parity gate.*gradient stage: eager \d\S* \(limit 0.1\)"):
        build_uphill(codec, classifier)


class Opposite(torch.nn.Module):
    """A generator that makes the films of other codes."""

    def __init__(self, right: torch.nn.Module) -> None:
        super().__init__()
        self.right = right

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        films: torch.Tensor = self.right(-codes)
        return films


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler")
def test_inductor_climbs_as_eager_does(pggan_codec: Path, small_classifier: Path) -> None:
    codec, classifier = load_codec(pggan_codec), load_classifier(small_classifier)
    compiled = build_uphill(codec, classifier, backend="inductor", slots=8)
    assert compiled.parity["backend"] == "inductor"
    plain = build_uphill(codec, classifier)
    codes = codec.project(torch.randn(5, *codec.code_shape))
    for label in classifier.labels:
        for found, expected in zip(compiled.ascent(label).slope(codes), plain.ascent(label).slope(codes), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-3)
    few, many = (
        list(climb(given, compiled.ascent("mass"), codec.project, stride=0.05, steps=30, slots=slots))
        for given, slots in ((pggan_starts(codec, 2), 2), (pggan_starts(codec, 6), 8))
    )
    codes_of = {each.start.number: each.code for each in many}
    assert all(torch.equal(each.code, codes_of[each.start.number]) for each in few)


def pggan_starts(codec: Codec, count: int) -> list[Start]:
    prior = prior_of(codec)
    return [Draws(seed=2).start(prior, "mass", number, 1.0) for number in range(count)]
