"""`--format torch` changes the merged tensors and nothing else in the anchor's file, or says why it cannot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import lwmm, merge
from huggingface_hub import HfApi
from torch import Tensor, nn
from torch_files import floats, storage, tensor, zipped

import hf_lwmm
from hf_lwmm.errors import CheckpointError, MergeError
from hf_lwmm.localhub import LocalHub


def state(seed: int, size: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {"l1.weight": torch.randn(size, size), "l2.weight": torch.randn(3, size)}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in tensors.items()}


class Watched(nn.Module):
    """A network that keeps its weight, and a view of it, in other attributes too."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(2, 2)
        self.l1 = nn.Linear(4, 4)
        self.first = self.l1.weight[0].detach()
        self.again = self.l1


def shared_teacher(seed: int) -> Any:
    own = state(seed)
    teacher = {**state(7), "l1.weight": own["l1.weight"]}
    return {"state_dict": under("model.", own) | under("ema_model.", teacher)}


def shared_entry(seed: int) -> Any:
    own = state(seed)
    return {"state_dict": own, "best": {"row": own["l1.weight"][0]}}


def same_entry(seed: int) -> Any:
    own = state(seed)
    return {"state_dict": own, "state_dict_ema": own}


def shared_sparse(seed: int) -> Any:
    own = state(seed)
    steps = torch.sparse_coo_tensor(torch.tensor([[0, 1]]), own["l1.weight"][0, :2], (4,))
    return {"state_dict": own, "masks": [steps]}


def optimised(seed: int) -> Any:
    own = nn.Linear(2, 2)
    return {"model": own, "optimizer": torch.optim.SGD(own.parameters(), 0.1)}


NOT_APART: dict[str, tuple[Callable[[int], Any], str]] = {
    "a teacher tied to the student": (
        shared_teacher,
        r"'l1\.weight', which is merged, and 'ema_model\.l1\.weight', which is not, share memory",
    ),
    "a view in another entry": (shared_entry, r"'l1\.weight', which is merged, and 'best\.row', which is not, share"),
    "the same entry": (same_entry, "'state_dict(_ema)?' is the merged network itself once more"),
    "a tensor of another kind": (shared_sparse, r"'l1\.weight', which is merged, and 'masks\.0', which is not, share"),
    "an optimiser's parameters": (optimised, r"'(weight|bias)', which is merged, and 'optimizer\.param_groups"),
}


@pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kind", NOT_APART)
@pytest.mark.filterwarnings("ignore")
def test_what_would_change_too_is_named(kind: str, zip_file: bool, tmp_path: Path) -> None:
    make, words = NOT_APART[kind]
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for seed, path in enumerate(paths):
        torch.save(make(seed), path, _use_new_zipfile_serialization=zip_file)
    with pytest.raises(MergeError, match=rf"^a\.pth: {words}.*Use --format safetensors"):
        merge(paths, output=tmp_path / "out", format="torch")
    assert not (tmp_path / "out").exists()
    merge(paths, output=tmp_path / "out")


