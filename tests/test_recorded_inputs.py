"""A merge from a recipe says where it is not the merge that the recipe records."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from conftest import Run
from manifests import write
from merged import tiny

import hf_lwmm
from hf_lwmm.hub import telling_names

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two models in folders of one name."""
    found = []
    for seed in (1, 2):
        found.append(tmp_path / str(seed) / "best")
        found[-1].mkdir(parents=True)
        write(found[-1] / "model.safetensors", tiny(seed))
    return found


def test_models_of_one_name_are_told_apart_and_so_is_the_anchor(run: Run, folders: list[Path]) -> None:
    assert run("merge", *folders, "--anchor", folders[1], "--output", "out")[0] == 0
    recipe = hf_lwmm.load_recipe("out/hf_lwmm.yaml")
    assert recipe.models == recipe.local == ("1/best", "2/best") and recipe.anchor == "2/best"
    assert "hf-lwmm merge 1/best 2/best --anchor 2/best\n" in Path("out/README.md").read_text()
    assert run("merge", "--recipe", "out/hf_lwmm.yaml", "--output", "again")[0] == 0
    assert Path("again/model.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()


def test_inspect_tells_models_of_one_name_apart(run: Run, folders: list[Path]) -> None:
    code, out, _ = run("inspect", *folders)
    assert code == 0 and all(f"{folder}\n" in out for folder in folders)


def test_one_model_that_is_named_twice_keeps_its_name(run: Run, folders: list[Path]) -> None:
    assert run("merge", folders[0], folders[0], "--output", "out")[0] == 0
    assert hf_lwmm.load_recipe("out/hf_lwmm.yaml").models == ("best", "best")


def test_a_recipe_of_several_models_of_one_name_does_not_merge_one_with_itself(
    run: Run, folders: list[Path], tmp_path: Path
) -> None:
    assert run("merge", *folders, "--output", "out")[0] == 0
    old = yaml.safe_load(Path("out/hf_lwmm.yaml").read_text())
    old["models"][0]["local"] = old["models"][1]["local"] = old["anchor"] = "best"
    Path("old.yaml").write_text(yaml.safe_dump(old))
    (tmp_path / "best").symlink_to(folders[0])
    code, _, err = run("merge", "--recipe", "old.yaml", "--output", "again")
    assert code == 1 and "has several local models named best." in err and "--anchor FIRST --recipe old.yaml" in err
    assert run("merge", *folders, "--anchor", folders[0], "--recipe", "old.yaml", "--output", "again")[0] == 0
    assert hf_lwmm.load_recipe("again/hf_lwmm.yaml").output == hf_lwmm.load_recipe("out/hf_lwmm.yaml").output


def test_a_recipe_of_a_model_whose_name_is_no_text_is_read_again(run: Run, folders: list[Path], tmp_path: Path) -> None:
    odd = folders[0].rename(tmp_path / os.fsdecode(b"a\xff\xfeb"))
    assert run("merge", odd, folders[1], "--output", "out")[0] == 0
    recipe = hf_lwmm.load_recipe("out/hf_lwmm.yaml")
    assert recipe.anchor == recipe.models[0] == r"a\udcff\udcfeb"
    code, _, err = run("merge", odd, folders[1], "--anchor", odd, "--recipe", "out/hf_lwmm.yaml", "--output", "again")
    assert code == 0 and "SHA-256" not in err
    assert hf_lwmm.load_recipe("again/hf_lwmm.yaml").output == recipe.output


def test_an_input_that_has_changed_and_another_output_are_warned_of(run: Run, tmp_path: Path) -> None:
    for seed in (1, 2):
        write(tmp_path / f"{seed}.safetensors", tiny(seed))
    assert run("merge", "1.safetensors", "2.safetensors", "--output", "out")[0] == 0
    code, _, err = run("merge", "--recipe", "out/hf_lwmm.yaml", "--output", "same")
    assert code == 0 and "SHA-256" not in err
    write(tmp_path / "2.safetensors", tiny(3))
    code, out, err = run("merge", "--recipe", "out/hf_lwmm.yaml", "--output", "other", "--json")
    changed, differs = (each for each in json.loads(out)["warnings"] if "SHA-256" in each)
    assert code == 0 and changed.startswith("2.safetensors has changed") and "merged weights" in differs
    assert changed in err and differs in err
    for option, value in (("--alpha", "0.6"), ("--anchor", "2.safetensors")):
        code, _, err = run("merge", "--recipe", "out/hf_lwmm.yaml", option, value, "--output", f"own{option}")
        assert code == 0 and "2.safetensors has changed" in err and "merged weights are not" not in err


def test_a_model_that_is_named_twice_in_two_ways_is_warned_of(run: Run, folders: list[Path]) -> None:
    code, _, err = run("merge", folders[0], folders[0] / "model.safetensors", "--output", "out")
    assert code == 0 and "is merged with itself" in err
    code, _, err = run("merge", *folders, "--output", "other")
    assert code == 0 and "is merged with itself" not in err


def test_an_anchor_is_found_by_any_of_its_paths(run: Run, folders: list[Path]) -> None:
    code, out, _ = run("merge", "1/best", "2/best", "--anchor", folders[1], "--output", "out", "--json")
    assert code == 0 and json.loads(out)["anchor"] == "2/best"
    code, _, err = run("merge", "1/best", "2/best", "--anchor", folders[1].parent, "--output", "none")
    assert code == 1 and "is not among the models" in err


@pytest.mark.parametrize("licence", ["MIT\nfoo: bar", "", "my licence", "-mit", "a: b"])
def test_what_is_no_id_of_a_licence_is_refused(licence: str, run: Run, folders: list[Path]) -> None:
    for command in (["merge", *folders, "--output", "out"], ["convert", folders[0], "out"]):
        code, _, err = run(*command, "--license", licence)
        assert code == 1 and "is not the id of a licence" in err and not Path("out").exists()
    assert run("merge", *folders, "--output", "out", "--license", "CC-BY-NC-4.0")[0] == 0


# Local models, told apart by their folders and found again by their content


def test_labels_tell_models_of_one_name_apart(run: Run, folders: list[Path]) -> None:
    code, out, err = run("plan", *folders)
    assert code == 0 and "1. 1/best (anchor)" in out and "2. 2/best:" in out, err
    code, out, _ = run("diff", *folders)
    assert code == 0 and "1/best" in out and "2/best" in out
    assert run("merge", *folders, "--output", "out")[0] == 0
    card = Path("out/README.md").read_text()
    assert "pictures that its parents are meant for. What" in " ".join(card.split())  # none of them has a card
    assert "| `1/best` (a local folder) **(anchor)** |" in card and str(folders[0].parent.parent) not in card


def test_a_local_model_is_called_by_no_more_folders_than_it_takes(tmp_path: Path) -> None:
    refs = [hf_lwmm.ModelRef(path=tmp_path / name) for name in ("x/run/best", "y/run/best", "best", "other")]
    same = hf_lwmm.ModelRef(path=tmp_path / "other")
    names = telling_names([*refs, same, hf_lwmm.ModelRef("org/best")])
    assert names == ("x/run/best", "y/run/best", f"{tmp_path.name}/best", "", "", "")
    whole = [hf_lwmm.ModelRef(path=Path(name)) for name in ("/best", "/a/best")]
    assert telling_names(whole) == ("/best", "a/best")


def test_a_file_reproduces_the_merge_that_read_the_config_beside_it(run: Run, models: list[Path]) -> None:
    given = [f"{folder}/:model.safetensors" for folder in models[:2]]
    assert run("merge", *given, "--output", "out")[0] == 0 and Path("out/config.json").is_file()
    for last in ("/model.safetensors", "/:model.safetensors", ""):
        named = [part for each in models[:2] for part in ("--models", f"{each}{last}")]
        code, out, err = run("reproduce", "out", *named)
        assert code == 0 and "the bytes agree" in out, (out, err)


def test_a_merge_of_local_models_is_reproduced_with_them_named(run: Run, folders: list[Path], tmp_path: Path) -> None:
    assert run("merge", *folders, "--anchor", folders[1], "--output", "out")[0] == 0
    code, _, err = run("reproduce", "out")
    assert code == 1 and "1/best, 2/best were local files or folders. If you have them, name them: --models PATH" in err
    moved = tmp_path / "moved"
    folders[0].rename(moved)
    code, out, err = run("reproduce", "out", "--models", folders[1], "--models", moved)  # in any order
    assert code == 0 and "the bytes agree" in out, err
    write(tmp_path / "other.safetensors", tiny(3))
    code, _, err = run(
        "reproduce", "out", *(part for path in (moved, folders[1], "other.safetensors") for part in ("--models", path))
    )
    assert code == 1 and "other.safetensors is none of its models" in err
    write(moved / "model.safetensors", tiny(4))
    code, _, err = run("reproduce", "out", "--models", moved, "--models", folders[1])
    assert code == 1 and "best was a local file" in err


def test_local_models_of_the_same_content_are_named_once_or_each(run: Run, tmp_path: Path) -> None:
    files = [tmp_path / "first.safetensors", tmp_path / "second.safetensors"]
    for file in files:
        write(file, tiny(1))
    code, _, err = run("merge", *files, "--output", "out")
    assert code == 0, err
    for given in (files, files[:1]):
        code, out, err = run("reproduce", "out", *(part for path in given for part in ("--models", path)))
        assert code == 0 and "the bytes agree" in out, err
