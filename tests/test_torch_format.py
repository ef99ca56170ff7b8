"""`--format torch`: the merge as a copy of the anchor's own file, which its own code loads as it loaded the anchor."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import merge
from conftest import Run
from PIL import Image
from safetensors.torch import load_file, save_file
from small_networks import network as network_of
from small_networks import saved as saved_network
from torch import Tensor, nn

import hf_lwmm
from hf_lwmm.errors import MergeError

pytestmark = pytest.mark.usefixtures("without_plots")

State = dict[str, Tensor]


def network(seed: int) -> nn.Module:
    """A small network, one weight of which is not contiguous in memory."""
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    made[0].to(memory_format=torch.channels_last)
    return made


def prefixed(state: State, prefix: str, more: float = 0) -> State:
    return {prefix + name: tensor + more for name, tensor in state.items()}


# What each code base saves, and how it loads that: a bare state dict, mmcv's container of a self-training run, a whole
# module, and ultralytics' container with a module in it.
SAVED: dict[str, Callable[[nn.Module], Any]] = {
    "state dict": lambda net: net.state_dict(),
    "mmcv": lambda net: {
        "meta": {"CLASSES": ["a", "b"], "iter": 40000},
        "state_dict": prefixed(net.state_dict(), "model.") | prefixed(net.state_dict(), "ema_model.", 1),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}},
    },
    "module": lambda net: net,
    "ultralytics": lambda net: {"epoch": 9, "model": net, "ema": None},
}
LOADED: dict[str, Callable[[Any], State]] = {
    "state dict": lambda found: dict(found),
    "mmcv": lambda found: {name[6:]: t for name, t in found["state_dict"].items() if name.startswith("model.")},
    "module": lambda found: dict(found.state_dict()),
    "ultralytics": lambda found: dict(found["model"].state_dict()),
}


@pytest.fixture(params=["zip", "legacy"])
def zipped(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "zip")


def saved(kind: str, folder: Path, zipped: bool) -> list[Path]:
    paths = [folder / "a.pth", folder / "b.pth"]
    for seed, path in enumerate(paths):
        torch.save(SAVED[kind](network(seed)), path, _use_new_zipfile_serialization=zipped)
    return paths


@pytest.mark.parametrize("kind", SAVED)
def test_the_anchors_own_loader_finds_the_merged_weights(kind: str, zipped: bool, tmp_path: Path) -> None:
    paths = saved(kind, tmp_path, zipped)
    merge(paths, output=tmp_path / "plain")
    result = merge(paths, output=tmp_path / "out", format="torch")
    assert set(result.recipe.output) == {"a.pth"} and not list((tmp_path / "out").glob("*.safetensors"))
    written = tmp_path / "out" / "a.pth"
    found = LOADED[kind](torch.load(written, weights_only=kind in ("state dict", "mmcv")))
    merged = load_file(tmp_path / "plain" / "model.safetensors")
    merged = {name.removeprefix("model."): tensor for name, tensor in merged.items()}
    assert found.keys() == merged.keys()
    assert all(torch.equal(found[name], merged[name]) for name in merged)
    assert not torch.equal(found["0.weight"], network(0).state_dict()["0.weight"])


@pytest.mark.parametrize("kind", SAVED)
def test_nothing_but_tensors_and_checksums_differs(kind: str, zipped: bool, tmp_path: Path) -> None:
    paths = saved(kind, tmp_path, zipped)
    merge(paths, output=tmp_path / "out", format="torch")
    before, after = paths[0].read_bytes(), (tmp_path / "out" / "a.pth").read_bytes()
    assert len(before) == len(after) and before != after
    if zipped:
        with zipfile.ZipFile(paths[0]) as old, zipfile.ZipFile(tmp_path / "out" / "a.pth") as new:
            assert new.testzip() is None  # all checksums fit
            names = [name for name in old.namelist() if "/data/" not in name]
            assert names and all(old.read(name) == new.read(name) for name in names)


def test_the_teacher_of_a_run_is_left_as_it_is(zipped: bool, tmp_path: Path) -> None:
    paths = saved("mmcv", tmp_path, zipped)
    merge(paths, output=tmp_path / "out", format="torch")
    before, after = (torch.load(path) for path in (paths[0], tmp_path / "out" / "a.pth"))
    assert before["meta"] == after["meta"]
    assert torch.equal(before["state_dict"]["ema_model.0.weight"], after["state_dict"]["ema_model.0.weight"])


@pytest.mark.parametrize("branch", ["student", "teacher"])
def test_what_was_merged_of_a_run_is_what_is_read_and_what_the_card_shows(
    branch: str, run: Run, tmp_path: Path
) -> None:
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        nvidia = {}
        for number, prefix in enumerate(("model.", "ema_model.")):
            own = saved_network(network_of("segformer", 2 * seed + number), tmp_path / f"{name}{number}")
            hf_lwmm.convert(own, tmp_path / f"{name}{number}.safetensors", to="nvidia")
            nvidia |= prefixed(load_file(tmp_path / f"{name}{number}.safetensors"), prefix)
        torch.save({"meta": {"CLASSES": ["a", "b", "c"]}, "state_dict": nvidia}, tmp_path / name / "x.pth")
    Image.new("RGB", (64, 64), "gray").save("p.png")
    for form in ("torch", "safetensors"):
        code, _, err = run("merge", "a", "b", "--branch", branch, "--format", form, "--output", form)
        assert code == 0, err
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        logits = [hf_lwmm.load(each).model(pixels).logits for each in ("safetensors", "torch", "torch/x.pth")]
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])
    for form, read in (
        ("torch", "so that was read, not the student"),
        ("safetensors", "and there is no other network"),
    ):
        _, _, err = run("predict", form, "p.png", "--output", f"seen-{form}")
        assert (f"{form}: its hf_lwmm.yaml says that teacher was merged, {read}" in err) == (branch == "teacher")
        code, _, err = run("predict", form, "p.png", "--output", f"as-{form}", "--branch", branch)
        assert code == 0 and "was merged, " not in err
        assert hf_lwmm.load(form).is_merge
    (block,) = re.findall("```python\n(.*?)\n```", Path("torch/README.md").read_text(), re.DOTALL)
    prefix = "model." if branch == "student" else "ema_model."
    assert f'torch.load("torch/x.pth", map_location="cpu")["state_dict"]  # the merge is in {prefix}*' in block
    found: dict[str, Any] = {}
    exec(compile(block, "the card", "exec"), found)
    for name, tensor in load_file("safetensors/model.safetensors").items():
        assert torch.equal(found["state_dict"][prefix + name.removeprefix(prefix)], tensor)
    with torch.no_grad():
        assert torch.equal(found["loaded"].model(pixels).logits, logits[0])


def test_a_recipe_chooses_no_other_network_than_the_branch_that_is_asked_for(run: Run, tmp_path: Path) -> None:
    own = {key: tensor.contiguous() for key, tensor in network(1).state_dict().items()}
    for name in "ab":
        save_file({**prefixed(own, "student."), **prefixed(own, "ema_student.")}, f"{name}.safetensors")
    assert run("merge", "a.safetensors", "b.safetensors", "--branch", "teacher", "--output", "out")[0] == 0
    shutil.copy("a.safetensors", "out/model.safetensors")  # which has both again
    for given in ([], ["--branch", "teacher"]):
        code, _, err = run("inspect", "out", *given)
        assert code == 0 and "took the teacher" in err and "no other network" not in err, err
    assert "took the student" not in err and "(--branch with the beginning of its names and a dot)" in err
    code, _, err = run("inspect", "out", "--branch", "student.")
    assert code == 0 and "tensors of this branch" in err, err


def test_the_merge_can_be_merged_again(tmp_path: Path) -> None:
    paths = saved("mmcv", tmp_path, True)
    merge(paths, output=tmp_path / "out", format="torch")
    again = merge([tmp_path / "out" / "a.pth", tmp_path / "out" / "a.pth"], output=tmp_path / "again", format="torch")
    assert again.recipe.output == {"a.pth": hf_lwmm.hub.sha256(tmp_path / "out" / "a.pth")}


def test_files_of_one_name_in_several_folders_stay_apart(tmp_path: Path) -> None:
    for seed, model in enumerate("ab"):
        state = network(seed).state_dict()
        for half, names in (("first", list(state)[:2]), ("second", list(state)[2:])):
            (tmp_path / model / half).mkdir(parents=True)
            torch.save({name: state[name] for name in names}, tmp_path / model / half / "net.pth")
    refs = [f"{tmp_path / model}:first/net.pth+second/net.pth" for model in "ab"]
    result = merge(refs, output=tmp_path / "out", format="torch")
    assert set(result.recipe.output) == {"first/net.pth", "second/net.pth"}
    before, after = (torch.load(tmp_path / folder / "second" / "net.pth") for folder in ("a", "out"))
    assert before.keys() == after.keys()


def test_shards_stay_shards(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        state = network(seed).state_dict()
        (tmp_path / name).mkdir()
        halves = {
            "pytorch_model-00001-of-00002.bin": list(state)[:2],
            "pytorch_model-00002-of-00002.bin": list(state)[2:],
        }
        for file, names in halves.items():
            torch.save({key: state[key] for key in names}, tmp_path / name / file)
        weight_map = {key: file for file, names in halves.items() for key in names}
        (tmp_path / name / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    result = merge([tmp_path / "a", tmp_path / "b"], output=tmp_path / "out", format="torch")
    assert len(result.recipe.output) == 3
    merge([tmp_path / "a", tmp_path / "b"], output=tmp_path / "plain")
    found = {name: t for path in (tmp_path / "out").glob("*.bin") for name, t in torch.load(path).items()}
    merged = load_file(tmp_path / "plain" / "model.safetensors")
    assert found.keys() == merged.keys() and all(torch.equal(found[name], merged[name]) for name in merged)


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({}, {"dtype": "float16"}, r"--format torch keeps the anchor's types; leave out --dtype float16"),
        ({"turned": 1}, {}, r"a\.pth: .* share memory, or lie among .* in the anchor's file, .*--format safetensors"),
        ({"wide": 1}, {}, r"a\.pth: elements of 'wide' share memory"),
    ],
)
def test_what_cannot_be_written_so_is_refused(
    state: dict[str, int], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        own = dict(network(0).state_dict())
        if "turned" in state:
            own["3.weight"] = own["2.weight"].flatten(1).T
        if "wide" in state:
            own["wide"] = torch.ones(1, 4).expand(3, 4)
        torch.save(own, path)
    with pytest.raises(MergeError, match=message):
        merge(paths, output=tmp_path / "out", format="torch", **options)
    assert not (tmp_path / "out").exists()


def test_integers_which_are_never_merged_may_share_memory(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for seed, path in enumerate(paths):
        state = network(seed).state_dict()
        counter = state["1.num_batches_tracked"] + 7 + seed
        torch.save({"state_dict": {**state, "1.num_batches_tracked": counter}, "ema": {"steps": counter}}, path)
    merge(paths, output=tmp_path / "out", format="torch")
    found = torch.load(tmp_path / "out" / "a.pth")
    assert found["state_dict"]["1.num_batches_tracked"] == found["ema"]["steps"] == 7


def test_an_anchor_of_safetensors_has_no_torch_file_to_copy(tmp_path: Path) -> None:
    paths = saved("state dict", tmp_path, True)
    folder = merge(paths, output=tmp_path / "out").folder
    assert folder is not None
    with pytest.raises(MergeError, match="--format torch copies the anchor's torch file, but out has none"):
        merge([folder, paths[0]], output=tmp_path / "again", format="torch")
