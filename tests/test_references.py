"""References: what each way of writing one means, and what is refused with a word on what to write."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run

import hf_lwmm
from hf_lwmm.errors import DatasetError, RefError
from hf_lwmm.hub import ModelRef, is_repo_id, parse_hub_ref, parse_ref
from hf_lwmm.localhub import LocalHub

PAGE = "https://huggingface.co/org/a"
REFERENCES = {
    "org/a": ModelRef("org/a"),
    "gpt2": ModelRef("gpt2"),
    " org/a\n": ModelRef("org/a"),
    "org/a@v1.0+x": ModelRef("org/a", "v1.0+x"),
    "org/a@feature/night-v1.0": ModelRef("org/a", "feature/night-v1.0"),
    "org/a@refs/pr/1": ModelRef("org/a", "refs/pr/1"),
    "org/a@refs%2Fpr%2F1": ModelRef("org/a", "refs/pr/1"),
    "org/a@main:weights/epoch 3/m.pth": ModelRef("org/a", "main", files=("weights/epoch 3/m.pth",)),
    "org/a:x.pth+y.pth": ModelRef("org/a", files=("x.pth", "y.pth")),
    PAGE: ModelRef("org/a"),
    f"{PAGE}/": ModelRef("org/a"),
    f"{PAGE}?library=timm#card": ModelRef("org/a"),
    "https://hf.co/org/a": ModelRef("org/a"),
    "https://huggingface.co/gpt2/tree/main": ModelRef("gpt2", "main"),
    f"{PAGE}/tree/main": ModelRef("org/a", "main"),
    "org/a/tree/main": ModelRef("org/a", "main"),
    "org/a/tree/main/run/5/": ModelRef("org/a", "main", files=("run/5",)),
    f"{PAGE}/tree/main/run/5": ModelRef("org/a", "main", files=("run/5",)),
    "org/a/blob/main/sub/model.safetensors": ModelRef("org/a", "main", files=("sub/model.safetensors",)),
    "huggingface.co/org/a": ModelRef("org/a"),
    "hf.co/org/a/tree/v1.0": ModelRef("org/a", "v1.0"),
    f"{PAGE}/tree/refs%2Fpr%2F1": ModelRef("org/a", "refs/pr/1"),
    f"{PAGE}/tree/refs/pr/1": ModelRef("org/a", "refs/pr/1"),
    f"{PAGE}/commit/{'0' * 40}": ModelRef("org/a", "0" * 40),
    f"{PAGE}/blob/main/sub/x%20y+z.pth": ModelRef("org/a", "main", files=("sub/x y+z.pth",)),
    f"{PAGE}/resolve/v1.0%2Bx/m.safetensors?download=true": ModelRef("org/a", "v1.0+x", files=("m.safetensors",)),
    f"{PAGE}/raw/main/config.json": ModelRef("org/a", "main", files=("config.json",)),
}
REFUSED = {
    "": "is empty",
    "org/a@": "nothing follows",
    "org/a:": "nothing follows",
    "org/a@a b": "is not the name of a branch",
    "org/a@a..b": "is not the name of a branch",
    "org/a@x\x1b[31m": "is not the name of a branch",
    "org/a\n/b": "neither a local path",
    "org/a/b/main": "neither a local path",
    "org/\u0430": "neither a local path",
    "org/a:../x": "does not stay inside",
    "org/a:x\x1b": "does not stay inside",
    "C:\\Users\\me\\a.pth": "no such file or folder",
    "d:/models/a.pth": "no such file or folder",
    "\\\\server\\share\\a.pth": "no such file or folder",
    "file:///tmp/x%20y": "plain path: /tmp/x y$",
    "s3://bucket/x": "not an address of the Hub",
    "./nothing": "no such file or folder",
    "~nobody/at/all": "no such file or folder",
    "x" * 5000 + "/y/z": "neither a local path",
    "https://example.org/org/a": "not an address of the Hub",
    "https://huggingface.co@example.org/org/a": "not an address of the Hub",
    "https://[::1/org/a": "not an address",
    "https://huggingface.co\uff0fx/org/a": "not an address",
    "file://[x/a": "not an address",
    "https://huggingface.co/": "not the address of a model",
    "https://huggingface.co/datasets/org/a": "not the address of a model",
    f"{PAGE}/discussions": "not the address of a model",
    f"{PAGE}/blob/main": "does not stay inside",
    f"{PAGE}/blob/main/%2e%2e/x": "does not stay inside",
    f"{PAGE}/tree/main/%2e%2e/x": "does not stay inside",
    f"{PAGE}/commit/main/%2e%2e/x": "does not stay inside",
}


@pytest.mark.parametrize("text", REFERENCES)
def test_a_reference_means(text: str) -> None:
    assert parse_ref(text) == parse_hub_ref(text.strip()) == REFERENCES[text]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:40])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RefError, match=REFUSED[text]):
        parse_ref(text)


def test_the_hub_of_the_environment_has_addresses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:8000/mirror")
    assert parse_ref("http://127.0.0.1:8000/mirror/org/a/tree/main") == ModelRef("org/a", "main")
    with pytest.raises(RefError, match="not an address of the Hub"):
        parse_ref("http://127.0.0.1:8001/mirror/org/a")


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://huggingface.co/datasets/org/a", "org/a"),
        ("huggingface.co/datasets/org/a/tree/main", "org/a@main"),
        ("https://hf.co/datasets/org/a/tree/refs%2Fconvert%2Fparquet", "org/a@refs/convert/parquet"),
        ("org/a@v1", "org/a@v1"),
    ],
)
def test_the_address_of_a_data_set_is_its_name(address: str, name: str) -> None:
    assert hf_lwmm.ImageSource(address).data == name


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://huggingface.co/org/a", "not the address of a data set"),
        ("https://huggingface.co/datasets/org/a/blob/main/x.png", "not the address of a data set"),
        ("https://example.org/datasets/org/a", "not an address of the Hub"),
        ("https://[::1/datasets/org/a", "not an address"),
    ],
)
def test_addresses_of_no_data_set_are_refused(address: str, says: str) -> None:
    with pytest.raises(RefError, match=says):
        hf_lwmm.ImageSource(address)


def test_a_folder_here_is_not_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("org/a").mkdir(parents=True)
    assert parse_ref("org/a").is_local and parse_hub_ref("org/a") == ModelRef("org/a")


@pytest.mark.parametrize("text", ["org/a", "a.b-c_d", "org/a.b"])
def test_names_of_repositories(text: str) -> None:
    assert is_repo_id(text) and not any(is_repo_id(text + end) for end in ("\n", "/x/y", "..x", "--x", " x", "\u00e9"))


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("runs/streets-gtaa", "runs/streets-gta"),
        ("run/streets-gta", "runs/streets-gta"),
        ("./runs/street-gta", "runs/streets-gta"),
        ("runs/streets-gta/model.safetensor", "runs/streets-gta/model.safetensors"),
        ("last.pht", "last.pth"),
    ],
)
def test_a_misspelt_local_path_is_answered_with_the_nearest(
    text: str, near: str, run: Run, hub: LocalHub, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "streets-gta").mkdir(parents=True)
    (tmp_path / "runs" / "streets-gta" / "model.safetensors").touch()
    (tmp_path / "last.pth").touch()
    code, _, err = run("inspect", text)
    assert code == 1 and err.startswith(f"Error: {text}: ") and "log in" not in err
    assert f"id you mean {near}?" in err


def test_a_misspelt_file_is_answered_with_the_nearest_when_offline(
    run: Run, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, _, err = run("inspect", "run1_latest.pth")
    assert "no file or folder of this machine, not in the cache, and the Hub cannot be reached" in err
    (tmp_path / "r1_iter_40000.pth").touch()
    (tmp_path / "other_latest.txt").touch()
    for wrong in ("run1_latest.pth", "r1_iter_4000.pth"):
        _, _, err = run("inspect", wrong)
        assert f"{wrong}: there is no such file or folder; did you mean r1_iter_40000.pth?" in err


def test_a_misspelt_data_folder_is_answered_with_the_nearest(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "camvid" / "val").mkdir(parents=True)
    for wrong, right in (("camvit", "camvid"), ("camvid/vall", "camvid/val")):
        with pytest.raises(DatasetError, match=rf"Did you mean {right}\?$"):
            hf_lwmm.open_images(wrong)


def test_what_is_nowhere_near_is_no_suggestion(run: Run, hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    assert "you mean" not in run("inspect", "org/nothing")[2]


def test_a_file_that_is_not_there_asks_nobody_to_log_in(run: Run, hub: LocalHub) -> None:
    for name in ("nothing.pth", "runs/config.json"):
        code, _, err = run("inspect", name)
        assert code == 1 and err == f"Error: {name}: there is no such file here, nor a model of that name on the Hub.\n"
    assert "you mean" not in run("inspect", "./elsewhere/at/all")[2]
