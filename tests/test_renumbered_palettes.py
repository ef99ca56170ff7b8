"""Palette files of labels: by their indices, unless a program renumbered the palette."""

from __future__ import annotations

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.data.decoding import label_ids
from hf_lwmm.errors import DatasetError
from hf_lwmm.labels import colours_of_ids, label_sets

VOC = label_sets()["voc"]
LABEL = np.array([[2, 7, 7, 19], [2, 2, 7, 19]], np.uint8)


def indexed(indices: object, palette: object) -> Image.Image:
    picture = Image.fromarray(np.asarray(indices, np.uint8), "P")
    picture.putpalette(np.asarray(palette, np.uint8).reshape(-1).tolist())
    return picture


def read(picture: Image.Image, ids: str | None = None) -> NDArray[np.generic]:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return np.asarray(label_ids(file.getvalue(), "a.png", colours_of_ids(ids)))


def greys(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


@pytest.mark.parametrize("padding", [0, 200])
def test_a_palette_of_class_colours_in_another_order_is_read_by_them(padding: int) -> None:
    own = indexed(LABEL, VOC.colours)
    assert np.array_equal(read(own, "voc"), LABEL)
    quantised = own.convert("RGB").quantize(3)
    assert set(np.unique(quantised)) == {0, 1, 2}
    quantised.putpalette((quantised.getpalette() or []) + [0] * 3 * padding)
    assert np.array_equal(read(quantised, "voc"), LABEL)
    assert np.array_equal(read(quantised, "from-0"), quantised)
    with pytest.raises(DatasetError, match=r"^a\.png: its palette has the colours of voc in another order .*"
                                           r"--ids voc reads the colours, --ids from-0 the indices"):  # fmt: skip
        read(quantised)
    single = indexed(np.full((2, 2), 7), VOC.colours).convert("RGB").quantize(3)
    assert np.array_equal(read(single, "voc"), np.full((2, 2), 7))


@pytest.mark.parametrize("ids", [None, "voc", "cityscapes", "from-0"])
@pytest.mark.parametrize("palette", [
    [*VOC.colours, *greys(*[0] * 200)],
    [[0, 0, 0], [128, 0, 0], [1, 2, 3], [9, 8, 7], [5, 5, 5], [6, 6, 6], [7, 6, 5], [255, 0, 0], *greys(*[0] * 20)],
    greys(*range(256)),
    greys(*[0] * 256),
    greys(*range(0, 250, 10)),
])  # fmt: skip
def test_other_palettes_are_read_by_their_indices(palette: list[list[int]], ids: str | None) -> None:
    assert np.array_equal(read(indexed(LABEL, palette), ids), LABEL)


def test_a_palette_in_its_own_order_needs_no_word() -> None:
    full = [*VOC.colours, *greys(*[0] * 234), VOC.void_colours[0]]
    label = np.where(LABEL == 19, 255, LABEL)
    for palette in (full, [*VOC.colours, *(VOC.void_colours * 235)]):
        own = indexed(label if palette is full else LABEL, palette)
        assert np.array_equal(read(own), label if palette is full else LABEL)
    assert np.array_equal(read(indexed([[0, 1]], VOC.colours[:2])), [[0, 1]])


def test_void_is_read_by_its_colour_too() -> None:
    void = VOC.void_colours[0]
    assert read(indexed([[0, 1]], [void, VOC.colours[4]]), "voc").tolist() == [[255, 4]]


def test_unused_entries_decide_nothing() -> None:
    palette = [VOC.colours[0], VOC.colours[15], VOC.colours[7], [1, 2, 3]]
    assert read(indexed([[0, 1, 2]], palette), "voc").tolist() == [[0, 15, 7]]
    with pytest.raises(DatasetError, match="has the colours of voc in another order"):
        read(indexed([[0, 1, 2]], palette))
    assert read(indexed([[0, 3, 2]], palette), "voc").tolist() == [[0, 3, 2]]


def test_colours_of_cityscapes_are_indices_in_an_order_of_their_own() -> None:
    city = label_sets()["cityscapes19"]
    colours = dict(zip(city.classes, city.colours, strict=True))
    raw = np.zeros((256, 3), np.uint8)
    raw[[ids[0] for ids in city.ids["cityscapes"]]] = city.colours
    some = np.array([[0, 2, 10], [13, 18, 18]])
    camvid = ("sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence", "car", "person")
    fewer = [colours[name] for name in label_sets()["synthia16"].classes]
    assert np.array_equal(read(indexed(some, city.colours)), some)
    assert np.array_equal(read(indexed(some + 7, raw)), some + 7)
    assert read(indexed([[0, 9, 12]], fewer)).tolist() == [[0, 9, 12]]
    assert read(indexed([[0, 3, 4, 8]], [colours[name] for name in camvid])).tolist() == [[0, 3, 4, 8]]
    other = indexed([[0, 1, 2]], [colours[name] for name in ("car", "road", "sky")])
    with pytest.raises(DatasetError, match=r"colours of cityscapes in another order .*--ids cityscapes reads the col"):
        read(other)
    assert read(other, "cityscapes").tolist() == [[26, 7, 23]] and read(other, "from-0").tolist() == [[0, 1, 2]]


def test_masks_of_a_palette_are_those_that_they_show() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[1:7, 1:7] = 255
    for shown in (mask, np.zeros_like(mask), np.full_like(mask, 255)):
        assert np.array_equal(read(Image.fromarray(shown).convert("RGB").quantize(2)), shown)
    assert read(indexed([[0, 1]], greys(0, 255))).tolist() == [[0, 1]]
    assert read(indexed([[1, 1]], greys(255, 0))).tolist() == [[0, 0]]
    assert read(indexed([[0, 1, 2]], greys(1, 255, 0))).tolist() == [[1, 255, 0]]
    assert read(indexed([[0, 1, 2]], greys(0, 90, 255))).tolist() == [[0, 1, 2]]


def test_greys_that_run_against_their_indices_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"^a\.png: has a palette of greys .*Save labels as grey PNG"):
        read(indexed([[0, 1, 2]], greys(200, 90, 0)))
