"""Sheets of pictures: an image, its labels, what each model sees, and where the last model and the anchor differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_lwmm.data.annotations import IGNORE, Boxes, PanopticMap
from hf_lwmm.data.loading import Sample
from hf_lwmm.evaluation.inference import classify
from hf_lwmm.evaluation.overlays import class_colours
from hf_lwmm.evaluation.per_image import CONFIDENT, ScoringPlan, boxes_in, class_maps, label_of, segments_in
from hf_lwmm.evaluation.report import EvaluationReport

WIDTH, COLUMNS = 360, 3  # of one picture, and how many stand beside each other
_TITLE, _GAP = 24, 4
_AGREES = 230  # grey
Pixels = NDArray[np.uint8]


def draw_example(sample: Sample, setting: ScoringPlan) -> Image.Image:
    """A sheet: image, labels, every model, and of more than one model where the last single one and the anchor differ.

    Class maps are in Cityscapes' colours where they have its classes, segments are outlined, boxes drawn.
    """
    colours = class_colours(setting.space)
    titles = ["image", "labels", *(scored_model.name for scored_model in setting.scored_models)]
    picture = sample.image
    if setting.task == "detection":
        assert sample.boxes is not None
        found = boxes_in(sample, setting)
        panels = [_boxed(picture, boxes, setting.space, colours) for boxes in (sample.boxes, *found)]
    elif setting.task == "classification":
        assert isinstance(sample.label, int)
        pairs = zip(setting.scored_models, setting.tables, strict=True)
        seen = [int(table[classify(each.members, [picture], setting.views)[0]]) for each, table in pairs]
        panels = [_plate(picture.size, label, setting.space, colours) for label in (sample.label, *seen)]
    else:
        maps = _maps(sample, setting)
        panels = [Image.fromarray(_coloured(each, colours)) for each in maps]
        singles = [index for index, each in enumerate(setting.scored_models) if len(each.members) == 1]
        if len(singles) > 1:
            first, last = maps[1], maps[1 + singles[-1]]
            panels.append(Image.fromarray(_difference(maps[0], first, last, colours)))
            titles.append("where they differ")
    return _sheet([picture, *panels], titles)


def save_examples(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write a report's examples into a folder, in their order; nothing if it has none."""
    paths = []
    for number, example in enumerate(report.examples, start=1):
        folder.mkdir(parents=True, exist_ok=True)
        paths.append(folder / f"{number:02d}_{Path(example.name).stem}.png")
        example.picture.save(paths[-1])
    return paths


def _maps(sample: Sample, setting: ScoringPlan) -> list[NDArray[np.int64]]:
    """Labels and every model's: (height, width) of the class, plus 256 times the number of the segment if panoptic."""
    if setting.task == "panoptic":
        assert sample.segments is not None
        return [_numbered(each) for each in (sample.segments, *segments_in(sample, setting))]
    label = label_of(sample, setting)
    found = class_maps([sample], [(label.shape[0], label.shape[1])], setting)
    return [np.asarray(each, np.int64) for each in (label, *(maps[0] for maps in found))]


def _numbered(segments: PanopticMap) -> NDArray[np.int64]:
    _, numbers = np.unique(segments.runs.ids, return_inverse=True)
    found: NDArray[np.int64] = segments.class_map() + 256 * (segments.runs.paint(numbers) + 1)
    return found


def _coloured(labels: NDArray[np.int64], colours: Pixels) -> Pixels:
    """The classes' colours; black lines between segments."""
    shown: Pixels = colours[labels % 256].copy()
    if labels.max(initial=0) >= 256:
        edge = np.zeros(labels.shape, bool)
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[1:] |= labels[1:] != labels[:-1]
        shown[edge] = 0
    return shown


def _difference(truth: NDArray[Any], first: NDArray[Any], last: NDArray[Any], colours: Pixels) -> Pixels:
    """Grey where both see the same, the last model's colours where they differ, black where nothing is labelled."""
    differs = first % 256 != last % 256
    shown: Pixels = np.where(differs[..., None], colours[last % 256], np.uint8(_AGREES))
    shown[truth % 256 == IGNORE] = 0
    return shown


def _boxed(picture: Image.Image, boxes: Boxes, space: Sequence[str], colours: Pixels) -> Image.Image:
    shown = picture.copy()
    pen = ImageDraw.Draw(shown)
    font = ImageFont.load_default(max(12, picture.height // 30))
    line = max(2, picture.height // 150)
    for index, (corners, label) in enumerate(zip(boxes.boxes.tolist(), boxes.labels.tolist(), strict=True)):
        if boxes.scores is None or boxes.scores[index] >= CONFIDENT:
            colour = tuple(int(part) for part in colours[label])
            pen.rectangle(corners, outline=colour, width=line)
            pen.text((corners[0] + line, corners[1] + line), space[label], fill=colour, font=font)
    return shown


def _plate(size: tuple[int, int], label: int, space: Sequence[str], colours: Pixels) -> Image.Image:
    """The colour and the name of a class, for a picture that has one as a whole."""
    plate = Image.new("RGB", size, tuple(int(part) for part in colours[label]))
    name = space[label] if label != IGNORE else "none of the classes"
    font = ImageFont.load_default(max(10, size[0] // 14))
    ImageDraw.Draw(plate).text((size[0] / 2, size[1] / 2), name, fill="white", font=font, anchor="mm", stroke_width=1,
                               stroke_fill="black")  # fmt: skip
    return plate


def _sheet(panels: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """Panels of one size in rows, each below its title."""
    height = round(WIDTH * panels[0].height / panels[0].width)
    columns = min(len(panels), COLUMNS)
    rows = -(-len(panels) // columns)
    sheet = Image.new("RGB", (columns * (WIDTH + _GAP) - _GAP, rows * (height + _TITLE + _GAP) - _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for index, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        left, top = index % columns * (WIDTH + _GAP), index // columns * (height + _TITLE + _GAP)
        way = Image.Resampling.LANCZOS if index == 0 else Image.Resampling.NEAREST
        sheet.paste(panel.resize((WIDTH, height), way), (left, top + _TITLE))
        pen.text((left + 2, top + 3), _fitted(title, font), fill="black", font=font)
    return sheet


def _fitted(title: str, font: Any) -> str:
    """The title, or its end if it is wider than a picture."""
    while font.getlength(title) > WIDTH - 4:
        title = "\u2026" + title[2:]
    return title
