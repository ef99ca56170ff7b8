"""What a model sees in pictures, as files: a colour overlay, a label PNG and, of panoptic models, a segment PNG."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.inference import panoptic, segment
from hf_lwmm.labels import label_sets, normalise
from hf_lwmm.networks.image_processing import as_rgb
from hf_lwmm.networks.loading import LoadedModel

Colours = NDArray[np.uint8]
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Prediction:
    """The files written for one picture, and the classes found in it with their parts of the pixels."""

    picture: Path
    files: tuple[Path, ...]
    parts: dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """All pictures that could be read, and the others with the reason."""

    done: tuple[Prediction, ...]
    failed: tuple[tuple[Path, str], ...]


def predict(
    loaded: LoadedModel,
    pictures: Sequence[str | Path],
    output: str | Path,
    *,
    opacity: float = 0.6,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Predictions:
    """Segment pictures and write what was found into a folder.

    `NAME_overlay.png`, `NAME_labels.png` (class ids, with the classes' colours as palette), and of panoptic models
    `NAME_segments.png` (id = R + 256 G + 256^2 B, as in COCO) with `NAME_segments.json`.

    Args:
        pictures: files, or folders of which all pictures are taken.

    Raises:
        PlanError: if there is no picture, or the model is no segmentation model.
    """
    if loaded.task == "classification":
        raise PlanError(f"{loaded.label} classifies whole images; predict is for segmentation models.")
    found = [path for name in pictures for path in _pictures(Path(name))]
    if not found:
        raise PlanError(f"No pictures in {', '.join(map(str, pictures)) or 'what was named'} ({', '.join(_SUFFIXES)}).")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    colours = class_colours(loaded.classes)
    done, failed = [], []
    names: dict[str, int] = {}
    for index, path in enumerate(found):
        progress("Segmenting", index, len(found))
        names[path.stem] = names.get(path.stem, 0) + 1
        stem = path.stem if names[path.stem] == 1 else f"{path.stem}-{names[path.stem]}"
        try:
            with Image.open(path) as opened:
                opened.load()
                picture = as_rgb(opened)
        except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
            failed.append((path, str(error).splitlines()[0] if str(error) else type(error).__name__))
            continue
        done.append(_predict_one(loaded, path, picture, folder / stem, colours, opacity))
    return Predictions(tuple(done), tuple(failed))


def _predict_one(
    loaded: LoadedModel, path: Path, picture: Image.Image, target: Path, colours: Colours, opacity: float
) -> Prediction:
    labels = segment([loaded], [picture])[0]
    files = [Path(f"{target}_overlay.png"), Path(f"{target}_labels.png")]
    overlay = np.asarray(picture) * (1 - opacity) + colours[labels] * opacity
    Image.fromarray(overlay.round().astype(np.uint8)).save(files[0])
    indexed = Image.fromarray(labels, "P")
    indexed.putpalette(colours.reshape(-1).tolist())
    indexed.save(files[1])
    if loaded.task == "panoptic":
        files += _write_segments(loaded, panoptic(loaded, picture), target)
    parts = np.bincount(labels.reshape(-1), minlength=len(loaded.classes)) / labels.size
    shares = {name: float(part) for name, part in zip(loaded.classes, parts, strict=True) if part}
    return Prediction(path, tuple(files), dict(sorted(shares.items(), key=lambda item: -item[1])))


def _write_segments(loaded: LoadedModel, codes: NDArray[np.int64], target: Path) -> list[Path]:
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
    files = [Path(f"{target}_segments.png"), Path(f"{target}_segments.json")]
    Image.fromarray(rgb).save(files[0])
    files[1].write_text(json.dumps(segments, indent=1) + "\n", encoding="utf-8")
    return files


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
    return [path]


def class_colours(classes: Sequence[str]) -> Colours:
    """(256, 3) uint8: Cityscapes' colour for the classes that it has, hues far apart for others, black for no class."""
    city = label_sets()["cityscapes19"]
    known = {normalise(name): colour for name, colour in zip(city.classes, city.colours, strict=True)}
    table = np.zeros((256, 3), np.uint8)
    for index, name in enumerate(classes):
        hue = index * 0.618034 % 1  # the golden ratio spreads any number of hues
        other = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.6 + 0.3 * (index % 2), 0.9))
        table[index] = known.get(normalise(name), other)
    return table
