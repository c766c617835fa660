"""Figures of a decomposition, on phantoms: of the truth itself, of none at all, and by hand."""

import numpy as np
import pytest
import torch

from engine.errors import ConfigError
from engine.source.phantom import draw_labels, render_phantom
from trainers.tasks.dgm_figures import judge_opacities, peak_is_inside

SEED, COUNT, SIZE = 25, 3, 32


def films(without=()):
    pixels = [render_phantom(SEED, index, size=SIZE, without=without).pixels for index in range(COUNT)]
    return torch.from_numpy(np.stack(pixels)).unsqueeze(1).float() / 127.5 - 1


@pytest.fixture(scope="module")
def truth():
    """The residue of each film, and which films have an opacity."""
    has = torch.tensor([bool(draw_labels(SEED, index, size=SIZE)["opacity"]) for index in range(COUNT)])
    assert has.any()
    assert not has.all()
    return films() - films(("opacity",)), has


def judged(decompose):
    return judge_opacities(decompose, seed=SEED, count=COUNT, size=SIZE)


def test_the_truth_is_judged_best(truth):
    residues, has = truth
    found = judged(lambda given: (given - residues, residues))
    assert (found.abnormal, found.normal) == (int(has.sum()), int((~has).sum()))
    assert found.peak_in_box == 1
    assert found.residue_normal == found.residue_ratio == 0
    assert found.residue_abnormal == pytest.approx(float(residues[has].abs().mean()), rel=1e-5)
    assert found.psnr > 100
    assert found.psnr_normal > 100 > found.psnr_as_it_is


def test_leaving_films_as_they_are_is_seen(truth):
    residues, has = truth
    found = judged(lambda given: (given, torch.zeros_like(given)))
    assert found.residue_ratio == float("inf")
    assert found.peak_in_box == 0
    assert found.psnr_normal == found.psnr_as_it_is
    by_hand = [-10 * np.log10(float((residue / 2).square().mean())) for residue in residues[has]]
    assert found.psnr_as_it_is == pytest.approx(np.mean(by_hand), abs=1e-3)


def test_a_residue_of_one_gray_everywhere_else_counts(truth):
    residues, _ = truth
    found = judged(lambda given: (given - 0.5, residues * 0 + 0.25))
    assert found.residue_ratio == pytest.approx(1)
    assert found.residue_normal == pytest.approx(0.25)
    assert found.psnr < 20


def test_a_peak_is_inside_by_whole_pixels():
    residue = torch.zeros(8, 8)
    residue[3, 5] = -0.9
    residue[6, 6] = 0.8
    assert peak_is_inside(residue, (5, 3, 6, 4))
    assert not peak_is_inside(residue, (3, 5, 4, 6))
    assert not peak_is_inside(residue, (5, 2, 6, 3))
    assert not peak_is_inside(residue, (6, 6, 7, 7))


def test_phantoms_of_one_class_are_refused():
    with pytest.raises(ConfigError, match="phantoms to be judged must be with and without an opacity, 0 have one of: 0"):
        judge_opacities(lambda given: (given, given), seed=SEED, count=0, size=SIZE)
