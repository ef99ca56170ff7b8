"""What stands beside a result, pictures and rows of a sweep, costs nothing of it, whatever names and libraries do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import Run
from PIL import Image
from tiny import NAMES, scene

import hf_lwmm
from hf_lwmm import EvaluationSpec, Knobs, MergeInputs
from hf_lwmm.errors import SweepError, noting
from hf_lwmm.evaluation.examples import save_examples
from hf_lwmm.evaluation.report import Example
from hf_lwmm.files.atomic import atomic
from hf_lwmm.sweeping.grid import Candidate
from hf_lwmm.sweeping.scorer import Scored
from hf_lwmm.sweeping.store import Store

STEMS = ("a" * 250, "w\\x\ny", "\u732b" * 83, "..", "plain")


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose names are as long as they can be, or hold what no name should."""
    folder = tmp_path_factory.mktemp("odd")
    for kind, place in (("images", 0), ("labels", 1)):
        (folder / kind).mkdir()
        for seed, stem in enumerate(STEMS[:3]):
            picture = scene(seed)[place]
            image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            image.save(folder / kind / f"{stem}.png")
    return folder


def test_examples_of_images_with_odd_names_are_drawn(models: list[Path], odd: Path, tmp_path: Path) -> None:
    inputs = MergeInputs(eval_images=str(odd))
    done = hf_lwmm.merge(models[:2], inputs=inputs, output=tmp_path / "out", evaluation=EvaluationSpec(examples=3))
    drawn = sorted(path.name for path in (tmp_path / "out" / "plots").glob("0*.png"))
    assert len(drawn) == 3 and all(len(os.fsencode(name)) <= 255 and "\\" not in name for name in drawn)
    assert all(f"plots/{number:02d}_" in done.card for number in (1, 2, 3))
    assert not any("drawn" in note for note in done.notes)


def test_names_of_examples_are_the_same_each_time(models: list[Path], odd: Path, tmp_path: Path) -> None:
    report = hf_lwmm.evaluate(models[:1], odd)
    assert report is not None
    picture = Image.new("RGB", (2, 2))
    object.__setattr__(report, "examples", tuple(Example(f"{stem}.png", 0.5, picture) for stem in (*STEMS, *STEMS)))
    first, again = save_examples(report, tmp_path / "a"), save_examples(report, tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in again]
    assert len({path.name.lower() for path in first}) == 2 * len(STEMS) and first[4].name == "05_plain.png"


@pytest.mark.parametrize("failing", ["evaluation.evaluate.draw_example", "evaluation.examples.save_picture"])
def test_pictures_that_cannot_be_drawn_cost_a_note(
    failing: str, models: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise ValueError("no font\nhas this glyph")

    monkeypatch.setattr(f"hf_lwmm.{failing}", fail)
    monkeypatch.setattr("hf_lwmm.api.merged_files.plot_layer_weights", fail)
    monkeypatch.setattr("hf_lwmm.evaluation.report.plot_class_scores", fail)
    inputs = MergeInputs(eval_images=str(data))
    done = hf_lwmm.merge(models[:2], inputs=inputs, output=tmp_path / "out", evaluation=EvaluationSpec(examples=1))
    assert done.evaluation is not None and (tmp_path / "out" / "evaluation.json").is_file()
    said = [*done.notes, *done.evaluation.notes]
    assert sum("drawn: ValueError: no font has this glyph" in note for note in said) == 3
    assert "plots/" not in done.card


def test_a_full_disk_costs_the_plot_and_the_note_names_no_file_of_ours(
    models: list[Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.write_bytes

    def write(path: Path, content: bytes) -> int:
        if path.suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    code, out, err = run("merge", *models[:2], "--output", "out")
    assert code == 0, err
    assert "plots/layer_weights.png was not drawn: No space left on device\n" in out + err
    notes: list[str] = []
    with noting("It was not drawn", notes), atomic(Path("out/x.png")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert notes == ["It was not drawn: No space left on device"]


def test_scores_are_printed_before_anything_is_drawn(
    models: list[Path], data: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise hf_lwmm.PlotError("nothing can be drawn")

    monkeypatch.setattr("hf_lwmm.evaluation.report.plot_class_scores", fail)
    code, out, err = run("evaluate", models[0], "--data", data, "--plot", "plots")
    assert code == 1 and "mIoU" in out and "nothing can be drawn" in err


def test_predictions_for_pictures_with_long_names(models: list[Path], odd: Path, tmp_path: Path) -> None:
    pictures = [odd / "images" / f"{stem}.png" for stem in STEMS[:3]]
    found = hf_lwmm.predict(models[0], pictures, tmp_path / "seen")
    assert len(found.done) == 3 and all(path.is_file() for each in found.done for path in each.files)
    with pytest.raises(hf_lwmm.MergeError, match="exists already"):
        hf_lwmm.predict("never/loaded", pictures[:1], tmp_path / "seen")
    assert hf_lwmm.predict(models[0], pictures[:1], tmp_path / "seen", overwrite=True).done[0].files == (
        found.done[0].files
    )


def scored(index: int) -> Scored:
    return Scored(Candidate("single", (index,), 0, Knobs()), np.ones((1, 3, len(NAMES))), 0.5, "semantic", NAMES)


@pytest.mark.parametrize("name", ["s.parquet", "s" * 247 + ".parquet", "\u00fc" * 123 + ".parquet"])
def test_a_sweep_whose_file_was_taken_leaves_its_table_beside_it_and_no_rows(name: str, tmp_path: Path) -> None:
    path, row = tmp_path / name, scored(0)
    with pytest.raises(SweepError, match="appeared while this ran"), Store(path, {"models": ["a"]}) as store:
        store.keep(row)
        assert len(list(tmp_path.glob(".s*.parts/*.parquet")) or list(tmp_path.glob(".\u00fc*.parts/*.parquet"))) == 1
        path.write_text("another's")
        store.finish({"n": pa.array([1])}, [row.candidate.key], [])
    assert path.read_text() == "another's"
    (beside,) = (each for each in tmp_path.iterdir() if each != path)
    assert "-2" in beside.name and pq.read_table(beside).num_rows == 1
