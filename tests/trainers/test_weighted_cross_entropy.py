"""Equation 3 of Segal et al. 2021 against values computed by hand."""

import math

import pytest
import torch

from engine.errors import ConfigError
from trainers.losses.weighted_cross_entropy import class_weights, weighted_cross_entropy


def test_weights_are_those_of_the_equation():
    """3 films with and 9 without: 12/3 and 12/9; 5 and 5: 2 and 2."""
    torch.testing.assert_close(class_weights([(3, 9), (5, 5)]), torch.tensor([[4.0, 2.0], [12 / 9, 2.0]]))


def test_the_loss_is_minus_equation_3():
    """Logits ln 3 and 0 are probabilities 3/4 and 1/2. First film: label 0 there, label 1 not; second film the other way round."""
    logits, marks = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = weighted_cross_entropy(logits, marks, class_weights([(3, 9), (5, 5)]))
    by_hand = [(-4 * math.log(3 / 4) - 2 * math.log(1 / 2)) / 2, (-(12 / 9) * math.log(1 / 4) - 2 * math.log(1 / 2)) / 2]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-6)


def test_both_kinds_weigh_the_same_over_a_data_set():
    """With one logit for all films the gradient vanishes at 0, however rare the label."""
    marks = torch.tensor([[1.0]] + [[0.0]] * 9)
    logit = torch.zeros(1, requires_grad=True)
    weighted_cross_entropy(logit.expand(10, 1), marks, class_weights([(1, 9)])).mean().backward()
    assert abs(float(logit.grad)) < 1e-6


def test_large_logits_stay_finite_and_half_precision_is_widened():
    logits = torch.tensor([[300.0, -300.0]], dtype=torch.bfloat16, requires_grad=True)
    found = weighted_cross_entropy(logits, torch.tensor([[0.0, 1.0]]), class_weights([(1, 1)] * 2))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(2 * 300, rel=0.01)
    found.sum().backward()
    assert logits.grad.isfinite().all()


def test_what_cannot_be_weighed_is_refused():
    with pytest.raises(ConfigError, match="label 1 needs films with it and without it to be weighted: 0, 4"):
        class_weights([(2, 2), (0, 4)])
    with pytest.raises(ValueError, match="logits and labels differ in shape"):
        weighted_cross_entropy(torch.zeros(2, 3), torch.zeros(2, 2), class_weights([(1, 1)] * 3))
