"""Find one network in the names of tensors: wrappers before them, copies side by side, losses in between.

It looks at names alone, so that every kind of file is treated alike. Nothing is taken from the middle of a name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hf_lwmm.checkpoints.copies import is_ema, split_copies, tokens
from hf_lwmm.checkpoints.hosted import Hosted
from hf_lwmm.checkpoints.inert_pickle import shown
from hf_lwmm.errors import CheckpointError
from hf_lwmm.layouts import backbone_prefixes, named_parts
from hf_lwmm.options import did_you_mean

BRANCHES = ("student", "teacher", "all")
# DataParallel and AveragedModel, and torch.compile, put these before all names; no network has them in its own.
_PURE = re.compile(r"((module|_orig_mod)\.)+")
_COUNTERS = {"n_averaged", "steps"}  # of the AveragedModel of torch and of mmengine, beside the network
_WRAPPERS = (  # what training code calls a network within it, and no class of transformers
    "net", "network", "segmentor", "segmenter", "student", "teacher", "student_model", "teacher_model",
)  # fmt: skip
_LOSS = re.compile(r"crit(erion)?s?|.*loss(es)?|metrics")
_METRIC = re.compile(
    r"metric|m?iou|acc|accuracy|confmat|f1|dice|jaccard"
)  # also what heads that predict one are called
_LAYER, _MEAN = {"weight", "bias"}, {"mean_value", "value"}  # a mean metric's `weight` has its value beside it

_LAYERS, _DEPTH = 8, 6  # of wrappers around each other, and of names that one wrapper may have
_Texts = TypeVar("_Texts", str, list[str])
Names = Mapping[str, str]  # stored names, by the names that the tensors get


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of one network: their stored names, by the names that they get; what was chosen and left out."""

    names: Names
    notes: tuple[str, ...] = ()


def without_pure_wrappers(names: Names) -> Names:
    """Take wrappers off that stand before all names and that are never part of a network's own."""
    counted = {name: stored for name, stored in names.items() if name not in _COUNTERS}
    for inner in (names, counted):
        if inner and (prefix := _PURE.match(_common(min(inner), max(inner)))) and prefix[0] not in inner:
            cut = {name[len(prefix[0]) :]: stored for name, stored in inner.items()}
            return without_pure_wrappers(cut) if inner is names and not _COUNTERS.isdisjoint(cut) else cut
    return names


def unwrap(
    stored: Iterable[str],
    branch: str,
    label: str,
    *,
    hosted: Hosted | None = None,
    lightning: bool = False,
    whole: bool = False,
) -> Unwrapped:
    """Choose the tensors of one network, and find the names that its own code gives them.

    Args:
        stored: the names of all tensors.
        branch: the one of several copies: `student`, `teacher` (the moving average of the weights), or the beginning of
            its names; `all` takes all tensors for one network.
        label: the model's name, for messages.
        hosted: the class that reads the tensors by these names, if there is one, so that only wrappers are taken off
            that it does not have.
        lightning: whether they are a Lightning module's, which has losses and metrics beside its network.
        whole: whether they are a pickled module's, whose own class has these names: they change only where some code
            base is known by the shorter ones.

    Raises:
        CheckpointError: if the branch is not there, or if there are several networks and none was chosen.
    """
    notes: list[str] = []
    names = without_pure_wrappers({name: name for name in stored})
    if branch not in BRANCHES:
        names, branch = _under(names, branch, label), "student"
        notes.append(f"{label}: took the {len(names):,} tensors of this branch")
    every, has_teacher = branch == "all", False
    for _ in range(_LAYERS):
        before = names
        names = without_pure_wrappers(names)
        if not every and (copies := split_copies(names)):
            has_teacher |= bool(copies.teacher)
            chosen, choice = copies.chosen(branch)
            names = without_pure_wrappers(chosen)
            notes.append(f"{label}: took {choice}")
        if not every:
            _check_single(names, label)
        if lightning:
            names = _without_losses(names, names, notes, label)
        if prefix := _wrapper(names, *_rules(hosted, whole=whole)):
            has_teacher |= is_ema(prefix)
            names = _unwrapped(names, prefix, notes, label)
        if names == before:
            break
    if branch == "teacher" and not has_teacher:
        raise CheckpointError(f"{label}: has no teacher weights (such as ema_model.*); leave out --branch teacher.")
    return Unwrapped(names, tuple(notes))


