"""Paths of the machine on which a model was trained are not published with what is made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from calls import merge
from conftest import Run

import hf_lwmm
from hf_lwmm.checkpoints.local_paths import without_local_paths

HOME = "/home/annabel/secret-project"
LEAKS: dict[str, Any] = {
    "_name_or_path": f"{HOME}/run",
    "pretrained": f"{HOME}/mit_b5.pth",
    "init_cfg": {"type": "Pretrained", "checkpoint": f"{HOME}/mit_b5.pth"},
    "backbone_config": {"_name_or_path": f"{HOME}/mit", "model_type": "segformer"},
    "sources": [f"file://{HOME}/a.json", {"text_config": {"_name_or_path": "C:\\Users\\annabel\\b"}}],
    "base_model": "D:\\annabel\\base",
}


@pytest.fixture
def anchor(models: list[Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(models[0], tmp_path / "anchor"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **LEAKS}))
    processor = {"image_processor_type": "SegformerImageProcessor", "do_resize": False, **LEAKS}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    nested = {"image_processor": processor, "processor_class": "Own", **LEAKS}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    return folder


@pytest.mark.parametrize("how", ["merge", "export"])
def test_no_path_leaves_the_machine(how: str, anchor: Path, models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    if how == "merge":
        merge([anchor, models[1]], output=output)
    else:
        hf_lwmm.export(anchor, output)
    files = [path for path in output.rglob("*") if path.suffix in (".json", ".yaml", ".md", ".safetensors")]
    assert len(files) >= 4
    for path in files:
        assert b"annabel" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes(), path.name
    assert json.loads((output / "config.json").read_text())["init_cfg"]["checkpoint"] == "mit_b5.pth"
    assert hf_lwmm.load(output).classes == hf_lwmm.load(models[0]).classes


@pytest.mark.usefixtures("without_plots")
def test_reports_name_files_and_folders_by_their_last_part(
    models: list[Path], data: Path, tmp_path: Path, run: Run
) -> None:
    names = tmp_path / "home" / "annabel" / "some, classes.txt"
    names.parent.mkdir(parents=True)
    names.write_text("road\nsky\ncar\n")
    home = Path(shutil.copytree(data, names.parent / "street"))
    options = ("--eval-data", home, "--protocol", names)
    code, out, err = run("merge", *models[:2], "--output", "out", *options, "--json")
    assert code == 0, err
    published = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for text in (out.replace(str(tmp_path / "out"), ""), *(path.read_bytes().decode("latin-1") for path in published)):
        assert "annabel" not in text
    assert "some, classes.txt" in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["protocol"] == "some, classes.txt"


@pytest.mark.parametrize(
    "text",
    [
        "org/name",
        "https://a.org/b/c",
        "/",
        "//",
        "/s",
        "a/b/c.pth",
        "",
        "1/2",
        "road / path",
        "./a/b",
        "m/s, km/h",
        "s3://b/c/d",
        "https://a.org/home/b",
        "data/home/office",
        "b.*/d",
    ],
)
def test_what_is_no_path_stays(text: str) -> None:
    content = {"name": text, "id2label": {"0": "/m/01g317"}, "count": [1, None, True, 0.5]}
    assert without_local_paths(content) == content


@pytest.mark.parametrize("name", ["home/bg,fg.txt", "bg,fg.txt"])
def test_a_file_of_classes_with_a_comma_in_its_name_is_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / name).write_text("road\nsky\n")
    monkeypatch.chdir(tmp_path)
    for given in (name, str(tmp_path / name)):
        assert hf_lwmm.Knobs(labels=(given,)).labels == (("road", "sky"),)
        assert hf_lwmm.Knobs(labels=(given,)).label_files == (Path(given),)


@pytest.mark.parametrize("name", ["/home/me/bg,fg.txt", "~/bg,fg", "../bg,fg", "C:\\me\\bg,fg", "a/bg,fg.txt", "/a,/b"])
def test_the_name_of_no_file_is_not_taken_for_classes(name: str) -> None:
    with pytest.raises(hf_lwmm.PlanError, match="no such file"):
        hf_lwmm.Knobs(labels=(name,))
    assert hf_lwmm.Knobs(labels=("road/path,sky",)).labels == (("road/path", "sky"),)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"python train.py --data {HOME}/set --out=/data/annabel/run", "python train.py --data set --out=run"),
        (f"ckpt={HOME}/a.pth", "ckpt=a.pth"),
        (f"local:{HOME}/a.pth", "local:a.pth"),
        (f" {HOME}/lead", "lead"),
        (f"a\n{HOME}/z\nb", "a\nz\nb"),
        (f"'{HOME}/z', \"{HOME}/y\"", "'z', \"y\""),
        (f"file://localhost{HOME}/x", "x"),
        (f"see file://{HOME}/x", "see x"),
        ("$HOME/annabel/x", "x"),
        ("load ${HOME}/annabel/x", "load ${HOME}x"),
        ("%USERPROFILE%\\annabel\\x", "x"),
        ("../../home/annabel/d", "d"),
        ("runs/../../annabel/d", "d"),
        ("+/home/annabel/d", "d"),
        ("load C:\\Users\\annabel\\x.pth", "load x.pth"),
        ("/home/annabel/", ""),
        ("/home/annabel", ""),
        ("C:\\Users\\annabel", ""),
        ("/data/annabel/", ""),
        ("~annabel/", ""),
        ("https://annabel:secret@host.org/x", "https://host.org/x"),
        ("git+https://annabel@host.org/x.git", "git+https://host.org/x.git"),
        ("https://host.org/x?token=hf_" + "aB3" * 10, "https://host.org/x?token="),
        ("https://host.org/x?a=1&X-Amz-Signature=0ab&b=2#c", "https://host.org/x?a=1&X-Amz-Signature=&b=2#c"),
        ("load '/home/annabel else/x.pth', not \"/data/a b\"", "load 'x.pth', not \"a b\""),
        ("don't load /home/annabel/x.pth, it isn't whole", "don't load x.pth, it isn't whole"),
        ("cc -I/home/annabel/inc", "cc inc"),
        ("見/home/annabel/x", "x"),
        ("sqlite:////home/annabel/x.db", "x.db"),
        ("ssh://host/home/annabel/x", "x"),
        ("http://host/?p=/home/annabel/x&q=1", "http://host/?p=x&q=1"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer "),
        ("key AKIA" + "AB12" * 4 + " and ghp_" + "aB3" * 12, "key  and "),
    ],
)
def test_paths_and_secrets_inside_a_text_go(text: str, left: str) -> None:
    assert without_local_paths({"a": [text]}) == {"a": [left]}


@pytest.mark.parametrize("name", ["classes", "names", "label_names", "data"])
def test_a_file_of_classes_is_named_by_its_last_part(name: str) -> None:
    assert without_local_paths({name: f"{HOME}/classes.txt"}) == {name: "classes.txt"}


def test_entries_that_hold_secrets_go_and_names_are_cleaned_too() -> None:
    token, key = "hf_" + "x1Y" * 10, "0123456789abcdef" * 2
    secrets = {"token": "abc", "use_auth_token": token, "api-key": "1", "Password": "p", "deep": {"secret": ["s"]}}
    for name in ("hub_token", "huggingface_token", "WANDB_API_KEY", "client_secret", "aws_secret_access_key"):
        secrets |= {name: key, name.title().replace("_", ""): key}
    kept = {
        "use_auth_token": True,
        "pad_token": "<pad>",
        "token": None,
        "use_mask_token": False,
        "image_token": "<image>",
    }
    kept |= {"cls_token": "classification_token", "secret": 0}
    kept |= {"mask_token": [1, 2], "key": "k", "cls_token": "[CLS]", "token_dim": 8}
    assert without_local_paths(secrets) == {"deep": {}} and without_local_paths(kept) == kept
    assert without_local_paths({f"{HOME}/a.pth": 1, "/home/annabel/": 2, token: 3, "": 4}) == {"a.pth": 1, "": 4}


def test_long_texts_take_no_longer_than_their_length_asks_for() -> None:
    parts = ("/a", "://", "../", "a:/", "'/", "?a=", "a_", "Bearer ")
    for text in ("a" * 300_000, "~" * 300_000, *(part * 100_000 for part in parts)):
        without_local_paths(text + " ")
