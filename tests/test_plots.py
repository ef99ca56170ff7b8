"""Plots: written in every format, with every name on them, and with the same bytes for the same data."""

from __future__ import annotations

import html
import io
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

import hf_lwmm
from hf_lwmm.cli import main
from hf_lwmm.plots import (
    plot_class_scores,
    plot_confusion,
    plot_discrepancy,
    plot_knob,
    plot_layer_weights,
    plot_subsets,
)
from hf_lwmm.plots.style import COLOURS, PlotError

MODELS = Path(__file__).parents[1] / "hf_lwmm" / "demo" / "models"
GTA, NIGHT = MODELS / "streets-gta", MODELS / "streets-night"
LONG = "nvidia/segformer-b5-finetuned-cityscapes-1024-1024"
NAMES = ("org/advent", "org/minent", LONG)
CLASSES = ("road", "sidewalk", "building", "traffic light")
SCORES = np.array([[0.9, 0.5, np.nan, 0.3], [0.92, 0.45, np.nan, 0.35], [0.91, 0.6, np.nan, 0.2]])
COUNTS = np.array([[90, 5, 0, 5], [20, 60, 10, 10], [0, 0, 0, 0], [0, 1, 0, 3]])


def merges() -> list[dict[str, Any]]:
    """Return rows as in a sweep's Parquet file: the merges of all subsets, and an ensemble."""
    rows: list[dict[str, Any]] = []
    knobs = {"start": None, "alpha": None, "ramp": None, "bn_stats": None}
    for count in (1, 2, 3):
        for members in itertools.combinations(NAMES, count):
            for anchor in members if count > 1 else members[:1]:
                score = 0.4 + 0.02 * count + 0.001 * len(rows)
                row = {"models": members, "anchor": anchor, "method": None, **knobs, "score": score}
                if count == 1:
                    rows.append({**row, "low": score - 0.01, "high": score + 0.02})
                    continue
                rows.append({**row, "method": "isotropic"})
                for start, ramp in itertools.product((0.0, 0.25, 0.5), ("linear", "cosine")):
                    layerwise = {
                        "method": "layerwise",
                        "start": start,
                        "alpha": 1 / count,
                        "ramp": ramp,
                        "bn_stats": "linear",
                    }
                    rows.append({**row, **layerwise, "score": score - 0.02 * start, "low": 0.4, "high": 0.6})
    rows.append({"models": NAMES, "anchor": None, "method": None, **knobs, "score": 0.5})
    return rows


def layers(path: Any) -> None:
    plot_layer_weights(hf_lwmm.plan([GTA, NIGHT], knobs=hf_lwmm.Knobs(method=hf_lwmm.Layerwise(ramp="cosine"))), path)


def discrepancy(path: Any) -> None:
    plot_discrepancy(hf_lwmm.diff(GTA, NIGHT, taus=(5, 20), granularity="block"), path)


def knob(name: str) -> Callable[[Any], None]:
    return lambda path: plot_knob(merges(), name, path)


def class_scores(path: Any) -> None:
    spread = np.stack([SCORES - 0.02, SCORES + 0.01], axis=-1)
    differences = SCORES - SCORES[:1]
    around = np.stack([differences - 0.01, differences + 0.02], axis=-1)
    plot_class_scores(CLASSES, NAMES, SCORES, path, intervals=spread, difference_intervals=around)


