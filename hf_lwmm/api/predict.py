"""Segment pictures with a model, or find objects in them, and write the results into a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm.api.arguments import expect, expect_list
from hf_lwmm.errors import DatasetError, PlanError, naming_extras
from hf_lwmm.evaluation.prediction_files import prediction_files
from hf_lwmm.files.targets import check_target_folder
from hf_lwmm.files.walking import files_below
from hf_lwmm.hub.refs import Ref
from hf_lwmm.labels import IGNORE
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.progress import Progress, silent

if TYPE_CHECKING:
    from hf_lwmm.evaluation.overlays import Predictions
    from hf_lwmm.networks.loaded_model import LoadedModel


@naming_extras("Segmenting pictures", images=True)
def predict(
    model: Ref | LoadedModel,
    pictures: Sequence[str | Path],
    output: str | Path = "predictions",
    *,
    opacity: float = 0.6,
    key: bool = True,
    overwrite: bool = False,
    network: NetworkOptions = NetworkOptions(),
    progress: Progress = silent,
) -> Predictions:
    """Segment pictures, or find objects in them, and write the results into a folder.

    For each picture there are `NAME_overlay.png`, `NAME_labels.png` (class ids, with the colours of the classes as
    palette) and, for panoptic models, `NAME_segments.png` (id = R + 256 G + 256^2 B, as in COCO) with
    `NAME_segments.json`. Of a detector there are `NAME_overlay.png` with the boxes whose scores are at least 0.5, and
    `NAME_boxes.json`, which lists them.

    Args:
        model: a reference, as for `merge`, or a network that `load` returned.
        pictures: files, or folders of which all pictures are taken.
        output: the folder to write into.
        opacity: the opacity of the colours over the picture, from 0 to 1.
        key: write the classes that were found below each overlay, beside their colours; without it an overlay is as
            large as its picture.
        overwrite: replace files in it that have the names of new ones.
        network: how a model that is given as a reference becomes a network.
        progress: called with the number of pictures that are done.

    Returns:
        The files of each picture; pictures that cannot be read, or that the network cannot take, are skipped, and named
        with the reason.

    Raises:
        DatasetError: if a folder seems to hold masks beside pictures.
        PlanError: if there is no picture, or the model neither segments nor detects, or has more than 255 classes.
        MergeError: if a file exists (unless `overwrite`) or cannot be written, or the results would go into the model
            or among the pictures of a folder, or replace one of the pictures.
    """
    expect_list(pictures, "pictures")
    expect(network, NetworkOptions, "network")
    found = _files(pictures)
    folder = check_target_folder(Path(output), overwrite, [*local_inputs(model, network), *map(Path, pictures), *found])
    files = [prediction_files(folder, stem) for stem in _stems(found)]
    from hf_lwmm.data.decoding import decode_rgb
    from hf_lwmm.evaluation.overlays import Predictions, write_prediction
    from hf_lwmm.networks.loaded_model import LoadedModel
    from hf_lwmm.networks.loading import load

    loaded = model if isinstance(model, LoadedModel) else load(model, network)
    if loaded.task == "classification":
        raise PlanError(f"{loaded.label} is a {loaded.task} network; predict is for segmentation models and detectors.")
    if len(loaded.classes) > IGNORE:
        raise PlanError(f"{loaded.label} has {len(loaded.classes)} classes; label files hold up to {IGNORE}.")
    done, failed = [], []
    for index, (path, own) in enumerate(zip(found, files, strict=True)):
        progress("Segmenting", index, len(found))
        try:
            picture = decode_rgb(path, str(path))
            done.append(write_prediction(loaded, path, picture, own, opacity, key))
        except (DatasetError, PlanError) as error:  # no picture, or one that the network cannot take
            failed.append((path, str(error).removeprefix(f"{path}: ")))
    return Predictions(tuple(done), tuple(failed), (*_passed_over(pictures, found), *loaded.notes))


def _files(pictures: Sequence[str | Path]) -> list[Path]:
    from hf_lwmm.data.decoding import SUFFIXES
    from hf_lwmm.data.mixed import check_unmixed

    found: list[Path] = []
    for path in map(Path, pictures):
        if os.path.isdir(path):  # noqa: PTH112  (pathlib's fails for long texts)
            inside = [file for file in files_below(path) if file.suffix.lower() in SUFFIXES]
            check_unmixed(path, inside)
            found += inside
        else:
            found.append(path)
    if not found:
        raise PlanError(f"No pictures in {', '.join(map(str, pictures)) or 'what was named'} ({', '.join(SUFFIXES)}).")
    return found


def _passed_over(pictures: Sequence[str | Path], found: Sequence[Path]) -> list[str]:
    """Notes on files in the folders that were named which are none of the pictures that were found."""
    taken, notes = set(found), list[str]()
    for path in map(Path, pictures):
        others = [file for file in files_below(path) if file not in taken and not file.name.startswith(".")]
        if others:
            notes.append(f"{path}: {len(others)} of its files have no name of a picture, such as {others[0].name}")
    return notes


def _stems(pictures: Sequence[Path]) -> list[str]:
    """The beginnings of the names of the pictures' results, each once."""
    stems = dict[str, str]()  # by their lower case, since some file systems make no difference
    for path in pictures:
        names = (path.stem if number == 1 else f"{path.stem}-{number}" for number in count(1))
        name = next(name for name in names if name.casefold() not in stems)
        stems[name.casefold()] = name
    return list(stems.values())
