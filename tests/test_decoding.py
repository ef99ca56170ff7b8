"""Label files as ids, whichever decoder reads them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from hf_lwmm.data.decoding import label_ids, segment_runs
from hf_lwmm.errors import DatasetError


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    st.sampled_from(["RGB", "RGBA", "L", "LA", "P"]),
    st.integers(0, 9),
)
def test_ids_of_pngs_are_those_that_pillow_reads(colours: NDArray[np.uint8], mode: str, level: int) -> None:
    picture = Image.fromarray(colours).convert(mode)
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
