"""Sets of films by what a table says: attributes, baseline, contrasts, alike halves, equal sizes, and requests that make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from engine.distances.film_sets import ALL, BASELINE, HALVES, choose_sets, patients_of
from engine.errors import ConfigError, SourceError

IDS = [f"f{at}" for at in range(80)]
MASS = [at for at in range(80) if at % 4 == 0]
SIDED = [at for at in range(80) if at % 5 == 0]


def table(**more: dict[str, str | None]) -> dict[str, dict[str, str | None]]:
    return {
        "mass": {name: "1" if at in MASS else "0" for at, name in enumerate(IDS)},
        "fluid": {name: "left" if at in SIDED else None for at, name in enumerate(IDS)},
        "sex": {name: "F" if at < 30 else "M" for at, name in enumerate(IDS)},
        **more,
    }


def test_sets_are_those_of_the_labels() -> None:
    found = choose_sets(IDS, table(), ["mass", "fluid: fluid?"], contrasts=["sex=F"])
    assert list(found.sets) == [BASELINE, "mass", "fluid", ALL]
    assert found.sets["mass"].tolist() == MASS
    assert found.sets["fluid"].tolist() == SIDED
    assert found.sets[BASELINE].tolist() == [at for at in range(80) if at not in MASS and at not in SIDED]
    assert found.sets[ALL].tolist() == list(range(80))
    women, men = found.pairs["sex=F"]
    assert (women.tolist(), men.tolist()) == (list(range(30)), list(range(30, 80)))
    assert not found.left_out


def test_halves_are_alike_and_no_patient_is_in_both() -> None:
    patients: dict[str, str | None] = {name: f"p{at // 2}" for at, name in enumerate(IDS)} | {"f0": None, "f1": None}
    a, b = choose_sets(IDS, table(patient_id=patients), ["mass", "fluid?"], contrasts=["sex=F"]).pairs[HALVES]
    assert sorted([*a, *b]) == list(range(80))
    names = patients_of(IDS, table(patient_id=patients))
    assert not {names[at] for at in a} & {names[at] for at in b}
    assert names[:3] == ["film f0", "film f1", "patient p1"]
    for some in (MASS, SIDED, range(30)):
        assert abs(len(set(a) & set(some)) - len(set(b) & set(some))) <= 2


def test_a_named_baseline_is_first_and_of_its_own_films() -> None:
    found = choose_sets(IDS, table(), ["mass"], baseline="sex=M")
    assert list(found.sets) == ["sex=M", "mass", ALL]
    assert found.sets["sex=M"].tolist() == list(range(30, 80))
    same = choose_sets(IDS, table(), ["mass", "sex=M"], baseline="sex=M")
    assert list(same.sets) == ["sex=M", "mass", ALL]


def test_films_of_which_nothing_is_known_are_no_baseline() -> None:
    mass: dict[str, str | None] = {name: None if at % 4 == 1 else "0" if at % 4 else "1" for at, name in enumerate(IDS)}
    assert choose_sets(IDS, table(mass=mass), ["mass"]).sets[BASELINE].tolist() == [at for at in range(80) if at % 4 > 1]


def test_sets_of_one_size_and_those_that_are_too_small() -> None:
    found = choose_sets(IDS, table(), ["mass", "fluid?"], contrasts=["sex=F"], films=20, seed=4)
    assert {len(places) for places in found.sets.values()} == {20}
    assert found.left_out == {"fluid?": 16}
    assert {len(part) for pair in found.pairs.values() for part in pair} == {20}
    assert all(np.array_equal(places, np.unique(places)) for places in found.sets.values())
    assert set(found.sets[BASELINE]) < set(choose_sets(IDS, table(), ["mass", "fluid?"]).sets[BASELINE])
    again = choose_sets(IDS, table(), ["mass", "fluid?"], films=20, seed=4)
    assert np.array_equal(again.sets[BASELINE], found.sets[BASELINE])
    assert not np.array_equal(choose_sets(IDS, table(), ["mass"], films=20, seed=5).sets[ALL], found.sets[ALL])


def test_requests_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match=r"^the labels have no such column, there are mass, fluid, sex: hernia$"):
        choose_sets(IDS, table(), ["mass", "hernia"])
    for attributes, contrasts, name in ((["mass", "mass"], [], "mass"), (["mass"], ["mass"], "mass"), (["baseline: mass"], [], BASELINE)):
        with pytest.raises(ConfigError, match=f"names of their own .*: {name}$"):
            choose_sets(IDS, table(), attributes, contrasts=contrasts)
    with pytest.raises(SourceError, match="none of the 2 ids is in the labels"):
        choose_sets(["x", "y"], table(), ["mass"])
    with pytest.raises(ConfigError, match=r"baseline of 10 films or more, another is named with --baseline: 1$"):
        choose_sets(IDS[:2], table(), ["mass"])
    with pytest.raises(ConfigError, match=r"^no attribute has 21 films or more to hold against the baseline: mass, fluid\?$"):
        choose_sets(IDS, table(), ["mass", "fluid?"], films=21)
    with pytest.raises(ConfigError, match=r"^no attribute has 10 films .*: sex=M$"):
        choose_sets(IDS, table(), ["sex=M"], baseline="sex=M")
    with pytest.raises(ConfigError, match=r"baseline of 49 films or more, .*: 48$"):
        choose_sets(IDS, table(), ["mass", "fluid?"], films=49)
