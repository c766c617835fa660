"""The best code of each slot is kept with its own loss and count, and the reasons to stop have their order."""

from __future__ import annotations

import math

import pytest
import torch

from engine.config import RefineConfig
from engine.refine.kept import LEAST_GAIN, REASONS, Judged, Kept

CFG = RefineConfig(steps=9)
NAN, INF = math.nan, math.inf


def make(slots: int = 1, *, budget: int = 9, before: int = 0) -> Kept:
    kept = Kept(torch.zeros(slots, 2), budget=budget)
    kept.start(torch.arange(slots), torch.full((slots,), before, dtype=torch.int32), torch.zeros(slots, dtype=torch.bool))
    return kept


def weigh(
    kept: Kept, *losses: float, cfg: RefineConfig = CFG, code: float = 0, slope: float = 1, active: list[bool] | None = None
) -> Judged:
    """One evaluation of codes whose entries are all `code`, whose MSE is their loss."""
    loss = torch.tensor(losses)
    codes = torch.full((len(losses), 2), float(code))
    return kept.weigh(codes, loss, loss.clone(), torch.full_like(codes, slope), torch.tensor(active or [True] * len(losses)), cfg)


def reasons(found: Judged) -> list[str]:
    return [REASONS[at] for at in found.verdict.tolist()]


def ends(kept: Kept, losses: list[float], cfg: RefineConfig = CFG) -> tuple[str, int, int]:
    """Weighs until the film ends: why, after how many evaluations, and the steps to its kept code."""
    for at, loss in enumerate(losses):
        (word,) = reasons(weigh(kept, loss, cfg=cfg, code=at))
        if word:
            return word, at + 1, kept.of(0)[1]
    raise AssertionError("the film went on to the end")


def test_the_first_code_with_the_least_loss_is_kept() -> None:
    kept = make()
    for at, loss in enumerate([4.0, 2.0, 3.0, 2.0]):
        weigh(kept, loss, code=at)
    code, steps, loss_initial, loss = kept.of(0)
    assert (code.tolist(), steps, loss_initial, loss) == ([1, 1], 1, 4.0, 2.0)


def test_a_film_that_diverged_before_is_weighed_and_ends_so() -> None:
    kept = make(before=5)
    kept.start(torch.tensor([0]), torch.tensor([5], dtype=torch.int32), torch.tensor([True]))
    assert reasons(weigh(kept, 4.0, code=0)) == [""]  # its start
    assert reasons(weigh(kept, 3.0, code=1)) == ["diverged"]  # the best finite code of the level before
    assert (kept.of(0)[0].tolist(), kept.of(0)[1:]) == ([1, 1], (5, 4.0, 3.0))
    kept.start(torch.tensor([0]), torch.tensor([0], dtype=torch.int32), torch.tensor([True]))
    assert reasons(weigh(kept, 4.0)) == ["diverged"]


def test_budget_counts_steps_and_not_evaluations() -> None:
    assert ends(make(budget=3), [4.0, 3.0, 2.0, 1.0]) == ("budget", 4, 3)
    assert ends(make(budget=0), [4.0]) == ("budget", 1, 0)


def test_plateau_needs_a_gain_worth_the_name() -> None:
    cfg = RefineConfig(steps=9, patience=2)
    tiny = 1 - LEAST_GAIN / 4
    assert ends(make(), [1.0, tiny, tiny**2], cfg) == ("plateau", 3, 2)  # kept they are all the same
    assert ends(make(), [1.0, 1.0, 0.9, 0.9, 0.9], cfg) == ("plateau", 5, 2)
    # five of them make one gain over the last that counted
    assert ends(make(budget=5), [tiny**at for at in range(6)], RefineConfig(steps=5, patience=5))[0] == "budget"


def test_target_is_of_the_kept_code() -> None:
    cfg = RefineConfig(steps=9, target_mse=0.5)
    assert ends(make(), [1.0, 0.8, 0.5], cfg) == ("target", 3, 2)
    assert ends(make(), [0.4], cfg) == ("target", 1, 0)


@pytest.mark.parametrize("loss", [NAN, INF])
def test_a_loss_that_is_not_finite_ends_with_the_best_code(loss: float) -> None:
    kept = make()
    assert ends(kept, [3.0, 2.0, loss]) == ("diverged", 3, 1)
    assert kept.of(0)[3] == 2.0


