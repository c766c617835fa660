"""RetinaNet: torchvision's own network with the same weights says the same, losses by hand, the residue's channel, bad settings."""

import math
from dataclasses import asdict

import pytest
import torch
from torchvision.models.detection import retinanet_resnet50_fpn

from engine.errors import CodecError
from engine.networks.registry import build_network
from engine.networks.residue_maker import ResidueMaker
from engine.networks.retinanet import RetinaNetDetector, RetinaNetSettings, residue_settings
from tests.small_dgm import SETTINGS as DGM

TINY = {"resolution": 32, "backbone": "plain", "widths": (8, 8), "pyramid": 8, "anchors": (8, 16)}
FILMS = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
BOXES = [torch.tensor([[3.0, 4, 12, 15], [18, 18, 30, 29]]), torch.empty(0, 4), torch.tensor([[10.0, 10, 17, 19]])]


def tiny(seed=0, **settings):
    torch.manual_seed(seed)
    return RetinaNetDetector(RetinaNetSettings(**TINY | settings))


def drawn(name, value):
    """Weights of this shape that keep signals about as large as they are."""
    if value.dtype == torch.int64:
        return torch.zeros_like(value, device="cpu")
    if value.ndim == 1:
        return torch.rand(value.shape) * 0.1 + (1.0 if name.endswith(("running_var", "weight")) else 0.0)
    return torch.randn(value.shape) * value[0].numel() ** -0.5


