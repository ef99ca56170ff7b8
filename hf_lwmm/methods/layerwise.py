"""Layer-wise model merging (Alcover-Couso et al., arXiv 2409.15813, Equation 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method, register
from hf_lwmm.methods.schedule import NAMED_RAMPS, LayerWeights, check_ramp, layerwise_weights
from hf_lwmm.options import option


@register
@dataclass(frozen=True)
class Layerwise(Method):
    """Layer-wise merging: merged(j) = sum_i H_i(j) theta_i(j), H_i(j) = (Np - j) / (Np M) for all but the anchor.

    The anchor has the rest of the weight at each position.

    Source: the paper's Equation 1; the options are those of its Figure 5. Needs only the models. Cost: one pass over
    the weights.
    """

    start: float = option(0.0, "Part of the depth before the fade begins.", minimum=0, below=1)
    alpha: float | None = option(None, "Weight of the anchor in the first layers; 1/M by default.", maximum=1)
    ramp: str = option("linear", "Fade: linear, cosine, step, power:P.", known=NAMED_RAMPS)

    name: ClassVar[str] = "layerwise"
    summary: ClassVar[str] = (
        "the first layers are averaged, the last are the anchor's, and in between the weight of the other models fades"
    )
    reference: ClassVar[str] = "Alcover-Couso et al. 2024, arXiv 2409.15813"
    linear: ClassVar[bool] = True
    convex: ClassVar[bool] = True
    own_flags: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ramp(self.ramp)

    def weights(self, positions: int, models: int, anchor: int) -> LayerWeights:
        return layerwise_weights(positions, models, anchor, start=self.start, alpha=self.alpha, ramp=self.ramp)
