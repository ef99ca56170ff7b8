"""Links in a folder of pictures are followed to score, and what they lead to is not published."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from calls import merge

import hf_lwmm
from hf_lwmm import EvaluationSpec, ImageSource
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.rows import Rows
from hf_lwmm.errors import DatasetError

EXAMPLES = EvaluationSpec(examples=5)


def linked(data: Path, folder: Path, *names: str) -> Path:
    """A copy of the data in which some files are links to the same files elsewhere."""
    shutil.copytree(data, folder)
    for name in names:
        (folder / name).unlink()
        (folder / name).symlink_to(data / name)
    return folder


def published(models: list[Path], data: Path, output: Path) -> tuple[int, list[str]]:
    result = merge(models[:2], eval_images=ImageSource(data), evaluation=EXAMPLES, output=output)
    said = [note for note in result.notes if "would be published" in note]
    shown = set(re.findall(r"!\[[^]]*\]\((plots/[0-9][^)]*)\)", result.card))
    assert shown == {f"plots/{path.name}" for path in (output / "plots").glob("[0-9]*.png")}
    return len(list((output / "plots").glob("[0-9]*.png"))), said


def test_pictures_and_labels_from_elsewhere_are_scored_and_not_shown(
    models: list[Path], data: Path, tmp_path: Path
) -> None:
    names = [
        f"images/{sorted((data / 'images').iterdir())[0].name}",
        f"labels/{sorted((data / 'labels').iterdir())[1].name}",
    ]
    folder = linked(data, tmp_path / "data", *names)
    count, said = published(models, folder, tmp_path / "out")
    assert count == 3 and len(said) == 1 and "Left out 2 of the examples" in said[0]
    found, plain = (hf_lwmm.evaluate(models[:1], each, evaluation=EXAMPLES) for each in (folder, data))
    assert found is not None and plain is not None and found.models[0].mean == plain.models[0].mean
    assert len(found.examples) == 5


def test_a_link_to_the_folder_and_links_inside_it_are_shown(models: list[Path], data: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(data, tmp_path / "real")
    picture = sorted((folder / "images").iterdir())[0]
    picture.rename(folder / "moved.bytes")
    picture.symlink_to(folder / "moved.bytes")
    (tmp_path / "alias").symlink_to(folder)
    assert published(models, tmp_path / "alias", tmp_path / "out") == (5, [])


def test_a_linked_folder_inside_the_data_leads_out(models: list[Path], data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("images", "labels"):
        (tmp_path / "data" / name).symlink_to(data / name)
    opened = open_images(tmp_path / "data")
    assert all(opened.leads_out(sample) for sample in opened)


def test_a_data_set_on_the_hub_names_no_file_of_this_machine(data: Path) -> None:
    picture = str(sorted((data / "images").iterdir())[0])
    with pytest.raises(DatasetError, match="of this machine, which a data set of the Hub cannot mean"):
        Rows("org/data", None, "train", "data", None).stored({"bytes": None, "path": picture}, "data, image 0")
    assert Rows(str(data), None, "train", "data", None).stored({"path": picture}, "data") == Path(picture)
