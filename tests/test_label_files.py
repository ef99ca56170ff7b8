"""Files of labels: pictures in the colours of classes, and formats that keep or lose ids."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from numpy.typing import NDArray
from PIL import Image
from tiny import scene, tree

from hf_lwmm.data.decoding import label_ids, segment_runs
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import colours_of_ids, label_sets
from hf_lwmm.planning.images import ImageSource

# Colours


def test_colours_are_those_of_the_data_sets_own_tools() -> None:
    city = colours_of_ids("cityscapes")
    raw = label_sets()["cityscapes19"].table("cityscapes")
    for label in cityscapes_labels:
        if label.name not in ("license plate", "polegroup"):  # which have the colours of cars and poles
            assert raw[city[label.color]] == (label.trainId if label.trainId >= 0 else 255)

    def of_bits(number: int) -> tuple[int, ...]:  # VOC's own formula
        return tuple(sum((number >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3))

    assert colours_of_ids("voc") == {of_bits(number): number for number in [*range(21), 255]}
    assert colours_of_ids("synthia") == colours_of_ids("from-1") == {} and colours_of_ids(None) is None


@pytest.mark.parametrize("scheme", ["cityscapes", "gta", "voc", "camvid32"])
def test_pictures_in_the_colours_of_a_named_set_are_ids(scheme: str, tmp_path: Path) -> None:
    colours = colours_of_ids(scheme)
    data = tree(tmp_path / "data", 1)
    shown = np.random.default_rng(0).permutation(np.resize(np.array([*colours], np.uint8), (48 * 64, 3)))
    Image.fromarray(shown.reshape(48, 64, 3)).save(data / "labels" / "0.png")
    found = open_images(ImageSource(data, ids=scheme)).read(0).label
    expected = np.array([colours[tuple(pixel)] for pixel in shown.tolist()]).reshape(48, 64)
    assert np.array_equal(found, expected)
    with pytest.raises(DatasetError, match=r"0\.png: is a picture of colours.*\(cityscapes, gta, voc, camvid32\)"):
        open_images(data).read(0)
    shown[64 * 2 + 3] = (1, 2, 3)
    Image.fromarray(shown.reshape(48, 64, 3)).save(data / "labels" / "0.png")
    with pytest.raises(DatasetError, match=r"0\.png: has the colour \[1, 2, 3\] at \(3, 2\), which is no class's"):
        open_images(ImageSource(data, ids=scheme)).read(0)


def test_grey_colours_of_classes_are_not_taken_for_ids(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 1)
    car, background = (128, 128, 128), (0, 0, 0)
    Image.fromarray(np.full((48, 64, 3), car, np.uint8)).save(data / "labels" / "0.png")
    assert (open_images(ImageSource(data, ids="voc")).read(0).label == 7).all()
    Image.fromarray(np.full((48, 64, 3), (7, 7, 7), np.uint8)).save(data / "labels" / "0.png")
    assert (open_images(ImageSource(data, ids="voc")).read(0).label == 7).all()
    Image.fromarray(np.full((48, 64, 3), background, np.uint8)).save(data / "labels" / "0.png")
    void = label_sets()["camvid32"].classes.index("Void")
    assert (open_images(ImageSource(data, ids="camvid32")).read(0).label == void).all()


# Formats


def file_of(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("JPEG", {"quality": 100}, "JPEG"),
        ("WEBP", {"quality": 100}, "lossy WEBP"),
        ("WEBP", {"quality": 100, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}, "lossy WEBP"),
        ("JPEG2000", {}, "JPEG2000"),
        ("AVIF", {}, "AVIF"),
        ("GIF", {}, "GIF"),
        ("TIFF", {"compression": "jpeg"}, "TIFF compressed as jpeg"),
    ],
)
@pytest.mark.parametrize("read", [label_ids, segment_runs])
def test_formats_that_lose_pixels_hold_no_ids(
    kind: str, options: dict[str, Any], said: str, read: Callable[[bytes, str], Any]
) -> None:
    content = file_of(Image.fromarray(scene(0)[1]).convert("RGB"), kind, **options)
    with pytest.raises(DatasetError, match=rf"^that\.png: is a {said}, which does not keep ids exactly"):
        read(content, "that.png")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("BMP", {}),
        ("PPM", {}),
    ],
)
def test_formats_that_keep_pixels_hold_ids(kind: str, options: dict[str, Any]) -> None:
    label: NDArray[np.uint8] = scene(0)[1]
    assert np.array_equal(label_ids(file_of(Image.fromarray(label), kind, **options), "a label"), label)


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_pictures_of_other_colours_hold_no_ids(mode: str) -> None:
    content = file_of(Image.fromarray(scene(0)[1]).convert("RGB").convert(mode), "TIFF")
    with pytest.raises(DatasetError, match=f"a label: is a picture of the mode {mode}, which holds no ids"):
        label_ids(content, "a label")
