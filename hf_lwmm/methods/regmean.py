"""RegMean: linear layers merged by a regression to the outputs of every model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_lwmm.methods.base import Method, Slot, Values, register
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class RegMean(Method):
    """Linear layers whose outputs are closest to those of every model: W = (sum_i W_i G_i) (sum_i G_i)^-1.

    G_i = X_i^T X_i is the Gram matrix of the layer's inputs in model i, with its off-diagonal elements scaled by
    `shrink`. A convolution counts as a linear layer on its windows. Slots without a Gram matrix (biases, norms,
    depthwise convolutions) are averaged.

    Source: Jin et al. 2023, "Dataless knowledge fusion by merging weights of language models". Needs unlabelled images
    to measure the matrices once into a file. Cost: a forward pass for each image and model, and a linear system for
    each layer.
    """

    shrink: float = option(0.9, "Scale of the Gram matrices' off-diagonal elements.", minimum=0, maximum=1)

    name: ClassVar[str] = "regmean"
    summary: ClassVar[str] = "linear layers are merged so that their outputs are closest to those of every model"
    reference: ClassVar[str] = "Jin et al. 2023, arXiv 2212.09849"
    needs: ClassVar[frozenset[str]] = frozenset({"grams"})
    exact: ClassVar[bool] = False
    data: ClassVar[str] = "unlabelled images (--measurements)"

    def merge(self, slot: Slot) -> Values:
        anchor = slot.values[0]
        grams = [self.shrink * gram + (1 - self.shrink) * np.diag(np.diag(gram)) for gram in slot.measurements]
        shape = (anchor.shape[0], -1)
        products = sum((value - anchor).reshape(shape) @ gram for value, gram in zip(slot.values, grams, strict=True))
        change: Values = np.linalg.lstsq(np.sum(grams, axis=0), np.transpose(products), rcond=None)[0].T
        return anchor + change.reshape(anchor.shape)
