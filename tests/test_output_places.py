"""No command replaces a file that was there, or that it reads; places that cannot be are refused before any work."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from manifests import write

import hf_lwmm
from hf_lwmm.errors import MergeError
from hf_lwmm.files.names import fitted, tame
from hf_lwmm.files.targets import check_target, check_target_folder

CLASSES = "road\nsky\ncar\n"


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


def below(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (["plan", "one", "two", "--plot"], "p.png"),
        (["diff", "one", "two", "--plot"], "p.png"),
        (["evaluate", "never/loaded", "--data", "never/read", "--output"], "r.md"),
        (["evaluate", "never/loaded", "--data", "never/read", "--plot"], "plots/scores.png"),
        (["evaluate", "never/loaded", "--data", "never/read", "--examples", 1, "--plot"], "plots/01_street.png"),
        (["sweep", "never/loaded", "never/this", "--data", "never/read", "--report"], "r.json"),
        (["sweep", "never/loaded", "never/this", "--data", "never/read", "--plot"], "plots/alpha.png"),
        (["predict", "never/loaded", "street.jpg", "--output"], "seen/street_labels.png"),
        (["measure", "never/loaded", "--data", "never/read", "--output"], "m.safetensors"),
        (["merge", "one", "two", "--output"], "merged/notes.txt"),
        (["convert", "one", "--to", "advent"], "out.pth"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else value,
)
@pytest.mark.usefixtures("models")
def test_what_was_there_stays(command: list[object], taken: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("mine")
    (tmp_path / "street.jpg").write_text("a picture")
    before = below(tmp_path)
    code, out, err = run(*command, taken.split("/")[0])
    assert code == 1 and "exists already" in err and "--overwrite" in err and not out
    assert below(tmp_path) == before


@pytest.mark.usefixtures("models")
def test_plots_are_replaced_when_the_user_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "p.svg").write_text("old")
    code, _, err = run("plan", "one", "two", "--plot", "p.svg", "--overwrite")
    assert code == 0, err
    assert (tmp_path / "p.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "never/loaded", "--data", "never/read", "--labels", "classes.txt", "--overwrite", "--output"],
        ["evaluate", "never/loaded", "--data", "never/read", "--protocol", "classes.txt", "--overwrite", "--output"],
        ["sweep", "a/b", "c/d", "--data", "never/read", "--labels", "classes.txt", "--overwrite", "--report"],
        ["sweep", "a/b", "c/d", "--data", "never/read", "--labels", "classes.txt", "--output"],
        ["merge", "one", "two", "--labels", "classes.txt", "--overwrite", "--output"],
        ["merge", "one", "two", "--method", "fisher", "--measurements", "classes.txt", "--overwrite", "--output"],
        ["merge", "--recipe", "classes.txt", "--overwrite", "--output"],
        ["convert", "never/loaded", "--labels", "classes.txt", "--overwrite"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("models")
def test_no_output_replaces_a_file_that_is_read(command: list[str], link: str | None, run: Run, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(CLASSES)
    output = tmp_path / "classes.txt"
    if link is not None:
        output = tmp_path / "alias.txt"
        getattr(output, link)(tmp_path / "classes.txt")
    code, _, err = run(*command, output.name)
    assert code == 1 and f"{output.name} is classes.txt, which the output is made of" in err
    assert (tmp_path / "classes.txt").read_text() == CLASSES


@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["merge", "one", "two", "--output"], "one/merged"),
        (["convert", "one", "--to", "advent"], "one/deep/out.pth"),
        (["diff", "one", "two", "--plot"], "two/p.png"),
        (["evaluate", "one", "--data", "two", "--output"], "two/r.md"),
        (["evaluate", "one", "--data", "two", "--plot"], "two/plots"),
        (["sweep", "one", "two", "--data", "never/read", "--output"], "one/s.parquet"),
        (["predict", "never/loaded", "two", "--output"], "two/seen"),
        (["predict", "one", "street.jpg", "--output"], "one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
@pytest.mark.usefixtures("models")
def test_no_output_goes_into_what_it_is_made_of(command: list[str], output: str, run: Run, tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "two"):
        (folder / "street.jpg").write_text("a picture")
    before = below(tmp_path)
    code, _, err = run(*command, output)
    assert code == 1 and "which the output is made of" in err
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", "Give the output a name of its own"),
        (".", "Give the output a name of its own"),
        ("x/..", "Give the output a name of its own"),
        ("/", "Give the output a name of its own"),
        ("file/out", "file is not a folder"),
        ("file/deep/out/", "file is not a folder"),
        ("none/../out", "goes back from a folder that does not exist"),
        ("a" * 256, "a name of 256 bytes is too long"),
        ("\u00e9" * 128 + "/out", "a name of 256 bytes is too long"),
        ("loop/out", "is not a folder"),
        ("dangling/out", "is not a folder"),
    ],
)
def test_places_that_cannot_be_are_refused_before_any_work(output: str, message: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    for overwrite in ([], ["--overwrite"]):
        code, _, err = run("merge", "never/loaded", "never/this", "--output", output, *overwrite)
        assert code == 1 and message in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("output", ["../exp", "../../exp", "{absolute}/exp"])
@pytest.mark.usefixtures("models")
def test_the_folder_that_one_works_in_is_never_replaced(
    output: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exp" / "plots").mkdir(parents=True)
    (tmp_path / "exp" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path / "exp" / ("plots" if output.startswith("../..") else ""))
    before = below(tmp_path)
    for command in (["merge", tmp_path / "one", tmp_path / "two", "--output"], ["convert", tmp_path / "one"]):
        code, _, err = run(*command, output.format(absolute=tmp_path), "--overwrite")
        assert code == 1 and "Give the output a name of its own" in err
    assert below(tmp_path) == before


@pytest.mark.parametrize(
    "command",
    [
        ["plan", "one", "two", "--plot", "{}.png"],
        ["plan", "one", "two", "--plot", "{}/p.png"],
        ["evaluate", "one", "--data", "two", "--output", "{}.md"],
        ["evaluate", "one", "--data", "two", "--plot", "{}"],
        ["evaluate", "one", "--data", "{}", "--output", "r.md"],
        ["sweep", "one", "two", "--data", "never/read", "--output", "{}.parquet"],
        ["predict", "one", "{}.jpg"],
        ["predict", "one", "street.jpg", "--output", "{}"],
        ["merge", "--recipe", "{}", "--output", "out"],
        ["convert", "one", "{}.pth", "--to", "advent"],
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("models")
def test_names_that_are_too_long_are_an_error_in_a_line(command: list[str], run: Run) -> None:
    code, _, err = run(*(part.format("x" * 300) for part in command))
    assert code == 1 and err.count("\n") == 1


def test_a_slash_at_the_end_of_a_name_says_nothing(models: list[Path], run: Run) -> None:
    code, out, err = run("merge", *models, "--output", "merged/")
    assert code == 0 and "Written to merged" in out, err


def test_a_name_with_characters_that_no_name_has_is_refused(tmp_path: Path) -> None:
    for name in ("nul\0", "half\ud800"):
        with pytest.raises(MergeError, match="cannot be a path"):
            check_target(tmp_path / name, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_join_a_folder_and_replace_what_was_there_at_the_start_only_if_told(
    overwrite: bool, tmp_path: Path
) -> None:
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "given.png").write_text("given")
    folder = check_target_folder(tmp_path, overwrite, [tmp_path / "given.png"])
    assert folder.file("new.png").before is None
    with pytest.raises(MergeError, match="given"):
        folder.file("given.png")
    if overwrite:
        assert folder.file("old.png").before is not None
        folder.check_free("old*")
    else:
        with pytest.raises(MergeError, match=r"old\.png exists already"):
            folder.check_free("[a-o]ld.png", "none")


@pytest.mark.parametrize("name", ["a" * 250, "\u00fc" * 127, "\u732b" * 85 + "x", "short"])
def test_names_are_shortened_to_what_file_systems_take(name: str, tmp_path: Path) -> None:
    names = [fitted(name + end, "_labels.png") for end in ("", "1", "2")]
    assert len(set(names)) == 3 and names == [fitted(name + end, "_labels.png") for end in ("", "1", "2")]
    for each in names:
        assert len(os.fsencode(each)) <= 255 and each.endswith("_labels.png")
        (tmp_path / each).write_text("it can be written")


def test_odd_characters_do_not_get_into_names() -> None:
    assert tame("a\\b\nc/d:e*f\0 g") == "a_b_c_d_e_f_g" and tame("stra\u00dfe-1.x_y") == "stra\u00dfe-1.x_y"


def test_two_pictures_whose_names_differ_in_case_alone_keep_two_results(tmp_path: Path) -> None:
    from hf_lwmm.api.predict import _stems

    assert _stems([tmp_path / "a" / "Street.png", tmp_path / "b" / "street.png"]) == ["Street", "street-2"]


@pytest.mark.usefixtures("models")
def test_python_gets_the_same_refusals(tmp_path: Path, models: list[Path]) -> None:
    (tmp_path / "classes.txt").write_text(CLASSES)
    knobs = hf_lwmm.Knobs(labels=(str(tmp_path / "classes.txt"),))
    with pytest.raises(MergeError, match="which the output is made of"):
        hf_lwmm.merge(
            models, knobs=knobs, output=tmp_path / "classes.txt", writing=hf_lwmm.WriteOptions(overwrite=True)
        )


@pytest.mark.parametrize("name", ["r.csv", "r", "r.md.txt"])
@pytest.mark.parametrize(("command", "option"), [("evaluate", "--output"), ("sweep", "--report")])
def test_reports_of_other_kinds_are_refused_before_any_work(command: str, option: str, name: str, run: Run) -> None:
    code, _, err = run(command, "never/loaded", "never/this", "--data", "never/read", option, name)
    assert code == 1 and "reports are written as .json or .md" in err


def test_overwriting_deletes_nothing_that_is_no_output(run: Run, models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("mine")
    for name in ("tree/.git/HEAD", "tree/a/b/paper.tex", "plot.png/mine.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine")
    assert run("merge", *models, "--output", "merged")[0] == 0
    assert run("merge", *models, "--output", "merged", "--overwrite")[0] == 0
    (tmp_path / "merged" / "best.safetensors").write_bytes((models[0] / "model.safetensors").read_bytes())
    before = below(tmp_path)
    merging = ["merge", *models, "--method", "isotropic", "--overwrite", "--output"]
    for command, words in (
        ([*merging, "tree"], "tree holds .git/HEAD, which is no part of a model"),
        ([*merging, "merged"], "merged holds best.safetensors, which is no part"),
        ([*merging, "log.txt"], "log.txt is a file, and the output is a folder"),
        (["convert", models[0], "log.txt", "--overwrite"], "log.txt"),
        (["convert", models[0], "tree", "--to", "advent", "--overwrite"], "tree holds .git/HEAD"),
        (["plan", *models, "--overwrite", "--plot", "plot.png"], "plot.png is a folder, and the output is a file"),
    ):
        code, _, err = run(*command)
        assert code == 1 and words in err
    assert below(tmp_path) == before


def test_overwriting_deletes_no_model_that_was_not_written_there(run: Run, models: list[Path], tmp_path: Path) -> None:
    merging = ["merge", *models, "--method", "isotropic", "--overwrite", "--output"]
    trained = (models[0] / "model.safetensors").read_bytes()
    (tmp_path / "own").mkdir()
    for name, content in (("model.safetensors", trained), ("config.json", b"{}"), ("README.md", b"# Mine\n")):
        (tmp_path / "own" / name).write_bytes(content)
    assert run("merge", *models, "--output", "merged")[0] == 0
    (tmp_path / "merged" / "model.safetensors").write_bytes(trained)  # trained further
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "hf_lwmm.yaml").write_text(f"models: [{models[0]}, {models[1]}]  # mine\n")
    before = below(tmp_path)
    for command, words in (
        ([*merging, "own"], "own: hf-lwmm did not write this model, and --overwrite would delete it"),
        ([*merging, "merged"], "merged: model.safetensors is not the one that its hf_lwmm.yaml records"),
        (["merge", "--recipe", "r/hf_lwmm.yaml", "--output", "r", "--overwrite"], "r holds r/hf_lwmm.yaml, which the"),
    ):
        code, _, err = run(*command)
        assert code == 1 and words in err
    assert below(tmp_path) == before


def test_overwriting_replaces_a_link_to_a_folder_and_not_the_folder(
    run: Run, models: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "merged").symlink_to("mine")
    assert run("merge", *models, "--output", "merged", "--overwrite")[0] == 0
    assert not (tmp_path / "merged").is_symlink() and (tmp_path / "mine" / "notes.txt").read_text() == "mine"
