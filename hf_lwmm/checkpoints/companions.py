"""Read what stands beside a model's weights: its config.json and the settings of its image processor.

Both come from the folder of the weights, as transformers reads them, and are checked before anything uses them. A local
file that is named by itself is read alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from hf_lwmm import hub
from hf_lwmm.errors import DocumentError
from hf_lwmm.files.documents import ForeignDocumentError, as_mapping, is_texts, read_json, read_yaml, shortened
from hf_lwmm.hub import Source
from hf_lwmm.labels import check_ids_once, class_names, normalise

CONFIG = "config.json"
# transformers 5 nests the settings in the first file; where it has none, they are in the second.
PROCESSORS = ("processor_config.json", "preprocessor_config.json")
COMPANIONS = (CONFIG, *PROCESSORS)
ADAPTER_CONFIG = "adapter_config.json"  # peft's: transformers loads the network that it names, and changes it
_DEFAULT_CLASSES = 2  # transformers' number where a config.json has none
_NESTED = "image_processor"
_LARGEST = 4096  # pixels on a side: prepared so, one picture takes a gigabyte


@dataclass(frozen=True)
class ModelConfig:
    """The content of a config.json without the entries that cannot be used, which `notes` name.

    `classes` are the names in `id2label`, or in timm's `label_names`, None if it has none or transformers' placeholders
    (LABEL_0, ...).
    """

    content: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProcessorSettings:
    """The settings of an image processor, and the name of the file that has them."""

    file: str
    content: Mapping[str, Any] = field(repr=False)

    @property
    def kind(self) -> str:
        """The class that the settings name, as it is called today; empty if they name none."""
        named = self.content.get("image_processor_type") or self.content.get("feature_extractor_type") or ""
        return str(named).replace("FeatureExtractor", "ImageProcessor")

    @property
    def reduces_labels(self) -> bool:
        """True if ids in label files are one more than the classes, and 0 stands for none."""
        return self.content.get("do_reduce_labels") is True

    @property
    def names_it_as_before(self) -> bool:
        """True if only `reduce_labels` says so, the name of the first versions, which transformers 5 passes over."""
        return self.content.get("reduce_labels") is True and self.content.get("do_reduce_labels") is None


RECIPE = "hf_lwmm.yaml"  # of a merge: what it was made of, and how
WEIGHTS_NAME = "transformers_weights"  # in a config.json: the file that transformers loads, whatever else is there
QUANTISATION = "quantization_config"  # in a config.json: how transformers quantises weights, or reads quantised ones


def other_weights(config: Mapping[str, Any], files: Collection[str], folder: str) -> str | None:
    """Return the file of weights that a config.json names, if it is none of `files`; None if it names none."""
    named = config.get(WEIGHTS_NAME)
    return None if named is None or beside(folder, str(named)) in files else str(named)


def beside(folder: str, name: str) -> str:
    """Return the path in a repository of a file that stands in the folder of the weights."""
    return (PurePosixPath(folder) / name).as_posix()


def loaded_beside(files: Collection[str], folder: str) -> tuple[str, ...]:
    """Return those of the files that libraries load together with the weights in a folder, whatever these are."""
    paths = (beside(folder, name) for name in COMPANIONS)
    return (*(path for path in paths if path in files), *adapters_beside(files, folder))


def adapters_beside(files: Collection[str], folder: str) -> tuple[str, ...]:
    """Return those of the files that change the network in a folder when it is loaded."""
    path = beside(folder, ADAPTER_CONFIG)
    return (path,) if path in files else ()


def companion(source: Source, folder: str, name: str) -> str | None:
    """Return the path of a file beside the weights; None if it is not there, or the source is a single local file.

    Raises:
        DocumentError: if what has the name is no file, such as a folder, a pipe, or a link to nothing.
    """
    path, root = beside(folder, name), source.ref.path
    if root is not None and root.is_file():
        return None
    if root is not None and path not in source.files and os.path.lexists(root / path):
        raise DocumentError(f"{source.label}: its {path} is no file. Take it away, or put the file in its place.")
    return path if path in source.files else None


def read_config(source: Source, folder: str) -> ModelConfig:
    """Return the config.json beside the weights, empty if there is none.

    Raises:
        DocumentError: if it is no JSON object, or names an id twice.
    """
    path = companion(source, folder, CONFIG)
    if path is None:
        if alone := _read_alone(source):
            return ModelConfig(notes=(alone,))
        top = companion(source, "", CONFIG)
        note = f"{source.label}: left out {top}, which does not stand beside the weights in {folder}"
        return ModelConfig(notes=(note,) if top else ())
    where = f"{source.label}, {path}"
    content = dict(_read(source, path))
    notes = []
    for name, (fits, wanted) in _CONFIG_ENTRIES.items():
        if content.get(name) is not None and not fits(content[name]):
            notes.append(f"{where}: left out {name}, which is {shortened(content.pop(name))}, not {wanted}")
    classes, faults = _classes(content, where)
    return ModelConfig(content, classes, (*notes, *faults))


def _read_alone(source: Source) -> str:
    """A note on the config.json beside a local file that is named by itself; empty if there is none."""
    path = source.ref.path
    if path is None or not path.is_file() or not os.path.lexists(path.with_name(CONFIG)):
        return ""
    folder = path.parent.name or "."  # the last part alone: the note may be published
    return f"{source.label}: left out the {CONFIG} beside it; to read it, too, name {folder}/:{path.name}"


def merged_branch(source: Source, files: Sequence[str]) -> str | None:
    """Return the branch that was merged into files of weights, None if a recipe beside them says nothing of it.

    Torch files are copies of the anchor's, with its other networks as they were; files of safetensors hold no others.
    """
    alone = source.ref.path if source.ref.path is not None and source.ref.path.is_file() else None
    if RECIPE not in source.files and (alone is None or not alone.with_name(RECIPE).is_file()):
        return None
    path = hub.fetch(source, RECIPE) if alone is None else alone.with_name(RECIPE)
    try:
        recipe = as_mapping(read_yaml(path, RECIPE), RECIPE)
    except DocumentError:
        return None  # whoever needs a recipe says what is wrong with it
    knobs, output = recipe.get("knobs"), recipe.get("output")
    written = isinstance(output, Mapping) and set(files) <= output.keys()
    branch = knobs.get("branch") if isinstance(knobs, Mapping) and written else None
    return branch if isinstance(branch, str) and branch else None


def read_processor(source: Source, folder: str) -> ProcessorSettings | None:
    """Return the settings of the image processor beside the weights; None if there are none.

    Raises:
        DocumentError: if a file is no JSON object, or has a setting of the wrong type.
    """
    for name in PROCESSORS:
        if (path := companion(source, folder, name)) is None:
            continue
        where, content = f"{source.label}, {path}", _read(source, path)
        if name == PROCESSORS[0]:
            if content.get(_NESTED) is None:
                continue
            where = f"{where}, {_NESTED}"
            content = as_mapping(content[_NESTED], where)
        _check_settings(content, where)
        return ProcessorSettings(path, content)
    return None


def _read(source: Source, path: str) -> Mapping[str, Any]:
    where = f"{source.label}, {path}"
    try:
        return as_mapping(read_json(hub.fetch(source, path), where), where)
    except ForeignDocumentError:
        raise
    except DocumentError as error:
        raise DocumentError(f"{error} Mend it, or take it away to go on without it.") from None


def placeholders(rows: int) -> tuple[str, ...]:
    """Return the names that transformers gives to the classes of a classifier that names none."""
    return tuple(f"LABEL_{row}" for row in range(rows))


def class_count(content: Mapping[str, Any]) -> int | None:
    """Return the number of classes that transformers reads in a config.json, None if the file is not transformers'."""
    stated: int | None = content.get("num_labels")
    if stated is not None:
        return stated
    if names := content.get("id2label"):
        return len(names)
    return _DEFAULT_CLASSES if "model_type" in content else None


