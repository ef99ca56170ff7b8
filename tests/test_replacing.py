"""Output takes its place: it replaces what stood there at the start and nothing else, and dead runs leave no trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import calls
import numpy as np
import pytest
from conftest import Run
from manifests import write

import hf_lwmm
from hf_lwmm.errors import MergeError
from hf_lwmm.files.atomic import DisplacedError, atomic
from hf_lwmm.files.renaming import exchange
from hf_lwmm.files.scratch import scratch_folder, tidy
from hf_lwmm.files.targets import check_target
from hf_lwmm.publishing.reports import check_report_name, save_report


@pytest.fixture
def models(tmp_path: Path) -> list[Path]:
    """Two models, each in a folder."""
    paths = []
    for seed, name in enumerate(("one", "two")):
        array = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
        paths.append(tmp_path / name)
        paths[-1].mkdir()
        write(paths[-1] / "model.safetensors", {f"block.{i}.weight": array * i for i in (1, 2)})
    return paths


def writing(text: str, folder: bool) -> Callable[[Path], object]:
    def write_it(place: Path) -> None:
        if folder:
            place.mkdir()
            place /= "file.txt"
        place.write_text(text)

    return write_it


def text_of(path: Path) -> str:
    return (path / "file.txt" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("folder", [False, True])
def test_the_second_of_two_runs_replaces_nothing_and_loses_nothing(folder: bool, tmp_path: Path) -> None:
    target = tmp_path / ("out" if folder else "out.json")
    first, second = check_target(target, overwrite=False), check_target(target, overwrite=False)
    with atomic(first) as place:
        writing("first", folder)(place)
    with pytest.raises(MergeError, match=r"appeared while this ran.*/out-2"), atomic(second) as place:
        writing("second", folder)(place)
    beside = tmp_path / ("out-2" if folder else "out-2.json")
    assert text_of(target) == "first" and text_of(beside) == "second"
    assert sorted(tmp_path.iterdir()) == sorted([target, beside])


@pytest.mark.parametrize("folder", [False, True])
def test_overwriting_replaces_only_what_stood_there_at_the_start(folder: bool, tmp_path: Path) -> None:
    target = tmp_path / ("out" if folder else "out.json")
    writing("old", folder)(target)
    claimed = check_target(target, overwrite=True, folder=folder)
    with atomic(check_target(target, overwrite=True, folder=folder)) as place:
        writing("of another run", folder)(place)
    with pytest.raises(MergeError, match="was changed while this ran"), atomic(claimed) as place:
        writing("new", folder)(place)
    assert text_of(target) == "of another run"
    with atomic(check_target(target, overwrite=True, folder=folder)) as place:
        writing("new", folder)(place)
    assert text_of(target) == "new" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("vanishing", ["out", "out/file.txt"])
def test_what_vanishes_meanwhile_counts_as_changed(
    vanishing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program removes files in the moment between listing and looking at them."""
    target, gone = tmp_path / "out", tmp_path / vanishing
    writing("old", True)(target)
    real = Path.lstat

    def late(path: Path) -> os.stat_result:
        if path == gone:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return real(path)

    claimed = check_target(target, overwrite=True, folder=True)
    with (
        pytest.raises(DisplacedError, match=r"was changed while this ran.*/out-2") as displaced,
        atomic(claimed) as place,
    ):
        writing("new", True)(place)
        monkeypatch.setattr(Path, "lstat", late)
    assert text_of(displaced.value.path) == "new"
    monkeypatch.undo()
    shutil.rmtree(target, ignore_errors=True)
    writing("old", True)(target)
    monkeypatch.setattr(Path, "lstat", late)
    with atomic(check_target(target, overwrite=True, folder=True)) as place:
        writing("new", True)(place)
    assert text_of(target) == "new"


def test_what_vanishes_in_the_last_moment_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    writing("old", True)(target)

    def late(one: Path, other: Path) -> bool:
        shutil.rmtree(other)
        return exchange(one, other)

    monkeypatch.setattr("hf_lwmm.files.atomic.exchange", late)
    with pytest.raises(DisplacedError) as displaced, atomic(check_target(target, overwrite=True, folder=True)) as place:
        writing("new", True)(place)
    assert text_of(displaced.value.path) == "new"