def test_a_start_that_is_not_finite_stays_with_its_loss() -> None:
    kept = make()
    assert ends(kept, [NAN]) == ("diverged", 1, 0)
    assert math.isnan(kept.of(0)[2])
    assert math.isnan(kept.of(0)[3])


def test_a_bad_gradient_or_code_diverges_and_only_the_loss_decides_what_is_kept() -> None:
    kept = make()
    weigh(kept, 3.0)
    assert reasons(weigh(kept, 2.0, slope=NAN, code=1)) == ["diverged"]
    assert kept.of(0)[1] == 1
    kept = make()
    weigh(kept, 3.0)
    assert reasons(weigh(kept, 2.0, code=INF)) == ["diverged"]
    assert kept.of(0)[1] == 0


def test_the_gravest_reason_wins() -> None:
    cfg = RefineConfig(steps=1, patience=1, target_mse=0.5)
    for losses, word in (([1.0, 0.9], "budget"), ([1.0, 1.0], "plateau"), ([1.0, 0.4], "target"), ([1.0, NAN], "diverged")):
        assert ends(make(budget=1), losses, cfg)[0] == word


def test_idle_slots_are_neither_kept_nor_judged() -> None:
    kept = make(2)
    weigh(kept, 3.0, 3.0)
    found = weigh(kept, NAN, 2.0, code=7, active=[False, True])
    assert reasons(found) == ["", ""]
    assert (kept.of(0)[1], kept.of(0)[3], kept.of(1)[1]) == (0, 3.0, 1)


def test_a_new_film_finds_nothing_of_the_former_one() -> None:
    cfg = RefineConfig(steps=9, patience=2)
    used, fresh = make(2, budget=3), make(2, budget=3)
    for loss in (0.1, 0.1):
        weigh(used, loss, 5.0, cfg=cfg)
        weigh(fresh, 5.0, 5.0, cfg=cfg)
    used.start(torch.tensor([0]), torch.zeros(1, dtype=torch.int32), torch.zeros(1, dtype=torch.bool))
    for at, loss in enumerate([4.0, 3.0, 2.5, 2.4]):
        found = weigh(used, loss, 5.0, cfg=cfg, code=at)
    assert reasons(found)[0] == "budget"
    assert used.of(0)[1:] == (3, 4.0, pytest.approx(2.4))


def test_after_a_coarse_level_the_start_is_weighed_first_and_its_steps_go_on() -> None:
    kept = make(budget=2, before=5)
    found = weigh(kept, 4.0, code=1)
    assert (found.takes_coarse.item(), found.falls_back.item()) == (True, False)
    found = weigh(kept, 3.0, code=2)
    assert (found.takes_coarse.item(), found.falls_back.item()) == (False, False)
    assert kept.of(0)[1:] == (5, 4.0, 3.0)
    weigh(kept, 2.0, code=3)
    assert kept.of(0)[1] == 6
    assert reasons(weigh(kept, 1.0, code=4)) == ["budget"]
    assert kept.of(0)[1:] == (7, 4.0, 1.0)


@pytest.mark.parametrize("misled", [4.0, 9.0])
def test_a_coarse_code_that_is_no_better_falls_back_to_the_start_and_has_its_whole_budget(misled: float) -> None:
    cfg = RefineConfig(steps=9, patience=1)
    kept = make(budget=2, before=5)
    weigh(kept, 4.0, code=1, cfg=cfg)
    found = weigh(kept, misled, code=2, cfg=cfg)
    assert (reasons(found), found.takes_coarse.item(), found.falls_back.item()) == ([""], False, True)
    assert kept.of(0)[0].tolist() == [1, 1]
    found = weigh(kept, 4.0, code=1, cfg=cfg)  # the start again, now with its gradient
    assert (reasons(found), found.falls_back.item()) == ([""], False)
    assert kept.of(0)[1] == 0
    assert reasons(weigh(kept, 3.0, code=3, cfg=cfg)) == [""]
    assert kept.of(0)[1:] == (1, 4.0, 3.0)
    assert reasons(weigh(kept, 2.0, code=4, cfg=cfg)) == ["budget"]
    assert kept.of(0)[1:] == (2, 4.0, 2.0)


def test_a_start_that_is_good_enough_ends_before_its_coarse_code_is_tried() -> None:
    kept = make(before=5)
    found = weigh(kept, 0.4, cfg=RefineConfig(steps=9, target_mse=0.5))
    assert (reasons(found), found.takes_coarse.item(), kept.of(0)[1]) == (["target"], False, 0)