def with_class_names(content: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return the content of a config.json with the names of classes, which say how many there are."""
    names = {str(row): name for row, name in enumerate(classes)}
    kept = {name: value for name, value in content.items() if name != "num_labels"}
    if kept.get("id2label") == names:
        return kept
    return {**kept, "id2label": names, "label2id": {name: row for row, name in enumerate(classes)}}


def label_names(content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names of classes that a config.json of timm has; None if it has none."""
    nested = content.get("pretrained_cfg")
    places = (content, nested if isinstance(nested, Mapping) else {})
    found: Any = next((names for place in places if (names := place.get("label_names") or place.get("labels"))), None)
    return tuple(found) if "architecture" in content and is_texts(found) else None


def _classes(content: dict[str, Any], where: str) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """The names in `id2label`, which is taken out of the content if it is of no use, and notes."""
    if not content.get("id2label"):
        names = label_names(content)
        return names, _twice(names or (), f"{where}, label_names")
    if isinstance(content["id2label"], Mapping):
        check_ids_once(content["id2label"], f"{where}, id2label")
    try:
        names = class_names(as_mapping(content["id2label"], f"{where}, id2label"), f"{where}, id2label")
    except DocumentError as error:
        del content["id2label"]
        content.pop("label2id", None)
        return None, (f"{error} So the classes count as unnamed",)
    if names == placeholders(len(names)):
        return None, ()
    return names, _twice(names, f"{where}, id2label")


def _twice(names: Sequence[str], where: str) -> tuple[str, ...]:
    """A note on the first name that two classes have, if there is one."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        if (first := rows.setdefault(normalise(name), row)) != row:
            return (f"{where}: names two classes {shortened(name)}, {first} and {row}",)
    return ()


def _is_auto_map(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, str) or (isinstance(each, list) and each and all(isinstance(one, str | None) for one in each))
        for each in value.values()
    )


def _is_label2id(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(each, int | str) and not isinstance(each, bool) for each in value.values()
    )


# The entries of a config.json that are used here, besides the network's own: the check of each, and its type in words.
_CONFIG_ENTRIES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "model_type": (lambda value: isinstance(value, str), "a text"),
    "architectures": (is_texts, "a list of texts"),
    "auto_map": (_is_auto_map, "an object of texts"),
    "label2id": (_is_label2id, "an object of ids"),
    "num_labels": (lambda value: isinstance(value, int) and not isinstance(value, bool) and value > 0, "a number"),
    "torch_dtype": (lambda value: isinstance(value, str), "a text"),
    "dtype": (lambda value: isinstance(value, str), "a text"),
}


def _check_settings(content: Mapping[str, Any], where: str) -> None:
    """Refuse settings with which a processor would fail at the first picture, or later."""
    for name, value in content.items():
        fits, wanted = _SETTINGS.get(name, _FLAG if name.startswith("do_") else _ANY)
        if value is not None and not fits(value):
            raise DocumentError(f"{where}: {name} is {shortened(value)}, not {wanted}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST


def _is_size(value: Any) -> bool:
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    return bool(parts) and all(part is None or _is_length(part) for part in parts)


def _is_numbers(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, list) and bool(value) and all(map(_is_number, value)))


def _is_spread(value: Any) -> bool:
    """True for what pixels can be divided by."""
    return _is_numbers(value) and all(part > 0 for part in (value if isinstance(value, list) else [value]))


_TEXT = (lambda value: isinstance(value, str), "a text")
_FLAG = (lambda value: isinstance(value, bool), "true or false")
_SIZE = (_is_size, f"a number of pixels to {_LARGEST:,}, or an object or a list of such numbers")
_NUMBERS = (_is_numbers, "a number or a list of numbers")
_ANY: tuple[Callable[[Any], bool], str] = (lambda value: True, "")
_SETTINGS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "image_processor_type": _TEXT,
    "feature_extractor_type": _TEXT,
    "auto_map": (_is_auto_map, "an object of texts"),
    "reduce_labels": _FLAG,
    "resample": (lambda value: isinstance(value, int) and value in range(6), "a number of PIL's filters, from 0 to 5"),
    "rescale_factor": (_is_number, "a number"),
    "image_mean": _NUMBERS,
    "image_std": (_is_spread, "a number above 0 or a list of such numbers"),
    **dict.fromkeys(("size", "crop_size", "pad_size", "window", "stride"), _SIZE),
}
