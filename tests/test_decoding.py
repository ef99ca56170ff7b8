"""Pictures as RGB, and label files as the ids that they store."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.data.decoding import decode_rgb, label_ids, segment_runs
from hf_lwmm.data.runs import Runs
from hf_lwmm.errors import DatasetError


@pytest.fixture(scope="module", autouse=True)
def _compiled_loops() -> None:
    """Compile the loop first, which takes longer than hypothesis lets an example take."""
    Runs.of(np.zeros((1, 2), np.uint8))


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "I;16"]),
    st.integers(0, 9),
)
def test_ids_of_pngs_are_those_that_pillow_reads(colours: NDArray[np.uint8], mode: str, level: int) -> None:
    picture = PICTURES[mode](colours)
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=level)
    plain = np.asarray(picture).astype(np.int32)
    if mode == "LA":
        plain = plain[..., 0]
    expected = plain if plain.ndim == 2 else plain[..., 0] + 256 * plain[..., 1] + 65536 * plain[..., 2]
    runs = segment_runs(file.getvalue(), "a label")
    assert np.array_equal(runs.paint(runs.ids), expected)
    if plain.ndim == 2:
        assert np.array_equal(label_ids(file.getvalue(), "a label"), plain)


@pytest.mark.parametrize("read", [segment_runs, label_ids])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_broken_pngs_are_named(read: Callable[[bytes, str], object], mode: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).convert(mode).save(file, "PNG")
    with pytest.raises(DatasetError, match=r"^that\.png: cannot be decoded"):
        read(file.getvalue()[: file.tell() // 2], "that.png")


# Colours of 8 bits, and what a picture of each mode shows of them.
PICTURES = {
    "RGB": lambda colours: Image.fromarray(colours),
    "RGBA": lambda colours: Image.fromarray(np.concatenate([colours, colours[..., :1]], axis=-1), "RGBA"),
    "L": lambda colours: Image.fromarray(colours[..., 0]),
    "LA": lambda colours: Image.fromarray(colours[..., :2], "LA"),
    "P": lambda colours: Image.fromarray(colours).quantize(8),
    "1": lambda colours: Image.fromarray(colours[..., 0] > 127),
    "I;16": lambda colours: Image.fromarray(colours[..., 0].astype(np.uint16) * 256 + colours[..., 1]),
    "I;16, dark": lambda colours: Image.fromarray(colours[..., 0].astype(np.uint16)),
    "I": lambda colours: Image.fromarray(colours[..., 0].astype(np.int32) * 256 + colours[..., 1]),
    "I, dark": lambda colours: Image.fromarray(colours[..., 0].astype(np.int32)),
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("content", [0, 1])
def test_pictures_become_the_rgb_that_image_processors_make_of_them(kind: str, content: int) -> None:
    from hf_lwmm.networks.image_processing import as_rgb

    colours = np.random.default_rng(content).integers(0, 256, (7, 9, 3), np.uint8)
    picture, file = PICTURES[kind](colours), io.BytesIO()
    picture.save(file, "TIFF" if kind.startswith("I,") or kind == "I" else "PNG")
    found = decode_rgb(file.getvalue(), "a picture")
    assert found.mode == "RGB" and np.array_equal(found, as_rgb(picture))
    if kind in ("RGB", "RGBA"):
        assert np.array_equal(found, colours)  # transparency is dropped
    if kind in ("L", "LA", "I;16", "I", "I, dark"):
        assert np.array_equal(np.asarray(found)[..., 0], colours[..., 0])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpegs_have_the_pixels_that_pillow_gives(options: dict[str, object]) -> None:
    colours, file = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8), io.BytesIO()
    Image.fromarray(colours).save(file, "JPEG", **options)
    assert np.array_equal(decode_rgb(file.getvalue(), "a picture"), Image.open(file))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.full((2, 2), 0.5, np.float32), "holds floats"),
        (np.full((2, 2), -1, np.int32), "has values from -1 to -1, beyond 16 bits"),
        (np.full((2, 2), 65536, np.int32), "has values from 65536 to 65536, beyond 16 bits"),
    ],
)
def test_pictures_with_values_of_no_known_range_are_refused(values: NDArray[np.generic], text: str) -> None:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF")
    with pytest.raises(DatasetError, match=f"^that.tif: {text}"):
        decode_rgb(file.getvalue(), "that.tif")


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^none\.png: there is no such file\.$"):
        decode_rgb(tmp_path / "none.png", "none.png")


def test_whole_numbers_that_are_stored_as_floats_are_ids() -> None:
    ids, file = np.array([[0, 1, 2], [255, -1, 70000]], np.int32), io.BytesIO()
    Image.fromarray(ids.astype(np.float32)).save(file, "TIFF")
    found = label_ids(file.getvalue(), "that.tif")
    assert np.array_equal(found, ids) and found.dtype.kind == "i"
    segments, grey, fractions = np.abs(ids), io.BytesIO(), io.BytesIO()
    Image.fromarray(segments.astype(np.float32)).save(grey, "TIFF")
    assert np.array_equal(segment_runs(grey.getvalue(), "that.tif").ids, [0, 1, 2, 255, 1, 70000])
    Image.fromarray(segments.astype(np.float32) + np.float32(0.25)).save(fractions, "TIFF")
    with pytest.raises(DatasetError, match=r"^that\.tif: holds 0\.25 at \(0, 0\); labels are whole numbers"):
        segment_runs(fractions.getvalue(), "that.tif")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["png", "tif", "gif"])
def test_files_are_closed(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{kind}"
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(path)
    decode_rgb(path, "a picture")
    if kind != "gif":
        label_ids(path, "a label")
