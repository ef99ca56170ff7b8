"""Find the network in what training code saves: a state dict, a container around one, or a whole module.

A container may have several copies of it. What wrappers do to names is another matter (`unwrapping`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hf_lwmm.checkpoints.copies import is_alike, is_ema, may_be_average, name_keys
from hf_lwmm.checkpoints.inert_pickle import Record, shown
from hf_lwmm.checkpoints.torch_tensors import elements, entries, is_module, is_tensor, module_state, module_tensors
from hf_lwmm.checkpoints.unwrapping import BRANCHES, without_pure_wrappers
from hf_lwmm.errors import CheckpointError
from hf_lwmm.layouts import named_parts

# Where training code keeps a model inside its checkpoint, most specific first.
_STATE_DICT_KEYS = (
    "student", "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "params",
    "weights",
)  # fmt: skip
SPLIT_KEYS = ("feature_extractor", "classifier")  # FADA: one state dict for each half of the network
_BACKBONES = ("encoder", "backbone", "feature_extractor")  # halves that other code keeps apart, and those behind them
_HEADS = ("decoder", "classifier", "head", "decode_head", "segmentation_head", "neck", "auxiliary_head")
_DEPTH = 3  # containers in each other
_BESIDE = "the tensors beside the entries"
_MMENGINE = ("ema_state_dict", "state_dict")  # the weights in training and their average, which its EMAHook swaps
_LONG = 100  # characters of a key that nobody gives a network
_LIGHTNING = "pytorch-lightning_version"

State = Mapping[str, Any]  # records of tensors by name


@dataclass(frozen=True)
class Network:
    """The tensors of one network by name, as records; its class names, None if unknown; what was chosen, and facts.

    `chosen` is true if an entry of the container was the branch that was asked for, `lightning` if the tensors are
    those of a Lightning module, and `whole` if they are those of a pickled module, by its own names. `holders` are the
    modules or state dicts in the file's content that hold them.
    """

    tensors: State
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    metadata: Mapping[str, str]
    chosen: bool = False
    lightning: bool = False
    whole: bool = False
    holders: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Found:
    """The tensors of an entry, in words where they are, and the keys of what lies among them and is none.

    `holders` are the values that hold them, `unread` says which part of a module cannot be read, and `is_module` is
    true for the tensors of a module.
    """

    tensors: State
    holders: tuple[Any, ...]
    place: str = ""
    skipped: tuple[Any, ...] = ()
    unread: str = ""
    is_module: bool = False


@dataclass(frozen=True)
class _Copies:
    """The student and the moving average in a container, None where there is none, and further networks in it.

    `others` says in words where those are, each with the key that `--branch` takes it by, "" if it does not.
    """

    student: _Found | None = None
    teacher: _Found | None = None
    others: tuple[tuple[str, str], ...] = ()

    @property
    def first(self) -> _Found | None:
        """The student, or the average where it is alone."""
        return self.student or self.teacher


def find_network(content: Any, branch: str, file: str) -> Network:
    """Find a network in the content of a torch file.

    Args:
        content: what the file holds, as `read_archive` returns it.
        branch: the student or the EMA teacher of a training run, or the name of an entry.
        file: the file's name, for messages.

    Raises:
        CheckpointError: if there is no network.
    """
    search = _Search(file)
    container = entries(content)
    copies = search.copies(content)
    student, teacher, others = copies.student, copies.teacher, copies.others
    named = None if branch in BRANCHES else search.within(container.get(branch), f"the entry {shown(branch)}").first
    if named is not None:
        found, chosen, other, rest, others = named, True, None, "", ()
    elif teacher and (branch == "teacher" or not student):
        if branch == "student" and (place := search.deeper(container, teacher)):
            raise CheckpointError(
                f"{file}: {place} seems to be the student, but is not under a usual name. Save it alone, or take the "
                "average with --branch teacher."
            )
        found, chosen, other, rest = teacher, True, student, "student"
    elif student:
        found, chosen, other, rest = student, False, teacher, "teacher"
    else:
        raise search.no_network(content)
    if found.unread:
        raise CheckpointError(f"{file}: {found.unread}. Save `model.state_dict()` instead.")
    notes = [f"{file}: read {found.place}"] if found.place else []
    if other:
        notes = [f"{file}: read {found.place or _BESIDE}; left out {other.place or _BESIDE} (--branch {rest})"]
        if rest == "teacher" and found.is_module and other.is_module and "ema" in container:
            notes.append(f"{file}: the code of ultralytics loads ema from such a file: --branch teacher merges that")
    if found is not named and _is_swapped(container):
        notes.append(f"{file}: mmengine saves the average as {_MMENGINE[1]}, the weights in training as {_MMENGINE[0]}")
    if others:
        some = ", ".join(place + (f" (--branch {shown(key)} takes it)" if key else "") for place, key in others[:3])
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        notes.append(f"{file}: left out {some}{more}")
    if found.skipped:
        some = ", ".join(map(shown, found.skipped[:3]))
        more = f" and {len(found.skipped) - 3:,} more" if len(found.skipped) > 3 else ""
        what = "is no tensor" if all(isinstance(each, str) for each in found.skipped) else "is no tensor under a text"
        notes.append(f"{file}: left out what {what}: {some}{more}")
    return Network(
        found.tensors,
        _classes(content),
        tuple(notes),
        _metadata(content),
        chosen,
        _LIGHTNING in container,
        found.is_module,
        found.holders,
    )


class _Search:
    """Look for networks in the content of a file, and at nothing in it twice: entries may share what they hold."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._seen: dict[tuple[int, int], _Copies] = {}
        self._keys: dict[int, tuple[State, set[str]]] = {}

    def copies(self, content: Any, depth: int = _DEPTH) -> _Copies:
        """The networks in a container, or in what its entries contain."""
        container = entries(content)
        student, inner = self.halves(container, SPLIT_KEYS), _Copies()
        teacher: _Found | None = None
        keys = _MMENGINE[:1] if _is_swapped(container) else _STATE_DICT_KEYS
        for key in keys if student is None else ():
            inner = self.within(container.get(key), _entry(key), depth)
            student, teacher = inner.student, teacher or inner.teacher
            if student:
                break
        student = student or self.halves(container, (*_BACKBONES, *_HEADS))
        own = self.own(content)
        # Single tensors beside a network, such as a queue of features, are none.
        if own and (student is None or len(own.tensors) > len(student.tensors)):
            student = own
        average = self._average(container, depth, student, certain=teacher is not None)
        others = [*inner.others, *((copy.place, "") for copy in (teacher,) if copy and average)]
        teacher = average or teacher
        taken = {id(holder) for copy in (student, teacher) if copy for holder in copy.holders}
        for key, value in container.items() if taken else ():
            if not isinstance(key, str) or len(key) >= _LONG or is_tensor(value):
                continue
            other = self.within(value, _entry(key), depth).first
            if other and taken.isdisjoint(map(id, other.holders)) and self._is_network(other, student):
                others.append((other.place, "" if key in BRANCHES else key))
        return _Copies(student, teacher, tuple(others))

    def _average(
        self, container: Mapping[Any, Any], depth: int, student: _Found | None, *, certain: bool
    ) -> _Found | None:
        """The average of weights in a container; with `certain`, only one that its name says to be one."""
        for key, value in _averages(container):
            if found := self.within(value, _entry(key), depth).first:
                return found
        for key, value in container.items() if not certain else ():
            if isinstance(key, str) and len(key) < _LONG and may_be_average(key):
                found = self.within(value, _entry(key), depth).first
                if found and (self._alike(found, student) if student else self._is_network(found, None)):
                    return found
        return None

    def _is_network(self, found: _Found, student: _Found | None) -> bool:
        """True for tensors in modules, or those of another network, rather than for a meter's or a queue."""
        return any("." in name for name in found.tensors) or (student is not None and self._alike(found, student))

    def _alike(self, found: _Found, student: _Found) -> bool:
        for each in (found, student):
            if id(each.tensors) not in self._keys:
                self._keys[id(each.tensors)] = (each.tensors, name_keys(each.tensors))
        return is_alike(self._keys[id(found.tensors)][1], self._keys[id(student.tensors)][1])

    def deeper(self, container: Mapping[Any, Any], teacher: _Found) -> str | None:
        """Say where an entry with a usual name has a network like the average under a name of its own; None if none."""
        for key in _STATE_DICT_KEYS:
            for inner, value in entries(container.get(key)).items():
                found = self.within(value, "").first if isinstance(inner, str) and len(inner) < _LONG else None
                if found and self._alike(found, teacher):
                    return f"{shown(inner)} in {_entry(key)}"
        return None

    def within(self, value: Any, place: str, depth: int = _DEPTH) -> _Copies:
        """The networks in an entry of a container, which `place` says in words."""
        if depth == 0 or not (entries(value) or elements(value) or is_module(value)):
            return _Copies()
        if (key := (id(value), depth)) not in self._seen:
            self._seen[key] = self.copies(value, depth - 1)
        found = self._seen[key]
        place += ", a whole module" if is_module(value) else ""

        def placed(copy: _Found | None) -> _Found | None:
            inner = f"{copy.place} in " if copy and copy.place and found.student and found.teacher else ""
            return replace(copy, place=inner + place) if copy else None

        others = tuple((f"{inner} in {place}", "") for inner, _ in found.others)
        return _Copies(placed(found.student), placed(found.teacher), others)

    def own(self, value: Any) -> _Found | None:
        """The tensors that a value holds itself, as a module, a state dict or a list; None if there are none."""
        if is_module(value):
            try:
                parts = dict(module_tensors(value))
            except RecursionError:
                raise CheckpointError(
                    f"{self.file}: its modules contain themselves, or are too many to be a network."
                ) from None
            tensors = {name: part for name, part in parts.items() if is_tensor(part)}
            others = [
                f"'{shown(name)}' of its module is a {_kind(part)}"
                for name, part in parts.items()
                if name not in tensors
            ]
            unread = f"{others[0]}, which cannot be read" if others else ""
            return _Found(tensors, (value,), "the tensors of a whole module", (), unread, True) if parts else None
        listed = elements(value)
        if len(listed) == 1 and (only := _state_dict(listed[0], entries(listed[0]))):
            return replace(only, place="the only element of a list")
        if listed and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in listed):
            found = _state_dict(value, {name: tensor for name, tensor in listed if isinstance(name, str)})
            return replace(found, place="a list of names and tensors") if found else None
        return _state_dict(value, entries(value))

    def halves(self, container: Mapping[Any, Any], keys: Sequence[str]) -> _Found | None:
        """The parts of a network that are state dicts of their own, joined; None if there are not both halves.

        Their names get the entry's in front, unless some code base calls more parts as they are called without.
        """
        parts = {key: found for key in keys if key in container and (found := self.own(container[key]))}
        if parts.keys().isdisjoint(_BACKBONES) or parts.keys().isdisjoint(_HEADS):
            return None
        plain: dict[str, Any] = {}
        longer: dict[str, Any] = {}
        for key, part in parts.items():
            names = without_pure_wrappers({name: name for name in part.tensors})
            plain |= {name: part.tensors[stored] for name, stored in names.items()}
            longer |= {f"{key}.{name}": part.tensors[stored] for name, stored in names.items()}
        shorter = len(plain) == len(longer) and named_parts(plain) > named_parts(longer)
        skipped = tuple(name for part in parts.values() for name in part.skipped)
        unread = next((part.unread for part in parts.values() if part.unread), "")
        holders = tuple(holder for part in parts.values() for holder in part.holders)
        return _Found(plain if shorter else longer, holders, f"the entries {' and '.join(parts)}", skipped, unread)

    def no_network(self, content: Any) -> CheckpointError:
        """The error that says what there is instead of a network."""
        found = entries(content)
        if not found:
            return CheckpointError(
                f"{self.file}: holds a {_kind(content)}, not a state dict. Save `model.state_dict()` instead."
            )
        names = ", ".join(map(shown, list(found)[:8]))
        holding = next(
            (key for key, value in found.items() if isinstance(key, str) and self.within(value, "").first), None
        )
        if holding is None:
            return CheckpointError(
                f"{self.file}: found no state dict in it, only: {names}. Save `model.state_dict()` alone."
            )
        return CheckpointError(
            f"{self.file}: found no state dict under a usual name, only: {names}. Say which entry is the network, such "
            f"as --branch {shown(holding)}"
        )


