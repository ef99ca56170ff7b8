"""Tell the copies of a network apart that training keeps side by side: student, moving average, ImageNet weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hf_lwmm.checkpoints.inert_pickle import shown

_EMA, _IMAGENET = {"ema", "teacher"}, {"imnet", "imagenet"}
_AVERAGED = {"swa", "averaged", "average", "avg", "shadow"}  # also what other things than weights are called
_CERTAIN = ("ema_model", "imnet_model")  # of self-training code, whatever else there is
_FLAT = "ema_"  # mmcv keeps averages as buffers of the network, such as ema_backbone_norm1_weight
_INSIDE = re.compile(r"^((module|_orig_mod)\.)+")

Names = Mapping[str, str]  # stored names, by the names that the tensors get


@dataclass(frozen=True)
class Copies:
    """The copies of a network: the names of each, and in words where they are. A copy that is not there is empty."""

    student: Names
    teacher: Names
    student_place: str
    teacher_place: str
    others: tuple[str, ...]
    total: int

    def chosen(self, branch: str) -> tuple[Names, str]:
        """Return the names of a branch, or of the only copy, and say which it is and which are left out."""
        is_teacher = bool(self.teacher) and (branch == "teacher" or not self.student)
        names = self.teacher if is_teacher else self.student
        taken = f"the teacher ({self.teacher_place})" if is_teacher else f"the student ({self.student_place})"
        other = f"{self.student_place} (--branch student)" if is_teacher else f"{self.teacher_place} (--branch teacher)"
        left = ", ".join([*([other] if self.student and self.teacher else []), *self.others])
        return names, f"{taken}, {len(names):,} of {self.total:,} tensors" + (f"; left out {left}" if left else "")


def tokens(name: str) -> list[str]:
    """Return the words of a module's name."""
    return re.split(r"[_\W]+", name.lower())


def is_ema(name: str) -> bool:
    """Return True if a name says that it is the moving average of weights, such as `model_ema` or `teacher`."""
    return not _EMA.isdisjoint(tokens(name))


def may_be_average(name: str) -> bool:
    """Return True if a name may be that of averaged weights, such as `swa_model`; `exp_avg` is an optimizer's."""
    words = tokens(name)
    return not _AVERAGED.isdisjoint(words) and "exp" not in words


def split_copies(names: Names) -> Copies | None:
    """Find the copies of a network among tensors, by their names and by what they share; None if there are none."""
    groups: dict[str, dict[str, str]] = {}
    for name, stored in names.items():
        first, _, rest = name.partition(".")
        groups.setdefault(first if rest else "", {})[rest or name] = stored
    lone = groups.pop("", {})
    if not any(map(_is_marked, groups)) and not any(name.startswith(_FLAT) for name in lone):
        return None
    plain = {first: group for first, group in groups.items() if not _is_marked(first)}
    own = {n: stored for n, stored in names.items() if n in lone or n.partition(".")[0] in plain}
    keys = name_keys(own)
    flat = [name for name in lone if name.startswith(_FLAT) and _key(name[len(_FLAT) :]) in keys]
    averaged = {name[len(_FLAT) :]: own.pop(name) for name in flat}
    copied = [first for first in groups if first not in plain and _is_copy(first, groups[first], own, plain)]
    averages = sorted(filter(is_ema, copied), key=lambda first: -len(groups[first]))
    model = next(iter([*averages, *copied]), "")
    student, place = _student(own, plain, groups.get(model, {}), model)
    if averages:
        teacher, teacher_place = _spelt_out(groups[model], student), f"{shown(model)}.*"
    else:
        teacher = {**student, **_spelt_out(averaged, student)} if flat else {}
        teacher_place = f"{_FLAT}*"
    if not (copied or flat) or not (student or teacher):
        return None
    others = tuple(f"{shown(first)}.*" for first in copied if first != model or not averages)
    return Copies(student, teacher, place, teacher_place, others, len(names))


def _is_copy(first: str, group: Names, own: Names, plain: Mapping[str, Names]) -> bool:
    return first in _CERTAIN or any(_resembles(group, each) for each in (own, *plain.values()))


def _is_marked(first: str) -> bool:
    return not (_EMA | _IMAGENET).isdisjoint(tokens(first))


def _student(own: Names, plain: Mapping[str, Names], copy: Names, name: str) -> tuple[Names, str]:
    """The tensors that are copied, under the names that they have within their module, and where they are."""
    alike = [first for first, group in plain.items() if _resembles(copy, group)]
    rest = "_".join(word for word in tokens(name) if word not in _EMA | _IMAGENET) or "student"
    if len(alike) > 1:  # several networks have these names; the copy may be called after one
        alike = [first for first in alike if first == rest]
    if alike:
        return plain[alike[0]], f"{shown(alike[0])}.*"
    if "model" in plain and name in _CERTAIN:
        return plain["model"], "model.*"
    return (own, "all others") if _resembles(copy, own) or not copy else ({}, "")


def _key(name: str) -> str:
    """A name without what wrappers put before it, and without the separators that some averages leave out."""
    return re.sub(r"[._]", "", _INSIDE.sub("", name))


def name_keys(names: Iterable[str]) -> set[str]:
    """Return what names are compared by: without what wrappers put before them, and without separators."""
    return {_key(name) for name in names}


def _resembles(copy: Names, network: Names) -> bool:
    """True if at least half of a copy's tensors are called like tensors of the network."""
    return is_alike(name_keys(copy), name_keys(network))


def is_alike(keys: set[str], network: set[str]) -> bool:
    """Return True if at least half of the keys of names are among those of a network."""
    return bool(keys) and 2 * len(keys & network) >= len(keys)


def _spelt_out(copy: Names, network: Names) -> dict[str, str]:
    """A copy's names; those that lack their separators become the network's."""
    spelt: dict[str, list[str]] = {}
    for name in network:
        spelt.setdefault(_key(name), []).append(name)
    found = {}
    for name, stored in copy.items():
        same = spelt.get(_key(name), [])
        found[same[0] if "." not in name and len(same) == 1 else name] = stored
    return found
