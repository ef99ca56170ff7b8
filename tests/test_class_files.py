"""Files of classes are read as what they are, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hf_lwmm import PlanError
from hf_lwmm.labels import read_label_set


@pytest.mark.parametrize("text", [
    "road\nsky\ncar\n", "0: road\n1: sky\n2: car\n", "0 road\n1 sky\n2 car\n", "0\troad\n1\tsky\n2\tcar\n",
    "2,car\n1,sky\n0,road\n", "---\n- road\n- sky\n- car\n", "names: [road, sky, car]\n",
    "\ufeffroad\r\nsky\r\ncar\r\n",
    "path: ../ds\ntrain: images\nnc: 3\nnames:\n  0: road\n  1: sky\n  2: car\n",
    "names:\n  - road\n  - sky\n  - car\n",
    "id2label:\n  0: road\n  1: sky\n  2: car\n", '{"names": ["road", "sky", "car"]}',
    '0: "road"\n1: "sky"\n2: "car"\n', "0: 'road'  # grey\n1: sky\n2: car\n", "'road'\n'sky'\n'car'\n",
    '"road"\n"sky"\n"car"\n', "0. road\n1. sky\n2. car\n", "0) road\n1) sky\n2) car\n",
    "0 - road\n1 - sky\n2 - car\n", "* road\n* sky\n* car\n", "  # of streets\nroad\nsky\ncar\n",
    "0-road\n1-sky\n2-car\n", "0_road\n1_sky\n2_car\n",
    "- 'road'  # grey\n- sky\n- car\n", "0 'road'\n1 'sky'\n2 'car'\n",
])  # fmt: skip
def test_ordinary_forms_of_classes_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_label_set(tmp_path / "names").classes == ("road", "sky", "car")


@pytest.mark.parametrize(
    "text",
    [
        "wall\nbuilding, edifice\nsky\n",
        "part 1\npart 2\n",
        "3d model\n7 up\nsky (front)\nroad's\n",
        "traffic light (red)\nbuilding - wall\nA/C\nC#\nclass 2\n",
        "name tag\nlabel printer\n",
        "2-wheeler\n3-wheeler\n",
    ],
)
def test_odd_names_are_names(text: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    assert read_label_set(tmp_path / "names").classes == tuple(text.splitlines())


@pytest.mark.parametrize(("text", "fault"), [
    ('" "\n', "has a line without a name"),
    ("1\troad\n2\tsky\n3\tcar\n", "numbers its classes from 1"),
    ("0 road\n2 sky\n", "do not count 0, 1, 2"),
    ("id name\n0 road\n1 sky\n", "most of its lines have a number"),
    ("name,id\nroad,0\nsky,1\n", "a table of columns with commas"),
    ("road\t1\nsky\t2\n", "a table of columns with tabs"),
    ("road, sky, car\n", "a table of columns with commas"),
    ("road 0\nsky 1\n", "a number behind each name"),
    (f"0 road\n{'9' * 5000} sky\n", "an id before a name in some lines .'0 road'., and not in others"),
    ("road 128 64 128\nsky 1 2 3\n", "a table of colours"),
    ("0 road 128 64 128\n1 sky 1 2 3\n", "a table of colours .'0 road 128 64 128'"),
    ("0 128 64 128 road\n1 1 2 3 sky\n", "a table of colours"),
    ("0: road (128, 64, 128)\n1: sky (1, 2, 3)\n", "a table of colours"),
    ("0,road,128\n1,sky,64\n", "a table of columns with commas between .'0,road,128'"),
    ("0 road\tflat\n1 sky\tvoid\n", "a table of columns with tabs"),
    ("0 road 7\n1 sky 8\n", "a number behind each name"),
    ("0 road\n1\n", "an id before a name in some lines .'0 road'., and not in others"),
    ("- road\n-sky\n", "bullets without a space behind, or of several kinds .'- road'"),
    ("-road\nsky\n", "a bullet or quotes in some lines"),
    ("1-road\n2-sky\n", "numbers its classes from 1"),
    ("road: 0\nsky: 1\n", "'road' is no id"),
    ("CLASSES = ['road', 'sky']\n", "made for a program"),
    ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n", "is a Git LFS pointer"),
    ("0 road # grey\n1 sky\n", "the line '0 road # grey', which seems to have a comment: take it out"),
    ("road # grey\nsky\n", "the line 'road # grey', which seems to have a comment"),
    ("// of streets\nroad\nsky\n", "the line '// of streets', which seems to have a comment"),
    ("class\nroad\nsky\n", "begins with 'class', which seems to be a heading: take it out"),
    ("Class Name\nroad\nsky\n", "begins with 'Class Name', which seems to be a heading"),
    ("'road'\nsky\n", "quotes in some lines and not in others"),
    ("* road\nsky\n", "a bullet or quotes in some lines"),
    ("<!DOCTYPE html>\n<html>\n<body>road</body>\n", "is a web page"),
])  # fmt: skip
def test_other_forms_are_refused(text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(PlanError, match=rf"names.*{fault}"):
        read_label_set(tmp_path / "names")


def test_quotes_within_a_name_are_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("0 'a' or 'b'\n1 A/C (left) - wall\n")
    assert read_label_set(tmp_path / "names").classes == ("'a' or 'b'", "A/C (left) - wall")
