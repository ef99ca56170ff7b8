"""Draw predictions over pictures, and write them as label and segment PNG files, or boxes as a table."""

from __future__ import annotations

import colorsys
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_lwmm.data.annotations import Boxes
from hf_lwmm.evaluation.inference import detect, panoptic, segment
from hf_lwmm.evaluation.keys import with_key
from hf_lwmm.evaluation.per_image import CONFIDENT
from hf_lwmm.evaluation.pictures import Picture
from hf_lwmm.evaluation.prediction_files import PredictionFiles
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import Target
from hf_lwmm.labels import label_sets, normalise
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.text import first_few, one_line

Colours = NDArray[np.uint8]


@dataclass(frozen=True)
class Prediction:
    """The files written for one picture, and the classes found in it.

    `parts` has their fractions of the pixels or, of a detector, `objects` the number of objects of each.
    """

    picture: Path
    files: tuple[Path, ...]
    parts: dict[str, float] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Predictions:
    """The pictures that were segmented, those that could not be read with the reason, and notes on the network."""

    done: tuple[Prediction, ...]
    failed: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = first_few([one_line(each.picture.name) for each in self.done])
        return f"<Predictions: {len(self.done)} done, {len(self.failed)} failed{names and ': '}{names}>"


def write_prediction(
    loaded: LoadedModel, path: Path, picture: Image.Image, files: PredictionFiles, opacity: float, key: bool
) -> Prediction:
    """Segment a picture, or find its objects, and write the result into files.

    Args:
        loaded: a semantic or panoptic network, or a detector.
        path: the file of the picture.
        picture: its content, 8-bit RGB.
        files: the places of the overlay, the labels (class ids, with the colours of the classes as palette) and, for
            panoptic networks, the segments (id = R + 256 G + 256^2 B, as in COCO) with their table in JSON. A detector
            has the overlay, and a table in JSON of its boxes.
        opacity: the opacity of the colours over the picture, from 0 to 1.
        key: write the classes that were found below the overlay, beside their colours.

    Raises:
        MergeError: if a file cannot be written.
        OutputError: if the network computes what is not finite.
    """
    ready = Picture.of(picture, [loaded], name=str(path))
    if loaded.task == "detection":
        return _write_boxes(loaded, path, picture, ready, files)
    colours, labels = class_colours(loaded.classes), segment([loaded], [ready])[0]
    parts = np.bincount(labels.reshape(-1), minlength=len(loaded.classes)) / labels.size
    shown = [index for index in np.argsort(-parts, kind="stable").tolist() if parts[index]]
    mixed = np.asarray(picture) * (1 - opacity) + colours[labels] * opacity
    overlay = Image.fromarray(mixed.round().astype(np.uint8))
    if key:
        entries = [(f"{loaded.classes[index]} {_percent(parts[index])}", colours[index]) for index in shown]
        overlay = with_key(overlay, entries, f"Classes found by {loaded.label}, in % of the picture.")
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette(colours.reshape(-1).tolist())
    written = [files.overlay, files.labels]
    save_picture(overlay, files.overlay)
    save_picture(indexed, files.labels)
    if loaded.task == "panoptic":
        _write_segments(loaded, panoptic(loaded, ready), files)
        written += [files.segments, files.table]
    shares = {loaded.classes[index]: float(parts[index]) for index in shown}
    return Prediction(path, tuple(each.path for each in written), shares)


def _percent(part: float) -> str:
    return f"{100 * part:.0f}" if part >= 0.005 else "<1"


def _write_boxes(
    loaded: LoadedModel, path: Path, picture: Image.Image, ready: Picture, files: PredictionFiles
) -> Prediction:
    """Draw the boxes of which a detector is confident, and write them with their classes and scores, best first."""
    found = confident(detect(loaded, ready))
    assert found.scores is not None
    save_picture(boxed(picture, found, loaded.classes, class_colours(loaded.classes)), files.overlay)
    rows = [
        {"category": loaded.classes[label], "score": score, "box": [round(corner, 2) for corner in box]}
        for box, label, score in zip(found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    ]
    with atomic(files.boxes) as place:
        place.write_text(json.dumps(sorted(rows, key=lambda row: -row["score"]), indent=1) + "\n", encoding="utf-8")
    numbers = Counter(row["category"] for row in rows)
    return Prediction(path, (files.overlay.path, files.boxes.path), objects=dict(numbers.most_common()))


def confident(boxes: Boxes) -> Boxes:
    """Return the predicted boxes whose scores are at least `CONFIDENT`; annotated ones have none, and all stay."""
    if boxes.scores is None:
        return boxes
    kept = boxes.scores >= CONFIDENT
    return Boxes(boxes.boxes[kept], boxes.labels[kept], boxes.scores[kept])


def boxed(picture: Image.Image, boxes: Boxes, classes: Sequence[str], colours: Colours) -> Image.Image:
    """Return a picture with boxes drawn into it in the colours of their classes, each with its class's name."""
    shown = picture.copy()
    pen = ImageDraw.Draw(shown)
    font = ImageFont.load_default(max(12, picture.height // 30))
    line = max(2, picture.height // 150)
    for corners, label in zip(boxes.boxes.tolist(), boxes.labels.tolist(), strict=True):
        colour = tuple(int(part) for part in colours[label])
        pen.rectangle(corners, outline=colour, width=line)
        pen.text((corners[0] + line, corners[1] + line), classes[label], fill=colour, font=font)
    return shown


def _write_segments(loaded: LoadedModel, codes: NDArray[np.int64], files: PredictionFiles) -> None:
    divisor = int(loaded.model.config.label_divisor)
    void = 255 * divisor
    ids = np.zeros(codes.shape, np.int64)
    segments = []
    for number, code in enumerate((int(code) for code in np.unique(codes) if code != void), start=1):
        ids[codes == code] = number
        category = loaded.classes[code // divisor]
        segments.append({"id": number, "category": category, "isthing": code % divisor > 0,
                         "area": int((codes == code).sum())})  # fmt: skip
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    save_picture(Image.fromarray(rgb), files.segments)
    with atomic(files.table) as place:
        place.write_text(json.dumps(segments, indent=1) + "\n", encoding="utf-8")


def save_picture(picture: Image.Image, target: Target | Path) -> None:
    """Write a picture in the format of the name's suffix; a file under this name is always whole.

    Raises:
        MergeError: if it cannot be written.
    """
    with atomic(target) as place:
        picture.save(place)


def class_colours(classes: Sequence[str]) -> Colours:
    """Return a colour for each class id, (256, 3) uint8.

    Classes that Cityscapes has get its colours, others get hues that lie far apart. Ids without a class are black.
    """
    city = label_sets()["cityscapes19"]
    known = {normalise(name): colour for name, colour in zip(city.classes, city.colours, strict=True)}
    table = np.zeros((256, 3), np.uint8)
    for index, name in enumerate(classes):
        hue = index * 0.618034 % 1  # the golden ratio spreads any number of hues
        other = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6 + 0.3 * (index % 2), 0.9))
        table[index] = known.get(normalise(name), other)
    return table
