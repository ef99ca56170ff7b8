"""Class maps are the argmax of full-size logits, though hardly any of those are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import interpolate

from hf_lwmm.evaluation.class_map import Logits, best_classes, resized_logits
from hf_lwmm.networks.windows import window_boxes

SIDES = st.integers(1, 24)
SIZES = st.tuples(SIDES, SIDES)


def logits_of(seed: int, classes: int, size: tuple[int, int]) -> Tensor:
    """Logits with regions, as those of networks are, and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, 1 + size[0] // 4, 1 + size[1] // 4, generator=generator)
    noise = torch.randn(classes, *size, generator=generator)
    return 3 * interpolate(coarse, size, mode="bilinear")[0] + 0.2 * noise


def enlarged(logits: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    return interpolate(logits[None], size, mode="bilinear", align_corners=corners)[0]


def same_choice(found: np.ndarray, values: Tensor) -> None:
    """The classes found are the best, or as good as the best but for rounding."""
    chosen = values.gather(0, torch.from_numpy(found).long()[None])[0]
    torch.testing.assert_close(chosen, values.amax(0), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 2**32), st.integers(1, 20), SIZES, SIZES, st.booleans())
def test_every_ratio_of_sizes(
    seed: int, classes: int, size: tuple[int, int], wanted: tuple[int, int], corners: bool
) -> None:
    logits = logits_of(seed, classes, size)
    whole, found = enlarged(logits, wanted, corners), Logits((logits,), corners)
    torch.testing.assert_close(resized_logits(found, wanted), whole, rtol=1e-4, atol=1e-5)
    same_choice(best_classes([found], wanted), whole)


@given(st.integers(0, 2**32), SIZES, st.tuples(st.integers(1, 99), st.integers(100, 150)), st.booleans())
def test_what_differs_in_the_last_digit_is_told_apart_as_torch_does(
    seed: int, size: tuple[int, int], wanted: tuple[int, int], corners: bool
) -> None:
    wanted = (wanted[0] + 30, wanted[1])  # for smaller maps torch has another loop, which rounds in another way
    logits = torch.randint(0, 4, (4, *size), generator=torch.Generator().manual_seed(seed)) * 1e-6 + 1
    expected = enlarged(logits, wanted, corners).argmax(0).numpy()
    assert np.array_equal(best_classes([Logits((logits,), corners)], wanted), expected)


@pytest.mark.parametrize("align_corners", [False, True])
def test_resized_logits_are_torchs_to_the_bit(align_corners: bool) -> None:
    logits = torch.randn(5, 23, 41, generator=torch.Generator().manual_seed(1))
    whole = interpolate(logits[None], (160, 301), mode="bilinear", align_corners=align_corners)[0]
    assert torch.equal(resized_logits(Logits((logits,), align_corners), (160, 301)), whole)


@given(st.integers(0, 2**32), SIZES, SIZES, SIZES, SIZES, SIZES)
def test_windows(
    seed: int,
    size: tuple[int, int],
    crop: tuple[int, int],
    step: tuple[int, int],
    inner: tuple[int, int],
    wanted: tuple[int, int],
) -> None:
    boxes = window_boxes(size, crop, (min(step[0], crop[0]), min(step[1], crop[1])))
    windows = [logits_of(seed + i, 5, inner) for i in range(len(boxes))]
    total, count = torch.zeros(5, *size), torch.zeros(size)
    for logits, (y1, y2, x1, x2) in zip(windows, boxes, strict=True):
        total[:, y1:y2, x1:x2] += enlarged(logits, (y2 - y1, x2 - x1))
        count[y1:y2, x1:x2] += 1
    found = Logits(tuple(windows), boxes=tuple(boxes), size=size)
    for each in (size, wanted):
        same_choice(best_classes([found], each), enlarged(total / count, each))


