"""Which way a finding's logit rises: its gradient in codes, built on a backend, and the eager float32 logit that has the last word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.classify.classifier import Classifier
from engine.code_gradient import Criterion, build_gradient
from engine.config import Backend, Precision
from engine.encode.backends import choices
from engine.encode.codec import Codec
from engine.encode.cost import count_gflop
from engine.encode.parity import GRADIENT_LIMITS
from engine.encode.precision import in_precision, without_gradients
from engine.latents.class_optimisation import Ascent
from engine.refine.descent import ROWS_AT_ONCE
from engine.refine.gradient_step import Features, GradientStep

Score = Callable[[Tensor], Tensor]

# The gate on gradients. A network of ReLUs and largest values has one that jumps: float32 added up in another order was off by 0.04 of its
# length in one film of 16, bfloat16 by 0.2 to 0.43 in all of them (three trained codecs). A step wants the direction alone: one that is
# off by 0.45 rises by a tenth less, one of another film is off by 1.4. Whether a goal is reached, the judge says: logits may be rougher.
CLIMB_LIMITS = {"fp32": 0.1, "fp16": 0.2, "bf16": 0.45}
_LOGIT_UNIT = 1.0  # severities are drawn with this spread, so a logit near 0 is as far off as one of 1 that differs as much


class Finding(nn.Module):
    """The logit [n] of one label of each film [n, 1, r, r], twice; which one, a row of 0 and a 1 says, [n, labels].

    One graph serves all labels so, and the classifier is a part of it.
    """

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network, self._logits = classifier.network, classifier.logits

    def forward(self, films: Tensor, features: Features) -> tuple[Tensor, Tensor]:
        (chosen,) = features
        logit = (self._logits(films) * chosen).sum(dim=1)
        return logit, logit.detach()


@dataclass(frozen=True, kw_only=True, eq=False)
class Uphill:
    """The gradient of a classifier's logits in a codec's codes, ready. `parity`: the gate's figures, and the choice taken."""

    codec: Codec
    classifier: Classifier
    gradient: GradientStep
    parity: dict[str, Any]

    def ascent(self, label: str) -> Ascent:
        """What climbs this label. Raises CodecError for one that the classifier does not know.

        The logits of the gradient decide only where they are eager float32 themselves; any others are asked about a code and not believed.
        """
        column, labels = self.classifier.index(label), len(self.classifier.labels)

        def slope(codes: Tensor) -> tuple[Tensor, Tensor]:
            chosen = _chosen(torch.full((len(codes),), column, device=codes.device), labels)
            logits, _, gradient = self.gradient(codes, (chosen,))
            return logits, gradient

        is_judge = (self.parity["backend"], self.parity["precision"]) == ("eager", "fp32")
        return Ascent(slope=slope, judge=None if is_judge else judge_of(self.codec, self.classifier, label))


def build_uphill(
    codec: Codec, classifier: Classifier, *, backend: Backend = "eager", precision: Precision = "fp32", slots: int = 32, steps: int = 0
) -> Uphill:
    """Builds the gradient for `slots` codes that climb together, and holds it against eager float32; takes seconds to minutes.

    "auto" chooses as `encode` does, for work of `steps` gradients of a film. On a CPU a few rows fill it, and all are evaluated so many at
    once: none waits for slots that are empty, and a code has the same bits whoever climbs beside it. Raises BackendError as `prepare`.
    """
    film, back = count_gflop(score_of(codec, classifier), (1, *codec.code_shape))
    options = choices(codec, backend, precision, gigaflops=steps * (film + back), film_gflop=film)
    rows = -(-slots // ROWS_AT_ONCE) * ROWS_AT_ONCE if codec.device.type == "cuda" else ROWS_AT_ONCE
    labels = len(classifier.labels)

    def features(codes: Tensor, precision: str) -> Features:
        of_code = (1000 * codes.flatten(1)[:, 0].abs()).long()  # any label, but a code keeps its own wherever it is in a batch
        return (_chosen(of_code % labels, labels),)

    criterion = Criterion(
        objective=Finding(classifier),
        features=features,
        key={"classifier": classifier.digest},
        word="logit",
        unit=_LOGIT_UNIT,
        limits=(CLIMB_LIMITS, GRADIENT_LIMITS),
    )
    gradient, parity = build_gradient(codec, criterion, options, batch_size=1 if slots == 1 else rows)
    return Uphill(codec=codec, classifier=classifier, gradient=gradient, parity=parity)


def score_of(codec: Codec, classifier: Classifier) -> Score:
    """Codes [n, *shape] -> the logits [n, labels] of their films, differentiable, in float32."""
    generate = codec.frozen_generator(torch.float32).to(codec.device)
    return lambda codes: classifier.logits(generate(codes))


def judge_of(codec: Codec, classifier: Classifier, label: str) -> Score:
    """Codes [n, *shape] -> the logit of `label` in their films [n], by eager float32, without gradients. Raises CodecError."""
    score, column = score_of(codec, classifier), classifier.index(label)
    return without_gradients(in_precision(lambda codes: score(codes)[:, column], codec.device, None), codec.device)


def _chosen(columns: Tensor, labels: int) -> Tensor:
    """[n] -> [n, labels], 1 where the label of each row is."""
    return F.one_hot(columns, labels).float()
