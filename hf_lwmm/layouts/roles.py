"""The role of a slot in its network: backbone or head, weight or running statistic, and its place in depth order."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from hf_lwmm.layouts.guessing import first_guessed_keys, guessed_keys
from hf_lwmm.layouts.layout import Component, Place
from hf_lwmm.layouts.registry import COMPONENTS


@lru_cache(maxsize=1 << 16)
def place_of(slot: str) -> tuple[Component, Place] | None:
    """Return the component of a slot and the slot's place in its outline; None for a slot that no layout knows."""
    name, _, inner = slot.partition(".")
    component = COMPONENTS.get(name)
    place = component.place(inner) if component else None
    return (component, place) if component and place else None


def companion_of(slot: str) -> str:
    """Return the slot that is added to this one before it is used, or ''."""
    place = place_of(slot)
    return f"{place[0].name}.{place[1].companion}" if place and place[1].companion else ""


def in_backbone(slot: str) -> bool:
    """Return True if the slot is known to be part of a backbone."""
    found = place_of(slot)
    return found is not None and found[0].kind == "backbone"


def is_bn_stat(slot: str) -> bool:
    """Return True if the slot holds the running mean or variance of a normalisation layer."""
    return slot.endswith((".running_mean", ".running_var"))


def is_variance(name: str) -> bool:
    """Return True if a slot, or a tensor of a torch module, is the running variance of a normalisation layer."""
    return name.endswith("running_var")


_OUTPUT = re.compile(
    r"classifier|class_?embed|cls(_seg)?|fc|logits?|conv_seg|linear_pred|seg(mentation)?_?head|score|head", re.I
)
# Modules of detectors in transformers, whose classifier may be several layers. These have a row for what is no object.
_WITH_NO_OBJECT = {"class_labels_classifier", "class_predictor", "denoising_class_embed"}
_OF_DETECTORS = {*_WITH_NO_OBJECT, "enc_score_head"}


def names_a_classifier(slot: str) -> bool:
    """Return True if a slot is a classifier's, or, where no layout knows it, has a name that classifiers have."""
    found = place_of(slot)
    if found is not None:
        return "classes" in found[1].flags
    modules = slot.split(".")[:-1]
    return any(map(_OUTPUT.fullmatch, modules[-2:])) or not _OF_DETECTORS.isdisjoint(modules)


def classes_of_rows(slot: str, rows: int) -> int:
    """Return the number of classes of a known classifier with this many rows."""
    return rows // rows_of_a_class(slot) - has_background_row(slot)


def rows_of_a_class(slot: str) -> int:
    """Return 4 for a known layer with four coordinates of a box for each class, 1 for any other."""
    found = place_of(slot)
    return 4 if found is not None and "boxes" in found[1].flags else 1


def has_background_row(slot: str) -> bool:
    """Return True for a known classifier of a detector that has the background before the classes."""
    found = place_of(slot)
    return found is not None and "background" in found[1].flags


def has_no_object_row(slot: str) -> bool:
    """Return True for a classifier of transformers' detectors, which has one more row than classes, the last."""
    return not _WITH_NO_OBJECT.isdisjoint(slot.split("."))


def depth_order(slots: Iterable[str], *, first_guess: bool = False) -> list[str]:
    """Return slots in the order in which a forward pass first uses them (methods/README.md, section 4).

    Heads that run side by side are ordered by their distance, in modules, from the end of the backbone. Slots that no
    layout knows are ordered by their names, with `first_guess` as recipes up to schema 2 rest on.
    """
    backbone: dict[str, tuple[object, ...]] = {}
    heads: dict[str, dict[str, tuple[object, ...]]] = {}
    unknown = []
    for slot in slots:
        found = place_of(slot)
        if found is None:
            unknown.append(slot)
        elif found[0].kind == "backbone":
            backbone[slot] = (found[1].key, found[1].leaf_rank, slot)
        else:
            heads.setdefault(found[0].name, {})[slot] = (found[1].key, found[1].leaf_rank, slot)
    if unknown:
        heads[""] = (first_guessed_keys if first_guess else guessed_keys)(unknown)
    behind: dict[str, tuple[object, ...]] = {}
    for rank, name in enumerate(sorted(heads, key=lambda name: (name == "", -len(heads[name]), name))):
        distances = {key: i for i, key in enumerate(sorted({key[0] for key in heads[name].values()}))}  # type: ignore[type-var]
        behind |= {slot: (distances[key[0]], rank, *key[1:]) for slot, key in heads[name].items()}
    return [*sorted(backbone, key=lambda s: backbone[s]), *sorted(behind, key=lambda s: behind[s])]