def _under(names: Names, branch: str, label: str) -> Names:
    prefix = branch.rstrip(".") + "."
    chosen = {name[len(prefix) :]: stored for name, stored in names.items() if name.startswith(prefix)}
    if not chosen:
        firsts = list(dict.fromkeys(name.partition(".")[0] for name in names))
        have = ", ".join(map(shown, firsts[:8])) + (", ..." if len(firsts) > 8 else "")
        hint = did_you_mean(branch, (*BRANCHES, *firsts))
        raise CheckpointError(f"{label}: has no branch {shown(branch)}; its names begin with {have}.{hint}")
    return chosen


def _check_single(names: Names, label: str) -> None:
    """Refuse tensors of several networks of one kind."""
    prefixes = backbone_prefixes(names)
    if len(prefixes) < 2:
        return
    listed = ", ".join(f"{shown(prefix)}*" if prefix else "no prefix" for prefix in prefixes)
    one = shown(next(filter(None, prefixes)).rstrip("."))
    raise CheckpointError(
        f"{label}: holds several networks with the same backbone ({listed}). Say which: --branch {one} takes one, "
        "--branch all the file as it is. For one model of several, write it out first: hf-lwmm convert MODEL FILE "
        f"--to LAYOUT --branch {one}"
    )


def _losses(names: Iterable[str]) -> set[str]:
    """The names of losses, and of metrics with what they have counted: a module with layers is a head."""
    leaves: dict[str, list[str]] = {}
    for name in names:
        leaves.setdefault(name.partition(".")[0], []).append(name)
    found: set[str] = set()
    for first, group in leaves.items():
        words, ends = tokens(first), {name.rpartition(".")[2] for name in group}
        counts = _LAYER.isdisjoint(ends) or not _MEAN.isdisjoint(ends)
        if any(_LOSS.fullmatch(word) or (counts and _METRIC.fullmatch(word)) for word in words):
            found.update(group)
    return found


def _without_losses(names: Names, beside: Iterable[str], notes: list[str], label: str) -> Names:
    """The names without those of losses and metrics among `beside`, unless there is nothing else."""
    losses = _losses(beside)
    if not losses or len(losses) == len(names):
        return names
    firsts = ", ".join(sorted({shown(name.partition(".")[0]) for name in losses})[:5])
    notes.append(f"{label}: left out losses and metrics beside the network: {firsts}")
    return {name: stored for name, stored in names.items() if name not in losses}


def _rules(hosted: Hosted | None, *, whole: bool) -> tuple[Collection[str], Callable[[Iterable[str]], int]]:
    """The words that are wrappers where all tensors have them, and how the parts of a network are counted."""
    if hosted is None:
        return ((), named_parts) if whole else (("model", *_WRAPPERS), named_parts)
    return _WRAPPERS if hosted.kind else (), hosted.parts


def _wrapper(names: Names, words: Collection[str], count_parts: Callable[[Iterable[str]], int]) -> str:
    """The prefix of a wrapper that most names have: without it, more parts are called as some code base calls them.

    It is all tensors' but those of losses, or has more than one part under it. `words` of training code go even if no
    code base is known, where all tensors have them. "" if there is none.
    """
    count = Counter(name.partition(".")[0] for name in names)
    first, most = max(count.items(), key=lambda item: item[1], default=("", 0))
    inner = [name.split(".")[:-1] for name in names if name.startswith(first + ".")]
    if 2 * most < len(names) or not all(inner) or not inner:
        return ""
    shared = len(inner) == len(names)
    others = [name for name in names if not name.startswith(first + ".")]
    alone = shared or len(_losses(others)) == len(others)
    known, found = count_parts(names), ""
    best = known
    for depth in range(1, min(len(_common(min(inner), max(inner))), _DEPTH) + 1):
        prefix = ".".join(inner[0][:depth]) + "."
        parts = count_parts([name.removeprefix(prefix) for name in names])
        if parts > best and (alone or parts > 1):
            best, found = parts, prefix
        elif depth == 1 and not found and shared and first in words and parts >= known:
            found = prefix
    return found


def _common(low: _Texts, high: _Texts) -> _Texts:
    """The beginning that two texts, or lists of them, have in common; the first and the last of many have all's."""
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _unwrapped(names: Names, prefix: str, notes: list[str], label: str) -> Names:
    """The names without a prefix, and without the losses beside it; what else is beside it keeps its name."""
    names = _without_losses(names, [name for name in names if not name.startswith(prefix)], notes, label)
    cut = {name.removeprefix(prefix): stored for name, stored in names.items()}
    if len(cut) < len(names):
        return names
    notes.append(f"{label}: read without the prefix {shown(prefix)} of its names")
    return cut
