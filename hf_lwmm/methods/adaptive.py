"""Adaptive layer-wise merging: the weights of Equation 1, adapted to unlabelled images of the target domain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Trials, register
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import option

if TYPE_CHECKING:
    from torch import Tensor

DIGITS = 6  # of a weight, for readable recipes
TINY = 1e-12  # probabilities below it add nothing to an entropy


@register
@dataclass(frozen=True)
class Adaptive(Method):
    """Layer-wise merging with learned weights: merged(j) = sum_i w_i(j) theta_i(j).

    w_i(j) = H_i(j) exp(z_i(j)) / sum_k H_k(j) exp(z_k(j)), with H as in Equation 1. There is a logit z_i(j) for each
    depth position (each block with `--granularity block`) and each model but the anchor. The logits start at 0 and
    minimise, over `images` unlabelled images,

        mean over images of [mean over pixels of h(p) - balance * h(mean over pixels of p)]
        + penalty * mean over j of KL(w(j) || H(j)),

    where p are the merge's softmax outputs and h is the entropy relative to that of equal probabilities. The first term
    makes pixels certain. The second keeps the pixels of an image from all being of one class; with balance 1 the two
    are the negative mutual information of place and class. The third keeps the weights near those of Equation 1. A
    weight that is 0 in H, as at the last position, stays 0. L-BFGS takes about `passes` forward and backward passes, on
    random crops of `crop` x `crop` pixels. During the search, BatchNorm's running statistics are merged with the same
    weights, even if `--bn-stats` will pool or estimate them afterwards.

    Source: this package. Entropy as an objective for merging weights is from Yang et al. 2024, "AdaMerging" (arXiv
    2310.02575), the balance term from Krause et al. 2010, "Discriminative clustering by regularized information
    maximization". Needs unlabelled images of the target domain and a segmentation network; gradients only for the
    logits z. Cost: `passes` forward and backward passes, and memory for M models.
    """

    images: int = option(32, "Number of images to draw at random.", minimum=1)
    passes: int = option(400, "Approximate number of forward and backward passes.", minimum=1)
    penalty: float = option(0.1, "Penalty on moving away from the weights of Equation 1.", minimum=0)
    balance: float = option(1.0, "Weight of the term that keeps the classes in balance.", minimum=0)
    crop: int = option(512, "Maximum height and width of the crop of an image, in pixels.", minimum=1)
    seed: int = option(0, "Random seed.", minimum=0)

    name: ClassVar[str] = "adaptive"
    summary: ClassVar[str] = (
        "the weights of layer-wise merging are adapted to unlabelled images of the target domain, to make the merge "
        "certain of each pixel without favouring one class"
    )
    reference: ClassVar[str] = "this package; after AdaMerging, Yang et al. 2024, arXiv 2310.02575"
    linear: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    data: ClassVar[str] = "unlabelled images (--tune-data), gradients"

    def decide(self, trials: Trials) -> tuple[LayerWeights, tuple[str, ...]]:
        import torch

        draw = np.random.default_rng(self.seed)
        chosen = np.sort(draw.permutation(trials.count)[: self.images])
        pictures = [self._cut(trials.pixels(int(image)), draw) for image in chosen]
        evaluations = max(self.passes // len(pictures), 1)
        start = torch.from_numpy(Layerwise().weights(trials.positions, len(trials.names), trials.anchor))
        others = [model for model in range(len(trials.names)) if model != trials.anchor]
        z = torch.zeros(trials.positions, len(others), dtype=torch.float64, requires_grad=True)
        found: list[tuple[float, float, LayerWeights]] = []  # objective, uncertainty and weights at each evaluation

        def weights() -> tuple[Tensor, Tensor]:
            """Return the weights, (positions, models), and their mean Kullback-Leibler divergence from Equation 1's."""
            tilt = torch.zeros_like(start).index_copy(1, torch.tensor(others), z)
            total = (start.log() + tilt).logsumexp(dim=1, keepdim=True)
            now = (start.log() + tilt - total).exp()
            return now, (now * (tilt - total)).sum(dim=1).mean()

        def objective() -> float:
            z.grad = None
            value = 0.0
            for done, pixels in enumerate(pictures):  # one at a time, to save memory
                trials.progress("Adapting", len(found) * len(pictures) + done, evaluations * len(pictures))
                part: Any = self._uncertainty(trials.logits(weights()[0].float(), pixels)) / len(pictures)
                if part.requires_grad:  # not so if all models are equal
                    part.backward()
                value += float(part.detach())
            now, distance = weights()
            penalty: Any = self.penalty * distance
            penalty.backward()
            found.append((value + float(penalty.detach()), value, now.detach().numpy()))
            return found[-1][0]

        search: Any = torch.optim.LBFGS([z], max_iter=evaluations, max_eval=evaluations, line_search_fn="strong_wolfe")
        search.step(objective)
        _, value, decided = min(found, key=lambda each: each[0])
        decided[:, others] = np.floor(decided[:, others] * 10**DIGITS) / 10**DIGITS
        decided[:, trials.anchor] = (1 - decided[:, others].sum(axis=1)).round(DIGITS)
        moved = float(np.abs(decided - start.numpy()).sum(axis=1).mean()) / 2
        return decided, (
            f"the objective on {len(pictures)} of the images fell from {found[0][1]:.4f} to {value:.4f} (the "
            "entropy of pixels, less that of their mean, so that it may be negative)",
            f"{moved:.3f} of the weight moved away from Equation 1, on average over {trials.positions} positions",
        )

    def _uncertainty(self, logits: Tensor) -> Tensor:
        """Return the pixels' mean entropy minus `balance` times the entropy of their mean, for logits (1, C, h, w)."""
        p = logits.softmax(dim=1)
        pixels, together = _entropy(p).mean(), _entropy(p.mean(dim=(2, 3)))[0]
        return (pixels - self.balance * together) / math.log(p.shape[1])

    def _cut(self, pixels: Tensor, draw: np.random.Generator) -> Tensor:
        """Return a random crop of an image (1, 3, H, W), at most `crop` pixels high and wide."""
        height, width = pixels.shape[-2:]
        y, x = (int(draw.integers(max(length - self.crop, 0) + 1)) for length in (height, width))
        return pixels[..., y : y + self.crop, x : x + self.crop]


def _entropy(p: Tensor) -> Tensor:
    """Return the entropy of probabilities along dim 1, in nats."""
    return -(p * p.clamp(min=TINY).log()).sum(dim=1)
