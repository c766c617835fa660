"""Steps are shared out between one coarse level and the full size, and none is lost."""

from __future__ import annotations

import pytest

from engine.refine.schedule import LEAST_FINE_STEPS, RATE_AFTER_COARSE, Level, plan_levels

PYRAMID = (4, 8, 16, 32, 64, 128, 256, 512)


def test_most_steps_are_coarse_at_an_eighth_of_the_side() -> None:
    assert plan_levels(100, full=1024, coarse=PYRAMID) == [
        Level(resolution=128, steps=80),
        Level(resolution=1024, steps=20, rate=RATE_AFTER_COARSE),
    ]
    assert plan_levels(20, full=1024, coarse=PYRAMID) == [
        Level(resolution=128, steps=16),
        Level(resolution=1024, steps=4, rate=RATE_AFTER_COARSE),
    ]


@pytest.mark.parametrize("steps", [1, 2 * LEAST_FINE_STEPS])
def test_few_steps_stay_at_full_size(steps: int) -> None:
    assert plan_levels(steps, full=1024, coarse=PYRAMID) == [Level(resolution=1024, steps=steps)]


@pytest.mark.parametrize("coarse", [(), (4, 8), (1024,), (768,)])
def test_without_a_useful_coarse_level_all_steps_are_fine(coarse: tuple[int, ...]) -> None:
    assert plan_levels(60, full=1024, coarse=coarse) == [Level(resolution=1024, steps=60)]


@pytest.mark.parametrize(
    ("full", "coarse", "chosen"),
    [
        (128, PYRAMID, 32),  # an eighth would be 16, which says too little
        (64, PYRAMID, 32),
        (64, (16,), 16),
        (1024, (64, 512), 64),  # as ratios, half an eighth is nearer than four eighths
        (1024, (64, 256), 64),  # as near as one another: the cheaper one
        (1024, (512,), 512),
        (768, (48, 96, 192), 96),
    ],
)
def test_the_level_nearest_to_an_eighth_is_taken(full: int, coarse: tuple[int, ...], chosen: int) -> None:
    assert plan_levels(50, full=full, coarse=coarse)[0].resolution == chosen


def test_no_step_is_lost() -> None:
    for steps in range(1, 400):
        levels = plan_levels(steps, full=256, coarse=PYRAMID)
        assert sum(level.steps for level in levels) == steps
        assert levels[-1].resolution == 256
        assert all(level.steps >= min(steps, LEAST_FINE_STEPS) for level in levels)