def iou(a, b):
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_resnet50_is_torchvisions():
    """Names, shapes and results: its batch norm is frozen here and in evaluation there, and it resizes films to a side that is theirs."""
    side = 64
    with torch.device("meta"):  # fresh weights of such a network take seconds
        theirs = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2, min_size=side, max_size=side).eval()
        ours = RetinaNetDetector(RetinaNetSettings(resolution=side, norm="frozen", in_channels=3, classes=2)).eval()
    torch.manual_seed(1)
    state = {name: drawn(name, value) for name, value in theirs.state_dict().items()}
    theirs.load_state_dict(state, assign=True)
    wanted = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    ours.load_state_dict(wanted, assign=True)  # strict: no name is missing or left over
    films = torch.rand(2, 1, side, side) * 2 - 1
    rgb = list(((films + 1) / 2).expand(-1, 3, -1, -1))
    boxes = [torch.tensor([[8.0, 8, 40, 50]]), torch.empty(0, 4)]
    theirs.head.train()  # has no layer that minds
    theirs.training = True
    with torch.no_grad():
        expected = theirs(rgb, [{"boxes": of_film, "labels": torch.zeros(len(of_film), dtype=torch.int64)} for of_film in boxes])
        focal, box = ours.losses(films, boxes)
    torch.testing.assert_close(focal, expected["classification"])
    torch.testing.assert_close(box, expected["bbox_regression"])
    theirs.training = False
    theirs.score_thresh = ours.score_thresh = 0.0
    theirs.detections_per_img = ours.detections_per_img = 5
    with torch.no_grad():
        for film, (found, scores) in zip(theirs(rgb), ours(films), strict=True):
            torch.testing.assert_close(found, film["boxes"], rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(scores, film["scores"], rtol=1e-4, atol=1e-4)


def test_the_published_number_of_weights():
    with torch.device("meta"):
        network = RetinaNetDetector(RetinaNetSettings(norm="frozen", in_channels=3, classes=91))
    assert sum(part.numel() for part in network.parameters()) == 34_014_999  # as torchvision publishes it


def test_resnet50_from_nothing_has_group_norm():
    with torch.device("meta"):
        network = RetinaNetDetector(RetinaNetSettings(residue={"widths": [4, 4]}))
        maps = network.backbone(network.planes(torch.empty(2, 1, 224, 224)))
    assert [tuple(level.shape) for level in maps.values()] == [(2, 256, side, side) for side in (28, 14, 7, 4, 2)]  # P3 to P7
    assert network.backbone.body.conv1.in_channels == 2
    norms = [part for part in network.backbone.body.modules() if "Norm" in type(part).__name__]
    assert {type(part) for part in norms} == {torch.nn.GroupNorm}


def test_losses_by_hand():
    """Lin et al. 2017: focal loss with alpha 0.25 and gamma 2, L1 of (dx/w, dy/h, log w, log h), anchor by anchor."""
    network = tiny()
    with torch.no_grad():
        focal, box = (float(value) for value in network.losses(FILMS, BOXES))
        outputs, anchors, _ = network._look(FILMS)
    expected_focal = expected_box = 0.0
    for film, boxes in enumerate(BOXES):
        overlaps = [[iou(anchor, true) for anchor in anchors[film].tolist()] for true in boxes.tolist()]
        best = [max(row) for row in overlaps]
        per_film_focal = per_film_box = matched = 0.0
        for place, anchor in enumerate(anchors[film].tolist()):
            p = 1 / (1 + math.exp(-float(outputs["cls_logits"][film, place, 0])))
            shares = [row[place] for row in overlaps]
            nearest = any(share == most for share, most in zip(shares, best, strict=True))
            if shares and (max(shares) >= 0.5 or nearest):
                true = boxes[shares.index(max(shares))].tolist()
                matched += 1
                per_film_focal += -0.25 * (1 - p) ** 2 * math.log(p)
                w, h, tw, th = anchor[2] - anchor[0], anchor[3] - anchor[1], true[2] - true[0], true[3] - true[1]
                dx, dy = (true[0] + tw / 2 - anchor[0] - w / 2) / w, (true[1] + th / 2 - anchor[1] - h / 2) / h
                offsets = outputs["bbox_regression"][film, place].tolist()
                per_film_box += sum(abs(o - t) for o, t in zip(offsets, (dx, dy, math.log(tw / w), math.log(th / h)), strict=True))
            elif not shares or max(shares) < 0.4:
                per_film_focal += -0.75 * p**2 * math.log(1 - p)
        expected_focal += per_film_focal / max(1, matched) / len(BOXES)
        expected_box += per_film_box / max(1, matched) / len(BOXES)
    assert focal == pytest.approx(expected_focal, rel=1e-4)
    assert box == pytest.approx(expected_box, rel=1e-4)


def test_losses_are_means_over_films():
    network = tiny()
    with torch.no_grad():
        whole = network.losses(FILMS, BOXES)
        parts = [network.losses(FILMS[k : k + 1], BOXES[k : k + 1]) for k in range(3)]
    for place in range(2):
        torch.testing.assert_close(whole[place], torch.stack([part[place] for part in parts]).mean())


def test_boxes_are_found_where_the_scores_say():
    network = tiny(least_score=0.0)
    with torch.no_grad():
        outputs, anchors, places = network._look(FILMS)
        assert sum(places) == outputs["cls_logits"].shape[1] == len(anchors[0]) == 9 * (16**2 + 8**2)
        found = network(FILMS)
        best = int(outputs["cls_logits"][1].argmax())
        dx, dy, dw, dh = outputs["bbox_regression"][1, best].tolist()
    x0, y0, x1, y1 = anchors[1][best].tolist()
    w, h = x1 - x0, y1 - y0
    x, y, w, h = x0 + w / 2 + dx * w, y0 + h / 2 + dy * h, w * math.exp(dw), h * math.exp(dh)
    expected = torch.tensor([x - w / 2, y - h / 2, x + w / 2, y + h / 2]).clamp(0, 32)
    boxes, scores = found[1]
    torch.testing.assert_close(boxes[0], expected)
    assert scores[0] == pytest.approx(float(outputs["cls_logits"][1, best].sigmoid()))
    assert (scores.diff() <= 0).all()
    assert all(iou(boxes[0].tolist(), other) <= 0.5 for other in boxes[1:].tolist())


def test_the_residue_is_one_more_channel_and_never_learns():
    torch.manual_seed(2)
    maker = ResidueMaker(DGM)
    network = tiny(residue=residue_settings(maker), residue_gain=3.0)
    network.residue.load_state_dict(maker.state_dict())
    planes = network.planes(FILMS)
    assert torch.equal(planes[:, :1], FILMS)
    torch.testing.assert_close(planes[:, 1:], 3 * maker(FILMS))
    focal, box = network.losses(FILMS, BOXES)
    (focal + box).backward()
    assert network.backbone.stages[0].down.weight.grad[:, 1].abs().max() > 0
    assert not {id(one) for module in network.learning() for one in module.parameters()} & {id(one) for one in network.residue.parameters()}
    assert sum(len(list(module.parameters())) for module in (*network.learning(), maker)) == len(list(network.parameters()))
    again = build_network("detector", "retinanet", asdict(network.settings))
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(FILMS)[0][0], network(FILMS)[0][0])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backbone": "vgg"}, "retinanet.backbone must be one of resnet50, plain: vgg"),
        ({"anchors": (8, 16, 32)}, "as many widths as anchors or more"),
        ({"anchors": ()}, "retinanet.anchors must be sides of 1 to 4096 pixels"),
        ({"backbone": "resnet50", "widths": ()}, "retinanet of resnet50 has no widths and 5 anchors"),
        ({"widths": (8, 20)}, "multiples of 8"),
        ({"norm": "frozen"}, "norm group"),
        ({"resolution": 2}, "retinanet.resolution must be 4 to 4096: 2"),
        ({"overlap": 1.5}, "retinanet.overlap must be 0 to 1: 1.5"),
        ({"residue_gain": 0.0}, "retinanet.residue_gain must be above 0"),
        ({"residue": {"resolution": 64}}, "retinanet.residue must have the network's resolution of 32"),
        ({"residue": {"depth": 3}}, "residue has unknown fields: depth"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(CodecError, match=says):
        RetinaNetSettings(**TINY | settings)


def test_films_of_another_side_are_refused():
    with pytest.raises(CodecError, match=r"retinanet takes films \[N, 1, 32, 32\]"):
        tiny()(FILMS[..., :16, :16])
