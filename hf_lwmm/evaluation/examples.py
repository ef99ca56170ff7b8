"""Draw sheets of an image, its labels, each model's prediction, and where a model and the anchor differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hf_lwmm.data.annotations import PanopticMap
from hf_lwmm.data.samples import Sample
from hf_lwmm.evaluation.inference import classify
from hf_lwmm.evaluation.keys import with_key
from hf_lwmm.evaluation.overlays import boxed, class_colours, confident, save_picture
from hf_lwmm.evaluation.per_image import boxes_in, class_maps, segments_in
from hf_lwmm.evaluation.reading import PreparedSample, prepare
from hf_lwmm.evaluation.report import EvaluationReport
from hf_lwmm.evaluation.scoring_plan import ScoringPlan
from hf_lwmm.files.names import fitted, tame
from hf_lwmm.files.targets import TargetFolder, as_target_folder
from hf_lwmm.labels import IGNORE

WIDTH, COLUMNS = 360, 3  # width of a panel in pixels, and panels in a row of the sheet
TALLEST = 4 * WIDTH  # of a panel; taller pictures are squeezed
_TITLE, _GAP = 24, 4
_AGREES = 230  # grey
Pixels = NDArray[np.uint8]


def draw_example(sample: Sample, plan: ScoringPlan, other: int) -> Image.Image:
    """Return a sheet with a panel for the image, its labels and each model.

    A last panel of class maps and segments shows where the model number `other` and the anchor differ. Classes have
    Cityscapes' colours where it has them; segments are outlined, and boxes are drawn over the image. Below stand the
    colours of the classes that occur, and what the last panel shows.
    """
    caption, occurring = "", set[int]()
    colours, picture, ready = class_colours(plan.classes), sample.image, prepare(sample, plan)
    titles = ["image", "labels", *(model.name for model in plan.models)]
    if plan.task == "detection":
        assert sample.boxes is not None
        found = boxes_in(ready, plan)
        panels = [boxed(picture, confident(boxes), plan.classes, colours) for boxes in (sample.boxes, *found)]
    elif plan.task == "classification":
        assert isinstance(sample.label, int)
        pairs = zip(plan.models, plan.tables, strict=True)
        guesses = [int(table[classify(model.members, [ready.picture], plan.views)[0]]) for model, table in pairs]
        panels = [_plate(picture.size, label, plan.classes, colours) for label in (sample.label, *guesses)]
    else:
        maps = _maps(ready, plan)
        occurring = {int(label) for each in maps for label in np.unique(each % 256)}
        panels = [Image.fromarray(_coloured(each, colours)) for each in maps]
        if other:
            panels.append(Image.fromarray(_difference(maps[0], maps[1], maps[1 + other], colours)))
            titles.append("where they differ")
            caption = (
                f"Where they differ: what {plan.models[other].name} sees where {plan.models[0].name} sees something "
                "else; grey where they agree, black without a label."
            )
    key = [(name, colours[label]) for label, name in enumerate(plan.classes) if label in occurring]
    return with_key(_sheet([picture, *panels], titles), key, caption)


def save_examples(report: EvaluationReport, folder: Path | TargetFolder) -> list[Path]:
    """Write the examples of a report into a folder as PNG files, and return their paths.

    Their names are a number and what is left of the image's own name where any file system takes it.

    Raises:
        MergeError: if a file cannot be written.
    """
    place, targets = as_target_folder(folder), []
    for number, example in enumerate(report.examples, start=1):
        targets.append(place.file(fitted(f"{number:02d}_{tame(PurePosixPath(example.name).stem)}", ".png")))
        save_picture(example.picture, targets[-1])
    return [each.path for each in targets]


def _maps(sample: PreparedSample, plan: ScoringPlan) -> list[NDArray[np.int64]]:
    """The labels and each model's map: (height, width) of classes, plus 256 times the numbers of segments, if any."""
    if plan.task == "panoptic":
        assert sample.segments is not None
        return [_numbered(each) for each in (sample.segments, *segments_in(sample, plan))]
    return [np.asarray(each, np.int64) for each in (sample.label, *class_maps(sample, plan))]


def _numbered(segments: PanopticMap) -> NDArray[np.int64]:
    _, numbers = np.unique(segments.runs.ids, return_inverse=True)
    found: NDArray[np.int64] = segments.class_map() + 256 * (segments.runs.paint(numbers) + 1)
    return found


def _coloured(labels: NDArray[np.int64], colours: Pixels) -> Pixels:
    """A map in the colours of its classes, with black lines between segments."""
    shown: Pixels = colours[labels % 256].copy()
    if labels.max(initial=0) >= 256:
        edge = np.zeros(labels.shape, bool)
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[1:] |= labels[1:] != labels[:-1]
        shown[edge] = 0
    return shown


def _difference(truth: NDArray[Any], first: NDArray[Any], other: NDArray[Any], colours: Pixels) -> Pixels:
    """A map that is grey where two models agree, coloured by the other one elsewhere, and black without a label."""
    differs = first % 256 != other % 256
    shown: Pixels = np.where(differs[..., None], colours[other % 256], np.uint8(_AGREES))
    shown[truth % 256 == IGNORE] = 0
    return shown


def _plate(size: tuple[int, int], label: int, classes: Sequence[str], colours: Pixels) -> Image.Image:
    """A plain panel in the colour of a class, with its name."""
    plate = Image.new("RGB", size, tuple(int(part) for part in colours[label]))
    name = classes[label] if label != IGNORE else "none of the classes"
    font = ImageFont.load_default(max(10, size[0] // 14))
    ImageDraw.Draw(plate).text((size[0] / 2, size[1] / 2), name, fill="white", font=font, anchor="mm", stroke_width=1,
                               stroke_fill="black")  # fmt: skip
    return plate


def _sheet(panels: Sequence[Image.Image], titles: Sequence[str]) -> Image.Image:
    """A sheet of panels of one size in rows, each below its title."""
    height = min(max(1, round(WIDTH * panels[0].height / panels[0].width)), TALLEST)
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
    """The title, or the end of it that fits over a panel."""
    while font.getlength(title) > WIDTH - 4:
        title = "\u2026" + title[2:]
    return title