def test_a_merge_is_not_lost_to_a_folder_that_appears_meanwhile(models: list[Path], tmp_path: Path) -> None:
    target = tmp_path / "merged"

    def appear(what: str, done: int, total: int) -> None:
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("mine")

    with pytest.raises(MergeError, match="merged appeared while this ran"):
        calls.merge(models, output=target, progress=appear)
    assert [each.name for each in target.iterdir()] == ["mine.txt"]
    assert (tmp_path / "merged-2" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("output", "relation"), [("one", "is"), (".", "contains"), ("one/model.safetensors", "lies inside")]
)
def test_no_model_is_overwritten_by_what_is_made_of_it(
    output: str, relation: str, models: list[Path], tmp_path: Path, run: Run
) -> None:
    (tmp_path / "alias").symlink_to(tmp_path / output)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    for name in (tmp_path / output, tmp_path / "alias"):
        code, _, err = run("merge", *models, "--output", name, "--overwrite")
        assert code == 1 and f"{relation} {models[0]}, which the output is made of" in err
    code, _, err = run("convert", models[0], tmp_path / output, "--to", "advent", "--overwrite")
    assert code == 1 and "which the output is made of" in err
    with pytest.raises(MergeError, match="which the output is made of"):
        check_report_name(models[0] / "model.safetensors", *models)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_predictions_replace_none_of_the_pictures(overwrite: bool, tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("a.png", "a_labels.png")]
    for each in pictures:
        each.write_bytes(b"a picture")
    with pytest.raises(MergeError, match=r"is one of the files|exists already"):
        hf_lwmm.predict("org/never-loaded", pictures, tmp_path, overwrite=overwrite)
    pictures[1].unlink()  # beside the other it would pass for its mask
    for output in (tmp_path, tmp_path / "out"):
        with pytest.raises(MergeError, match="which the output is made of"):
            hf_lwmm.predict("org/never-loaded", [tmp_path], output, overwrite=overwrite)


def test_a_report_that_somebody_else_wrote_meanwhile_stays(tmp_path: Path) -> None:
    class Report:
        def to_dict(self) -> dict[str, object]:
            return {"mine": True}

        def to_markdown(self) -> str:
            return "mine"

    target = check_report_name(tmp_path / "report.md")
    (tmp_path / "report.md").write_text("another's")
    with pytest.raises(MergeError, match="appeared"):
        save_report(Report(), target)
    assert (tmp_path / "report.md").read_text() == "another's" and (tmp_path / "report-2.md").read_text() == "mine\n"


def test_what_is_neither_file_nor_folder_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MergeError, match="neither a file nor a folder"):
        check_target(tmp_path / "pipe", overwrite=True)


def test_a_picture_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    (tmp_path / "plot.png" / "mine.txt").write_text("mine")
    with pytest.raises(MergeError, match=r"Could not write .*plot\.png"), atomic(tmp_path / "plot.png") as place:
        place.write_text("a picture")
    assert (tmp_path / "plot.png" / "mine.txt").read_text() == "mine"


def test_an_output_that_fails_leaves_no_folders_above_it(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="No space left"), atomic(tmp_path / "a" / "b" / "out.json"):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import check_target
with atomic(check_target(Path(sys.argv[1]), overwrite=False)) as place:
    place.mkdir()
    (place / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_folders_of_dead_processes_are_removed_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    for name in (".hf-lwmm-notes", ".hf-lwmm-abcdefgh2"):  # names that no run would choose
        (tmp_path / name).mkdir()
    (tmp_path / ".hf-lwmm-aaaaaaaa").write_text("a file")
    (tmp_path / ".hf-lwmm-bbbbbbbb").symlink_to(tmp_path / ".hf-lwmm-notes")
    before = sorted(tmp_path.iterdir())
    assert subprocess.run([sys.executable, "-c", KILLED, tmp_path / "out"], check=False).returncode == -9
    assert len(list(tmp_path.iterdir())) == len(before) + 1
    with scratch_folder(tmp_path) as living:
        (living / "half").write_text("half")
        tidy(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([*before, living])
        assert (living / "half").read_text() == "half"
    assert sorted(tmp_path.iterdir()) == before


def test_folders_of_another_machine_are_removed_only_after_a_week(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as own:
        mine = own.name[:-8]
    host, started = mine.split("-")[-3:-1]
    names = {
        "another machine": f".hf-lwmm-000000-000000-{'a' * 8}",
        "an older version": f".hf-lwmm-{'b' * 8}",
        "this machine": f"{mine}{'c' * 8}",
        "before it was started": f".hf-lwmm-{host}-000000-{'d' * 8}",
        "another container of it": f".hf-lwmm-000000-{started}-{'e' * 8}",
    }
    for name in names.values():
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / "half").write_text("half")
    tidy(tmp_path)
    left = ("another machine", "an older version")
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names[who] for who in left)
    for who in left:
        folder = tmp_path / names[who]
        for each in (folder, folder / "new"):
            os.utime(each, (0, 0))
    os.utime(tmp_path / names["an older version"] / "new" / "half", (0, 0))
    tidy(tmp_path)  # a file of the other's was written to within the week
    assert [each.name for each in tmp_path.iterdir()] == [names["another machine"]]