def test_a_modules_own_attributes_follow_its_tensors(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for path in paths:
        torch.save({"model": Watched(), "best_fitness": 0.5}, path)
    merge(paths, output=tmp_path / "out", format="torch")
    found = torch.load(tmp_path / "out" / "a.pth", weights_only=False)["model"]
    anchor = torch.load(paths[0], weights_only=False)["model"]
    assert not torch.equal(found.first, anchor.first) and torch.equal(found.first, found.l1.weight[0])


def test_an_archive_behind_other_bytes_is_not_copied(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    first = zipped({"x": tensor(storage("0", 1), (1,))}, {"0": floats(1)}, root="first")
    for value, path in enumerate(paths):
        path.write_bytes(first + zipped({"w": tensor(storage("0", 2), (2,))}, {"0": floats(value, 2)}))
    with pytest.raises(MergeError, match=rf"^a\.pth: {len(first):,} other bytes stand before its archive"):
        merge(paths, output=tmp_path / "out", format="torch")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_two_torch_files_says_so(tmp_path: Path) -> None:
    torch.save(state(0), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
        archive.writestr("other/data.pkl", b"N.")
    with pytest.raises(CheckpointError, match=r"several torch files: it has .*/data\.pkl and other/data\.pkl"):
        hf_lwmm.inspect(tmp_path / "a.pth")


def test_an_anchor_in_a_folder_that_merges_write_too(tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        (tmp_path / name / "plots").mkdir(parents=True)
        torch.save(state(seed), tmp_path / name / "plots" / "m.pth")
    refs = [f"{tmp_path / name}:plots/m.pth" for name in "ab"]
    merge(refs, output=tmp_path / "out", format="torch")
    assert {path.name for path in (tmp_path / "out" / "plots").iterdir()} == {"m.pth", "layer_weights.png"}


def replacing(path: Path, new: Path) -> Callable[[str, int, int], None]:
    """A progress function that puts another file in the place of one as soon as tensors are merged."""

    def progress(label: str, done: int, total: int) -> None:
        if label == "Merging" and new.exists():
            new.replace(path)

    return progress


@pytest.mark.parametrize("name", ["a.pth", "b.pth"])
@pytest.mark.parametrize("form", ["torch", "safetensors"])
def test_a_model_that_is_replaced_while_it_is_merged_is_refused(form: str, name: str, tmp_path: Path) -> None:
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for seed, path in enumerate(paths):
        torch.save(state(seed), path)
    torch.save(state(9), tmp_path / "new")
    with pytest.raises(CheckpointError, match=rf"^{name}: was replaced or changed while it was being read"):
        merge(paths, output=tmp_path / "out", format=form, progress=replacing(tmp_path / name, tmp_path / "new"))
    assert not (tmp_path / "out").exists()


def uploaded(api: HfApi, name: str, path: Path) -> str:
    api.create_repo(name)
    api.upload_file(path_or_fileobj=path, path_in_repo="latest.pth", repo_id=name)
    return name


def test_an_anchor_on_the_hub_is_fetched_whole_and_once(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    for seed, name in enumerate("ab"):
        rest = {"exp_avg": torch.randn(900, 900)}
        torch.save({"state_dict": state(seed, 600), "optimizer": rest}, tmp_path / f"{name}.pth")
    anchor, sizes = uploaded(api, "org/copied-anchor", tmp_path / "a.pth"), (tmp_path / "a.pth").stat().st_size
    before = hub.throttle.bytes_sent
    result = merge([anchor, tmp_path / "b.pth"], output=tmp_path / "out", format="torch")
    assert hub.throttle.bytes_sent - before < 1.3 * sizes
    assert result.recipe.recorded == ((), ())
    assert [dict(each) for each in result.recipe.sha256] == [
        {"latest.pth": hf_lwmm.hub.sha256(tmp_path / "a.pth")},
        {"b.pth": hf_lwmm.hub.sha256(tmp_path / "b.pth")},
    ]
    local = merge([tmp_path / "a.pth", tmp_path / "b.pth"], output=tmp_path / "local", format="torch")
    assert [*local.recipe.output.values()] == [*result.recipe.output.values()]


def test_what_cannot_be_copied_is_known_from_its_header(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    own = state(0, 900)
    torch.save({"state_dict": own, "row": own["l1.weight"][0]}, tmp_path / "a.pth")
    anchor = uploaded(api, "org/shared-anchor", tmp_path / "a.pth")
    before = hub.throttle.bytes_sent
    with pytest.raises(MergeError, match="share memory"):
        merge([anchor, tmp_path / "a.pth"], output=tmp_path / "out", format="torch")
    assert hub.throttle.bytes_sent - before < (tmp_path / "a.pth").stat().st_size / 2


def test_of_a_file_with_an_average_that_its_code_prefers_this_is_said(tmp_path: Path) -> None:
    paths = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for path in paths:
        torch.save({"model": nn.Linear(2, 2), "ema": nn.Linear(2, 2)}, path)
    found = lwmm("merge", *paths, "--format", "torch", "--output", tmp_path / "out")
    assert found.exit_code == 0, found.stderr
    assert "ultralytics loads ema from such a file: --branch teacher" in " ".join(found.stderr.split())
    merged = merge(paths, output=tmp_path / "ema", format="torch", branch="teacher")
    assert not any("ultralytics" in note for note in merged.notes)
    before, after = (torch.load(path, weights_only=False) for path in (paths[0], tmp_path / "ema" / "a.pt"))
    assert torch.equal(before["model"].weight, after["model"].weight)
    assert not torch.equal(before["ema"].weight, after["ema"].weight)