PICTURES: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "layers": (layers, ("streets-gta (anchor)", "streets-night", "backbone", "head", "depth position")),
    "discrepancy": (
        discrepancy,
        (
            "weights",
            "biases",
            "1/5",
            "1/20",
            "backbone",
            "block, in depth order; a is streets-gta",
        ),
    ),
    "start": (knob("start"), ("0.25", "mIoU in %", "ramp linear", f"{NAMES[0]}*, {NAMES[1]}", f"{LONG}*")),
    "ramp": (knob("ramp"), ("linear", "cosine", "start 0.5", "the best 8 of 27 lines")),
    "subsets": (
        lambda path: plot_subsets(merges(), path),
        ("single model", "isotropic", "layerwise", "ensemble", *NAMES[:2], "nvidia/segformer-b5-finetuned-"),
    ),
    "classes": (class_scores, (*CLASSES, *NAMES, "IoU in %", f"points more than {NAMES[0]}")),
    "confusion": (
        lambda path: plot_confusion(CLASSES, COUNTS, path),
        (*CLASSES, "predicted", "true", "90", "75", "does not occur"),
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_all_its_names_and_always_the_same_bytes(name: str, tmp_path: Path) -> None:
    draw, texts = PICTURES[name]
    for suffix in ("png", "svg"):
        for copy in ("one", "two"):
            draw(tmp_path / f"{copy}.{suffix}")
        written = (tmp_path / f"one.{suffix}").read_bytes()
        assert written == (tmp_path / f"two.{suffix}").read_bytes(), suffix
        assert matplotlib.__version__.encode() not in written
    # In an SVG, every text stands in a comment before its outlines.
    shown = "\n".join(html.unescape(text) for text in re.findall("<!-- (.*?) -->", (tmp_path / "one.svg").read_text()))
    for text in texts:
        assert text in shown, text
    pixels = np.asarray(Image.open(tmp_path / "one.png").convert("L"))
    assert pixels.shape[1] == 1440 and len(np.unique(pixels)) > 20
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert edge.min() == 255, "something is cut off"


def test_a_pdf_has_no_date(tmp_path: Path) -> None:
    layers(tmp_path / "layers.pdf")
    written = (tmp_path / "layers.pdf").read_bytes()
    assert written.startswith(b"%PDF") and b"CreationDate" not in written


def test_the_users_own_style_changes_nothing(tmp_path: Path) -> None:
    layers(tmp_path / "plain.png")
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "svg.fonttype": "none"}):
        layers(tmp_path / "own.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "own.png").read_bytes()


def test_weights_over_depth_fill_the_frame(tmp_path: Path) -> None:
    # At the left both models have half the height; at the right the anchor has all of it.
    plot_layer_weights(hf_lwmm.plan([GTA, NIGHT]), tmp_path / "layers.png")
    pixels = np.asarray(Image.open(tmp_path / "layers.png").convert("RGB")).astype(int)
    anchor, other = (np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in COLOURS[:2])
    frame = pixels[80:]  # below the legend
    columns = np.flatnonzero((frame == anchor).all(-1).any(0))
    sides = (columns.min() + 5, columns.max() - 5)
    parts = [(frame[:, x] == colour).all(-1).sum() for x in sides for colour in (anchor, other)]
    assert parts[0] == pytest.approx(parts[1], rel=0.05) and parts[3] <= 5
    assert parts[2] == pytest.approx(parts[0] + parts[1], rel=0.05)


def test_a_plan_draws_itself_and_is_a_table(tmp_path: Path) -> None:
    plan = hf_lwmm.plan([GTA, NIGHT], knobs=hf_lwmm.Knobs(method=hf_lwmm.Layerwise(ramp="cosine")))
    layers(tmp_path / "layers.png")
    assert plan.plot().png == (tmp_path / "layers.png").read_bytes()
    table = plan.to_pandas()
    assert list(table) == ["position", "slot", "shape", "streets-gta", "streets-night"]
    assert len(table) == len(plan.alignment.shared) and (table["position"].diff().dropna() >= 0).all()
    assert table[["streets-gta", "streets-night"]].sum(axis=1).tolist() == pytest.approx([1.0] * len(table))


def test_a_plot_in_memory_is_a_png() -> None:
    file = io.BytesIO()
    layers(file)
    assert file.getvalue().startswith(b"\x89PNG")


def test_one_model_has_no_differences(tmp_path: Path) -> None:
    plot_class_scores(CLASSES, NAMES[:1], SCORES[:1], tmp_path / "one.svg")
    assert "points more" not in (tmp_path / "one.svg").read_text()


def test_a_column_of_pixels_without_a_class_is_shown(tmp_path: Path) -> None:
    plot_confusion(CLASSES, np.hstack([COUNTS, np.full((4, 1), 4)]), tmp_path / "confusion.svg")
    assert "<!-- none -->" in (tmp_path / "confusion.svg").read_text()
    plot_confusion(CLASSES, np.hstack([COUNTS, np.zeros((4, 1))]), tmp_path / "confusion.svg")
    assert "<!-- none -->" not in (tmp_path / "confusion.svg").read_text()


def test_a_score_may_lie_outside_its_interval(tmp_path: Path) -> None:
    row = {"models": NAMES[:1], "anchor": NAMES[0], "method": None, "score": 0.5}
    plot_subsets([{**row, "low": 0.51, "high": 0.6}, {**row, "low": 0.4, "high": 0.49}], tmp_path / "subsets.png")
    assert (tmp_path / "subsets.png").is_file()


def test_dollars_in_names_begin_no_formula(tmp_path: Path) -> None:
    names, path = ("a$_$", "b$^$"), tmp_path / "plot.svg"
    row = {"models": names, "anchor": names[0], "method": "layerwise", "score": 0.5}
    plot_knob([{**row, "start": start} for start in (0.0, 0.5)], "start", path)
    assert "a$_$*, b$^$" in html.unescape(path.read_text())
    plot_discrepancy(replace(hf_lwmm.diff(GTA, NIGHT), models=names), path)
    assert "a is a$_$, b is b$^$" in html.unescape(path.read_text())


def test_the_knobs_that_vary_are_named_among_the_subsets_unless_they_are_many(tmp_path: Path) -> None:
    def names(*starts: float) -> str:
        rows = [
            {
                "models": NAMES[:2],
                "anchor": NAMES[0],
                "method": "layerwise",
                "score": 0.5,
                "ramp": "linear",
                "start": each,
            }
            for each in starts
        ]
        plot_subsets(rows, tmp_path / "subsets.svg")
        return (tmp_path / "subsets.svg").read_text()

    assert "<!-- layerwise, start 0.25 -->" in names(0.0, 0.25) and "<!-- layerwise -->" in names(0.5)
    assert "<!-- layerwise -->" in names(*(place / 10 for place in range(9)))


def test_data_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    refusals: list[tuple[Callable[[], None], str]] = [
        (lambda: layers(tmp_path / "picture.gif"), r"ends in \.png, \.svg, \.pdf"),
        (lambda: layers(tmp_path / "no" / "folder.png"), "there is no folder"),
        (
            lambda: plot_layer_weights(hf_lwmm.plan([GTA, NIGHT], knobs=hf_lwmm.Knobs(method=hf_lwmm.Slerp())), path),
            "no weights of whole layers",
        ),
        (lambda: plot_knob(merges()[:4], "start", path), "No two merges differ in start alone"),
        (lambda: plot_subsets([], path), "no merges"),
        (lambda: plot_class_scores(CLASSES, NAMES, SCORES[:2], path), "3 models on 4 classes"),
        (lambda: plot_class_scores(CLASSES, NAMES, SCORES, path, intervals=SCORES), "Intervals of shape"),
        (lambda: plot_confusion(CLASSES, COUNTS[:3], path), "not a confusion matrix of 4 classes"),
    ]
    for draw, message in refusals:
        with pytest.raises(PlotError, match=message):
            draw()
    assert not path.exists()


def test_plan_draws_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["hf-lwmm", "plan", str(GTA), str(NIGHT), *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), capsys.readouterr().err

    picture = tmp_path / "plan.png"
    code, err = run("--plot", str(picture))
    assert code == 0 and err.endswith(f"Drew {picture}\n")
    layers(tmp_path / "cosine.png")
    assert picture.read_bytes() != (tmp_path / "cosine.png").read_bytes()
    code, err = run("--method", "slerp", "--plot", str(picture), "--overwrite")
    assert code == 1 and err.startswith("Error: --method slerp")


def test_matplotlib_is_not_imported_to_merge(tmp_path: Path) -> None:
    code = "import sys, hf_lwmm, hf_lwmm.plots; hf_lwmm.merge(sys.argv[2:], output=sys.argv[1]); print(*sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "out"), str(GTA), str(NIGHT)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    plot_layer_weights(hf_lwmm.plan([GTA, NIGHT]), tmp_path / "plan.png")
    assert (tmp_path / "out/plots/layer_weights.png").read_bytes() == (tmp_path / "plan.png").read_bytes()
    assert loaded and not [name for name in loaded if name.startswith("matplotlib")]


def many(count: int, tmp_path: Path) -> list[Path]:
    """Models of one network, with names that need several rows, and one with signs that mean something elsewhere."""
    found = [tmp_path / f"{index}-{LONG.replace('/', '-')}" for index in range(count - 1)] + [tmp_path / "a$b$, é"]
    for folder in found:
        shutil.copytree(GTA, folder)
    return found


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_all_models_of_a_merge_are_named_above_its_weights(suffix: str, tmp_path: Path) -> None:
    # Each row of the legend makes the picture higher; nothing reaches its edges.
    heights = []
    for count in (2, 5):
        (tmp_path / f"{count}").mkdir()
        path = tmp_path / f"{count}.{suffix}"
        plot_layer_weights(hf_lwmm.plan(many(count, tmp_path / f"{count}")), path)
        if suffix == "svg":
            text = html.unescape(path.read_text())
            assert all(f"<!-- {index}-{LONG.replace('/', '-')}" in text for index in range(count - 1))
            assert "<!-- a$b$, é -->" in text
            heights.append(float(re.search(r'height="([\d.]+)pt"', text)[1]))  # type: ignore[index]
            continue
        pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
        heights.append(len(pixels))
        assert min(edge.min() for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:])) == 255
        for colour in COLOURS[:count]:
            assert (pixels == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1).sum() > 400, colour
    assert heights[1] > heights[0]


@pytest.mark.parametrize(("ends", "shown"), [(1, ""), (9, "9"), (10, "10"), (300, "300"), (1061, "1000")])
def test_depth_positions_are_numbered_in_round_steps(
    ends: int, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = hf_lwmm.plan([GTA, NIGHT])
    weights = np.full((ends, 2), 0.5)
    monkeypatch.setattr(type(plan), "layer_weights", property(lambda plan: weights))
    plot_layer_weights(plan, tmp_path / "layers.svg")
    texts = re.findall("<!-- (.*?) -->", (tmp_path / "layers.svg").read_text())
    numbers = [int(text) for text in texts if text.isdecimal()]
    assert numbers == sorted(numbers) and len(numbers) <= 9 and (not shown or numbers[-1] == int(shown))
    assert len({after - before for before, after in itertools.pairwise(numbers)}) <= 1
    plot_layer_weights(plan, tmp_path / "layers.png")
    assert np.asarray(Image.open(tmp_path / "layers.png").convert("L"))[:, -2:].min() == 255