def _kind(value: Any) -> str:
    return shown(value) if isinstance(value, Record) else type(value).__name__.strip("_")


def _state_dict(holder: Any, found: Mapping[Any, Any]) -> _Found | None:
    tensors = {name: value for name, value in found.items() if isinstance(name, str) and is_tensor(value)}
    skipped = tuple(name for name in found if name not in tensors)
    return _Found(tensors, (holder,), "", skipped) if tensors else None


def _entry(key: str) -> str:
    return f"the entry {shown(key)}"


def _is_swapped(container: Mapping[Any, Any]) -> bool:
    """True for what mmengine saved with the average of the weights in the place of the weights."""
    return "mmengine_version" in entries(container.get("meta")) and all(map(container.get, _MMENGINE))


def _averages(container: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """The entries that are called like moving averages of weights, also among the states of Lightning's callbacks."""
    if _is_swapped(container):
        yield _MMENGINE[1], container[_MMENGINE[1]]
        return
    states = (container, *entries(container.get("callbacks")).values())
    for state in states:
        for key, value in entries(state).items():
            if isinstance(key, str) and len(key) < _LONG and is_ema(key):
                yield key, value


def _classes(content: Any) -> tuple[str, ...] | None:
    """The class names that a container holds, wherever its training code keeps them."""
    for names in _class_lists(content):
        if entries(names) and all(type(key) is int for key in entries(names)):
            names = [entries(names)[key] for key in sorted(entries(names))]
        if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
            return tuple(names)
    return None


def _class_lists(content: Any) -> Iterator[Any]:
    found = entries(content)
    meta = entries(found.get("meta"))
    runtime = entries(entries(found.get("message_hub")).get("runtime_info"))
    yield meta.get("CLASSES")  # mmcv
    for each in (meta, runtime):  # mmengine
        yield entries(each.get("dataset_meta")).get("classes")
    settings = entries(found.get("hyper_parameters"))  # Lightning
    for key in ("id2label", "class_names", "classes", "labels"):
        yield settings.get(key)
    for module in (content, *(found.get(key) for key in (*_STATE_DICT_KEYS, "ema"))):  # ultralytics
        yield module_state(module).get("names")


def _metadata(content: Any) -> Mapping[str, str]:
    """Facts of a training run that a container holds: how long it was, and the software."""
    found = entries(content)
    meta = entries(found.get("meta"))
    facts = {}
    for name, value in (*meta.items(), *found.items()):
        if name in _FACTS and isinstance(value, str | int | float) and not isinstance(value, bool):
            facts[_FACTS[name]] = str(value)[:100]
    return facts


_FACTS = {
    "epoch": "epoch",
    "iter": "iteration",
    "iteration": "iteration",
    "global_step": "iteration",
    "time": "time",
    "date": "time",
    "mmcv_version": "mmcv",
    "mmseg_version": "mmsegmentation",
    "mmengine_version": "mmengine",
    "pytorch-lightning_version": "lightning",
    "version": "version",
}
