"""Average precision against cases computed by hand, and the overlap of boxes against a count of pixels."""

import numpy as np
import pytest

from engine.detect.average_precision import OVERLAPS, average_precision, average_precisions, box_overlaps

A, B, C = [0.0, 0, 10, 10], [20.0, 20, 30, 40], [50.0, 0, 60, 10]
FAR = [80.0, 80, 90, 90]


def boxes(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def film(*scored):
    """Boxes of one film with their scores."""
    return boxes(*(box for box, _ in scored)), np.array([score for _, score in scored])


@pytest.mark.parametrize(
    ("found", "truth", "expected"),
    [
        ([film((A, 0.9), (B, 0.8)), film((C, 0.1))], [boxes(A, B), boxes(C)], 1.0),  # all found
        ([film(), film()], [boxes(A), boxes()], 0.0),  # none found
        ([film((FAR, 0.9))], [boxes(A)], 0.0),  # found elsewhere
        ([film((A, 0.9)), film((A, 0.8))], [boxes(A), boxes()], 1.0),  # false, but after all that is there
        ([film((A, 0.8)), film((A, 0.9))], [boxes(A), boxes()], 0.5),  # false and surer: precision 1/2 at recall 1
        ([film((A, 0.9), (A, 0.8), (B, 0.7))], [boxes(A, B)], 0.5 * 1 + 0.5 * 2 / 3),  # twice on one box: the second is false
        ([film((A, 0.9), (FAR, 0.8), (B, 0.7), (C, 0.6))], [boxes(A, B, C)], 1 / 3 * 1 + 2 / 3 * 3 / 4),  # 1, 2/3, 3/4: 2/3 is raised
        ([film((A, 0.9))], [boxes(A, B)], 0.5),  # one of two
    ],
)
def test_cases_by_hand(found, truth, expected):
    assert average_precision(found, truth, overlap=0.5) == pytest.approx(expected)


def test_only_the_order_of_scores_counts():
    draw = np.random.default_rng(0)
    truth = [boxes(A, B), boxes(C), boxes()]
    found = [film((A, 0.3), (FAR, 0.5), (B, 0.2)), film((C, 0.45)), film((A, 0.4))]
    value = average_precision(found, truth, overlap=0.5)
    assert value == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3 + (3 / 5 - 1 / 2) * 2 / 3)  # the greatest at or after each: 3/5 everywhere
    assert average_precision([(b, s**3) for b, s in found], truth, overlap=0.5) == value
    shuffled = []
    for b, s in found:
        order = draw.permutation(len(s))
        shuffled.append((b[order], s[order]))
    assert average_precision(shuffled, truth, overlap=0.5) == value


def test_a_box_takes_the_true_one_that_it_overlaps_most_and_leaves_the_other():
    left, right = [0.0, 0, 10, 10], [4.0, 0, 14, 10]
    found = [film(([1.0, 0, 11, 10], 0.9), ([2.0, 0, 12, 10], 0.8))]  # IoU 9/11 and 7/13; 8/12 and 8/12
    assert average_precision(found, [boxes(left, right)], overlap=0.5) == 1.0
    assert average_precision(found, [boxes(left, right)], overlap=0.7) == 0.5


def test_the_overlap_decides():
    found, truth = [film(([0.0, 0, 10, 6], 0.9))], [boxes(A)]  # IoU 0.6
    each = average_precisions(found, truth)
    assert list(each) == ["ap", "ap40", "ap45", "ap50", "ap55", "ap60", "ap65", "ap70", "ap75"]
    assert [each[f"ap{round(100 * overlap)}"] for overlap in OVERLAPS] == [1, 1, 1, 1, 1, 0, 0, 0]
    assert each["ap"] == pytest.approx(5 / 8)


def test_without_a_true_box_there_is_no_figure():
    assert np.isnan(average_precision([film((A, 0.9))], [boxes()], overlap=0.5))


def test_films_and_scores_must_be_as_many():
    with pytest.raises(ValueError, match="1 and 2 films"):
        average_precision([film()], [boxes(), boxes()], overlap=0.5)
    with pytest.raises(ValueError, match="films differ, or boxes and scores"):
        average_precision([(boxes(A), np.empty(0))], [boxes(A)], overlap=0.5)


def test_overlaps_are_counted_pixels():
    draw = np.random.default_rng(1)
    corners = draw.integers(0, 12, (8, 4))
    some = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:]) + 1], axis=1)
    masks = np.zeros((8, 13, 13), dtype=bool)
    for mask, (x0, y0, x1, y1) in zip(masks, some, strict=True):
        mask[y0:y1, x0:x1] = True
    counted = [[(one & other).sum() / (one | other).sum() for other in masks] for one in masks]
    np.testing.assert_allclose(box_overlaps(some, some), counted)
    assert box_overlaps(boxes([1, 1, 1, 1]), boxes([1, 1, 1, 1])).item() == 0
