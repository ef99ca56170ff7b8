"""The knobs of a merge: every choice besides its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_lwmm.checkpoints.dtypes import BY_TORCH_NAME
from hf_lwmm.labels import label_sets, read_label_set
from hf_lwmm.methods import Method, make_method
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.options import Options, option
from hf_lwmm.planning.alignment import GRANULARITIES, HEADS, ORDERS, SHARES
from hf_lwmm.planning.inputs import BRANCHES

BN_STATS = ("linear", "pooled", "anchor", "recalibrate")

LabelChoice = str | tuple[str, ...]  # a known set's name, or class names


@dataclass(frozen=True)
class Knobs(Options):
    """Every choice of a merge besides its models; the defaults are the paper's (methods/README.md, section 2).

    `method` is a merge method with its options, or a method's name. `labels` are label sets by name, by file or as
    class names: a model that does not name its classes gets those of the first set with as many classes as its
    classifier has rows. `dtype` None keeps the anchor's own.
    """

    method: Method = field(default=Layerwise())
    granularity: str = option("parameter", "What has a depth position of its own.", choices=GRANULARITIES)
    order: str = option(
        "depth", "Order of the positions: depth (of execution) or file (of registration).", choices=ORDERS
    )
    share: str = option(
        "all", "Merge slots that all models have, or that the anchor and any other have.", choices=SHARES
    )
    head: str = option("shared", "Merge heads where shared, keep the anchor's, or match rows by label.", choices=HEADS)
    keep: tuple[str, ...] = option((), "Slot, or dotted beginning of slots, that stays the anchor's. Repeatable.")
    labels: tuple[LabelChoice, ...] = option(
        (), "Classes of models that name none: cityscapes19, synthia16, ... or a file. Repeatable.", metavar="SET|FILE"
    )
    dtype: str | None = option(
        None, "Type of the written weights; the anchor's own if not given.", choices=[*BY_TORCH_NAME]
    )
    branch: str = option("student", "Network to take from a self-training checkpoint.", choices=BRANCHES)
    bn_stats: str = option("linear", "What becomes of BatchNorm's running statistics.", choices=BN_STATS)
    permute: bool = option(False, "First permute every model's units to match the anchor's (Git Re-Basin).")

    def __post_init__(self) -> None:
        if isinstance(self.method, str):
            object.__setattr__(self, "method", make_method(self.method, {}))
        super().__post_init__()
        object.__setattr__(self, "labels", tuple(_portable(labels) for labels in self.labels))

    def to_dict(self) -> dict[str, Any]:
        """Return the knobs as plain data; the method is a mapping with its name and options."""
        return {**super().to_dict(), "method": {"name": self.method.name, **self.method.to_dict()}}


def _portable(labels: str | Sequence[str]) -> LabelChoice:
    """A label set as it means the same on every machine: its name if it is a known one, else its classes."""
    found = read_label_set(labels)
    return found.name if found.name in label_sets() else found.classes
