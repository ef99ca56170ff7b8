"""Advise which method merges some models for a purpose, from what can be known without running a network.

The advice rests on merges of models that grew apart from one start, of rendered streets and of films of CamVid; the
figures are in docs/evidence.md.

- Models that saw different data, on a mixture of their domains or on a new one: the plain average gains most where each
  of them knows a part of the target, and loses most where one knows nothing of it.
- On the anchor's own domain both lose to the anchor, layer-wise merging less.
- Models that saw the same data gain nothing that is certain, but for a step back towards their start.
- Such a step gains less than the plain average on what is new to models of different data.
- The anchor's BatchNorm statistics in the place of merged ones cost 5 to 14 points of mIoU where the models' differed;
  statistics that were estimated again on 46 images cost 2 to 11.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.errors import PlanError
from hf_lwmm.layouts import is_bn_stat
from hf_lwmm.methods import Method, make_method
from hf_lwmm.methods.auto import Auto
from hf_lwmm.methods.isotropic import Isotropic
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.wise import Wise
from hf_lwmm.options import did_you_mean

TARGETS = ("anchor", "mixed", "new")
BN_DIFFERENT = 0.01  # relative distance from which running statistics count as different; frozen ones are equal


@dataclass(frozen=True)
class Known:
    """The knowledge of a merge before any network runs.

    `target` is the domain that the merge is for: the anchor's, a mixture of the models', or a new one; None if its user
    did not say. `asked` is True if `--method auto` takes the advice. `has_base` is True if a base is given. `data` and
    `starts` hold, for each model, the data sets and the base models that its card names. `has_bn_stats` is True if the
    anchor has running statistics, and `bn_distance` is the largest relative distance of another model's from them, None
    if they were not read.
    """

    target: str | None = None
    has_base: bool = False
    data: tuple[frozenset[str], ...] = ()
    starts: tuple[frozenset[str], ...] = ()
    has_bn_stats: bool = False
    bn_distance: float | None = None
    asked: bool = False

    @property
    def same_data(self) -> bool | None:
        """True if all cards name the same data sets, False if they differ, None if a card names none."""
        return _same(self.data)

    @property
    def same_start(self) -> bool | None:
        """True if all cards name the same base models, False if they differ, None if a card names none."""
        return _same(self.starts)


@dataclass(frozen=True)
class Advice:
    """A method and a treatment of BatchNorm's statistics, by their names, and why; `known` is what that rests on."""

    method: str
    bn_stats: str
    why: str
    known: Known = Known()

    @property
    def line(self) -> str:
        """The advice in one line."""
        return f"Advice: --method {self.method} --bn-stats {self.bn_stats}: {self.why}."

    def line_for(self, method: Method) -> str:
        """Return the line if there is something to say to who merges by a method, else an empty text.

        There is if the target was named, or auto takes the advice; also where it differs from the default method, which
        nobody chose.
        """
        differs = method == Layerwise() and self.method != Layerwise.name
        return self.line if self.known.target is not None or self.known.asked or differs else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the advice as plain data."""
        return {"method": self.method, "bn_stats": self.bn_stats, "why": self.why, "target": self.known.target}


def advise(known: Known) -> Advice:
    """Return the method and the treatment of running statistics that suit what is known."""
    method, why = _method(known)
    return Advice(method, "linear", "; ".join(filter(None, (why, _of_bn_stats(known)))), known)


def _method(known: Known) -> tuple[str, str]:
    """The name of a method, and why."""
    if known.has_base:
        why = "a base is given, and a step back towards it keeps more of what all models can do"
        if known.target == "new" and not known.same_data:
            why += "; on what was new to models of different data --method isotropic without it gained more"
        return Wise.name, why
    if known.target is None:
        return (
            Layerwise.name,
            "the paper's choice, which loses least where the target is the anchor's (--target says it)",
        )
    if known.target == "anchor":
        return Layerwise.name, "the target is the anchor's own domain, where it loses least"
    where = "the target is a mixture of domains" if known.target == "mixed" else "the target is new to all models"
    if known.same_start is False:
        return Layerwise.name, "the cards name different base models, whose average means little; score it first"
    if known.same_data:
        return Layerwise.name, f"{where}, but the models saw the same data, whose merges gain little"
    if known.same_data is False:
        average = "the plain average of models that saw different data can gain most"
    else:
        average = (
            "the plain average can gain most unless the models saw the same data, of which their cards say nothing"
        )
    return Isotropic.name, f"{where}, where {average}; score it"


def _of_bn_stats(known: Known) -> str:
    """The knowledge of running statistics, as a clause; empty if there are none."""
    if not known.has_bn_stats:
        return ""
    merged = "running statistics are best merged with the weights"
    if known.bn_distance is None:
        return merged
    if known.bn_distance < BN_DIFFERENT:
        return f"{merged} (they are the same in all models)"
    return f"{merged} (they differ by {known.bn_distance:.2g})"


def known_of(checkpoints: Sequence[Checkpoint], anchor: int, target: str | None, has_base: bool) -> Known:
    """Return what headers and cards of models tell, with the answers that their user gave.

    Raises:
        PlanError: if there is no such target.
    """
    if target is not None and target not in TARGETS:
        raise PlanError(f"--target {target} is not one of {', '.join(TARGETS)}.{did_you_mean(target, TARGETS)}")
    cards = [checkpoint.source.card for checkpoint in checkpoints]
    return Known(
        target=target,
        has_base=has_base,
        data=tuple(_named(card, "datasets") for card in cards),
        starts=tuple(_named(card, "base_model") for card in cards),
        has_bn_stats=any(map(is_bn_stat, checkpoints[anchor].slot_map.slots)),
    )


def _named(card: Mapping[str, Any], entry: str) -> frozenset[str]:
    """The names in an entry of a card, one text or a list, without what the Hub does not tell apart in names."""
    stated = card.get(entry)
    texts = (each for each in (stated if isinstance(stated, list) else [stated]) if isinstance(each, str))
    return frozenset(name for text in texts if (name := unicodedata.normalize("NFC", text).strip().casefold()))


def _same(named: Sequence[frozenset[str]]) -> bool | None:
    return len(set(named)) == 1 if named and all(named) else None


def resolved(method: Method, advice: Advice) -> Method:
    """Return a method as it is, or in the place of `Auto` the advised one."""
    return make_method(advice.method, {}) if isinstance(method, Auto) else method