@given(st.integers(0, 2**32), SIZES, SIZES, SIZES, st.permutations(range(4)), st.sampled_from([None, 0, 3]))
def test_means_of_softmax(
    seed: int,
    size: tuple[int, int],
    other: tuple[int, int],
    wanted: tuple[int, int],
    order: list[int],
    lacking: int | None,
) -> None:
    first, second = logits_of(seed, 4, size), logits_of(seed + 1, 4, other)
    rows = torch.tensor([-1 if index == lacking else order[index] for index in range(4)])
    mean = enlarged(first, wanted).softmax(0)
    theirs = enlarged(second, wanted).softmax(0)
    for index, row in enumerate(rows.tolist()):
        if row >= 0:
            mean[index] = (mean[index] + theirs[row]) / 2
    same_choice(best_classes([Logits((first,)), Logits((second,))], wanted, [None, rows]), mean)


def test_two_classes_that_another_network_has_as_one() -> None:
    first, second = torch.zeros(3, 2, 2), torch.zeros(2, 2, 2)
    first[2], second[1] = 1.0, 5.0
    rows = torch.tensor([0, 1, 1])
    assert (best_classes([Logits((first,)), Logits((second,))], (8, 8), [None, rows]) == 2).all()


@pytest.mark.parametrize("classes", [2, 150])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_no_pixel_of_a_large_map_differs(classes: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    logits = logits_of(1, classes, (64, 96))
    for size in ((250, 390), (701, 800)):
        expected = enlarged(logits, size).argmax(0).numpy()
        assert np.array_equal(best_classes([Logits((logits,))], size), expected)


@given(st.integers(0, 2**32), st.lists(st.integers(-20, 20), min_size=5, max_size=5), st.booleans())
def test_no_pixel_differs_between_logits_of_other_magnitudes(seed: int, powers: list[int], corners: bool) -> None:
    logits = logits_of(seed, 5, (16, 24)) * 10.0 ** torch.tensor(powers)[:, None, None]
    expected = enlarged(logits, (110, 170), corners).argmax(0).numpy()
    assert np.array_equal(best_classes([Logits((logits,), corners)], (110, 170)), expected)


@given(
    st.integers(0, 2**32), st.integers(1, 0x7149F2CA), st.integers(2, 20).filter(lambda each: each != 3), st.booleans()
)
@example(seed=0, bits=1, classes=4, corners=False)
def test_no_pixel_differs_where_the_last_digit_decides(seed: int, bits: int, classes: int, corners: bool) -> None:
    """Logits of any magnitude, from the smallest number of all to 1e30."""
    generator = torch.Generator().manual_seed(seed)
    digits = torch.randint(0, 3, (classes, 1, 1), generator=generator, dtype=torch.int32)
    places = torch.randint(0, 40, (1, 8, 9), generator=generator, dtype=torch.int32)
    logits = (bits + digits + places).view(torch.float32)
    expected = enlarged(logits, (90, 110), corners).argmax(0).numpy()
    assert np.array_equal(best_classes([Logits((logits,), corners)], (90, 110)), expected)


@pytest.mark.parametrize("bits", [12678840, 1070584066, 1072226475, 1073679020])  # 1.8e-38, 1.62, 1.82 and 1.99
def test_a_class_is_the_best_by_rounding_alone(bits: int) -> None:
    """At no corner it has as much as another class has at all four, and yet a loop finds it the best between them."""
    generator = torch.Generator().manual_seed(bits)
    lower = torch.randint(17, 20, (1, 64, 72), generator=generator, dtype=torch.int32)
    higher = torch.randint(20, 22, (1, 64, 72), generator=generator, dtype=torch.int32)
    logits = (bits + torch.cat([lower, higher, torch.zeros(2, 64, 72, dtype=torch.int32)])).view(torch.float32)
    expected = enlarged(logits, (720, 880)).argmax(0).numpy()
    assert (expected == 0).any()
    assert np.array_equal(best_classes([Logits((logits,))], (720, 880)), expected)
