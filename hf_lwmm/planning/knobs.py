"""The knobs of a merge: every choice besides its models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.checkpoints.dtypes import BY_TORCH_NAME
from hf_lwmm.methods import Method, make_method
from hf_lwmm.methods.auto import Auto
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.options import option
from hf_lwmm.planning.alignment import GRANULARITIES, HEADS, ORDERS, SHARES
from hf_lwmm.planning.inputs import ReadingOptions

BN_STATS = ("linear", "pooled", "anchor", "recalibrate")


@dataclass(frozen=True)
class Knobs(ReadingOptions):
    """Every choice of a merge besides its models; the defaults are the paper's (methods/README.md, section 2).

    `method` is a merge method with its options, or a method's name; `auto` is the one that is advised for the models.
    """

    method: Method = field(default=Layerwise())
    granularity: str = option("parameter", "Size of the units that have a depth position each.", choices=GRANULARITIES)
    order: str = option(
        "depth",
        "Order of the positions: depth (by tables or names), traced (as the anchor is seen to run), file (as stored).",
        choices=ORDERS,
    )
    share: str = option(
        "all", "Merge slots that all models have, or that the anchor and any other have.", choices=SHARES
    )
    head: str = option("shared", "Merge heads where shared, keep the anchor's, or match rows by label.", choices=HEADS)
    keep: tuple[str, ...] = option((), "Slot, or dotted prefix of slots, to keep from the anchor. Repeatable.")
    dtype: str | None = option(
        None, "Type of the written weights; the anchor's own if not given.", choices=[*BY_TORCH_NAME]
    )
    bn_stats: str = option("linear", "Treatment of BatchNorm's statistics.", choices=BN_STATS)
    bn_mix: float | None = option(
        None,
        "Part of the statistics that recalibrate estimates, the rest being the merged ones; the better of 1 and 0, on "
        "the same images, if not given.",
        minimum=0,
        maximum=1,
    )
    resize_position: bool = option(
        False,
        "Interpolate position embeddings of other grids of patches, and relative ones of other windows, to the "
        "anchor's (bicubic).",
    )
    permute: bool = option(False, "First permute every model's units to match the anchor's (Git Re-Basin).")

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            object.__setattr__(self, "method", Auto() if self.method == Auto.name else make_method(self.method, {}))
        super().__post_init__()

    def to_dict(self) -> dict[str, Any]:
        """Return the knobs as plain data; the method is a mapping with its name and options."""
        return {**super().to_dict(), "method": {"name": self.method.name, **self.method.to_dict()}}
