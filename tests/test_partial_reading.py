"""Only the needed bytes: headers of files on the Hub, and the tensors that a merge reads, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from calls import merge
from conftest import Run
from huggingface_hub import HfApi, constants, try_to_load_from_cache
from safetensors.torch import save_file

import hf_lwmm
from hf_lwmm.hub.transfer import transfer
from hf_lwmm.localhub import Fault, LocalHub

pytestmark = pytest.mark.usefixtures("without_plots")

STUDENT = {"backbone.a.weight": (300, 300), "backbone.b.weight": (300, 300), "head.weight": (19, 300)}


def training_checkpoint(seed: int, classes: int = 19) -> dict[str, object]:
    """A self-training run: student, teacher, ImageNet copy and Adam's state, of which the student is a sixth."""
    torch.manual_seed(seed)
    shapes = {**STUDENT, "head.weight": (classes, 300)}
    state = {
        f"{prefix}{name}": torch.randn(shape) for prefix in ("model.", "ema_model.") for name, shape in shapes.items()
    }
    state |= {f"imnet_model.{name}": torch.randn(shape) for name, shape in shapes.items()}
    moments = {i: {"exp_avg": torch.randn(600, 300)} for i in range(3)}
    return {"meta": {"iter": 1}, "state_dict": state, "optimizer": {"state": moments}}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = []
    for seed, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "latest.pth")
        torch.save(training_checkpoint(seed), paths[-1])
    return paths


@pytest.fixture
def repos(api: HfApi, files: list[Path], request: pytest.FixtureRequest) -> list[str]:
    """The same two checkpoints on the Hub."""
    names = [f"org/partial-{letter}-{abs(hash(request.node.name)) % 10**8}" for letter in "ab"]
    for name, path in zip(names, files, strict=True):
        api.create_repo(name)
        api.upload_file(path_or_fileobj=path, path_in_repo="latest.pth", repo_id=name)
    return names


class Line:
    """The bytes that a Hub sends inside a `with` block."""

    def __init__(self, hub: LocalHub) -> None:
        self._hub, self.sent = hub, 0

    def __enter__(self) -> Line:
        self.sent = -self._hub.throttle.bytes_sent
        return self

    def __exit__(self, *error: object) -> None:
        self.sent += self._hub.throttle.bytes_sent


@pytest.fixture
def line(hub: LocalHub) -> Iterator[Line]:
    yield Line(hub)


def cached(repo: str) -> list[Path]:
    """The files of a repository's cache that hold weights, or parts of them."""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "blobs"
    return [path for path in folder.glob("*") if path.stat().st_size > 10_000]


def test_looking_at_models_downloads_nothing(run: Run, repos: list[str], files: list[Path], line: Line) -> None:
    whole = files[0].stat().st_size
    with line:
        assert run("inspect", repos[0])[0] == 0
        assert run("plan", *repos)[0] == 0
        assert run("diff", *repos, "--headers")[0] == 0
    assert line.sent < 3 * whole and not cached(repos[0]) and not cached(repos[1])
    assert hf_lwmm.inspect(repos[0]).training == {"iteration": "1"}
    assert hf_lwmm.inspect(repos[0]).tensors == hf_lwmm.inspect(files[0]).tensors == len(STUDENT)


def test_a_merge_fetches_the_students_alone_and_says_whose_hashes_it_records(
    repos: list[str], files: list[Path], line: Line, tmp_path: Path
) -> None:
    local = merge(files, output=tmp_path / "local")
    with line:
        remote = merge(repos, output=tmp_path / "remote")
    assert remote.recipe.output == local.recipe.output and remote.recipe.sha256 == local.recipe.sha256
    assert line.sent < 0.6 * sum(path.stat().st_size for path in files)
    assert remote.recipe.recorded == (("latest.pth",),) * 2 and local.recipe.recorded == ((), ())
    read = hf_lwmm.load_recipe(tmp_path / "remote" / "hf_lwmm.yaml")
    assert read.recorded == remote.recipe.recorded
    with line:
        again = merge(repos, output=tmp_path / "again")
    assert again.recipe.output == local.recipe.output
    assert line.sent < 2e6  # headers; the tensors are in the cache


def test_full_download_brings_whole_files(run: Run, repos: list[str], files: list[Path], line: Line) -> None:
    with line:
        assert run("merge", *repos, "--full-download", "--output", "out")[0] == 0
    assert line.sent >= sum(path.stat().st_size for path in files)
    recipe = hf_lwmm.load_recipe("out/hf_lwmm.yaml")
    assert recipe.recorded == ((), ()) and [list(each.values()) for each in recipe.sha256] == [
        [hf_lwmm.hub.sha256(path)] for path in files
    ]
    with line:  # the cache has them now
        assert run("merge", *repos, "--output", "again")[0] == 0
    assert line.sent < 10_000


def test_a_server_without_ranges_is_named_and_a_full_download_needs_none(
    run: Run, repos: list[str], hub: LocalHub
) -> None:
    hub.faults.append(Fault(r"latest\.pth$", ignore_range=True, times=99))
    code, _, err = run("merge", *repos, "--output", "out")
    assert code == 1 and "--full-download" in err.splitlines()[-1] and not Path("out").exists()
    assert run("merge", *repos, "--full-download", "--output", "out")[0] == 0


def test_images_mean_whole_files_since_networks_are_loaded_from_them(repos: list[str], files: list[Path]) -> None:
    with pytest.raises(hf_lwmm.HfLwmmError):  # there is no network of this kind
        hf_lwmm.merge(repos, inputs=hf_lwmm.MergeInputs(eval_images="org/nothing"), output=files[0].parent / "out")
    assert all(map(whole_in_cache, repos))


def test_where_nothing_is_fetched_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("threading.Thread.start")
    transfer([], print)


def test_of_a_model_with_another_head_the_shared_backbone_is_fetched(
    api: HfApi, files: list[Path], line: Line, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    other = {name: torch.randn(shape) for name, shape in STUDENT.items() if "backbone" in name}
    other |= {f"decoder.{i}.weight": torch.randn(900, 900) for i in range(2)}
    save_file(other, tmp_path / "model.safetensors")
    repo = f"org/partial-head-{abs(hash(str(tmp_path))) % 10**8}"
    api.create_repo(repo)
    api.upload_file(path_or_fileobj=tmp_path / "model.safetensors", path_in_repo="model.safetensors", repo_id=repo)
    local = merge([files[0], tmp_path / "model.safetensors"], output=tmp_path / "local")
    with line:
        remote = merge([files[0], repo], output=tmp_path / "remote")
    assert remote.recipe.output == local.recipe.output
    assert line.sent < 0.4 * (tmp_path / "model.safetensors").stat().st_size


def test_looking_at_an_old_torch_file_takes_a_few_requests(
    api: HfApi, hub: LocalHub, line: Line, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    repos, paths = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        state = {f"backbone.{number}.weight": torch.randn(300, 300) for number in range(30)}
        checkpoint = {"state_dict": state, "optimizer": {"state": {0: torch.randn(3000, 1000)}}}
        paths.append(tmp_path / f"{seed}.pth")
        torch.save(checkpoint, paths[-1], _use_new_zipfile_serialization=False)
        repos.append(f"org/partial-old-{seed}")
        api.create_repo(repos[-1])
        api.upload_file(path_or_fileobj=paths[-1], path_in_repo="latest.pth", repo_id=repos[-1])
    begun = hub.throttle.requests
    with line:
        assert hf_lwmm.inspect(repos[0]).tensors == 30
    assert hub.throttle.requests - begun <= 6 and line.sent < 600_000
    local, remote = merge(paths, output=tmp_path / "local"), merge(repos, output=tmp_path / "remote")
    assert remote.recipe.output == local.recipe.output and not any(map(whole_in_cache, repos))


def whole_in_cache(repo: str) -> bool:
    return isinstance(try_to_load_from_cache(repo, "latest.pth"), str)


def test_a_diff_fetches_what_both_have(repos: list[str], files: list[Path], line: Line) -> None:
    with line:
        remote = hf_lwmm.diff(*repos)
    assert line.sent < 0.6 * sum(path.stat().st_size for path in files)
    assert remote.layers == hf_lwmm.diff(*files).layers


def test_headers_that_differ_are_listed(files: list[Path], run: Run, tmp_path: Path) -> None:
    torch.save({**training_checkpoint(3, classes=16)}, tmp_path / "sixteen.pth")
    code, out, _ = run("diff", files[0], tmp_path / "sixteen.pth", "--headers")
    assert code == 0 and "2 slots agree in name and shape." in out and "head.weight: 19 x 300, 16 x 300" in out
    found = hf_lwmm.diff_headers(files[0], tmp_path / "sixteen.pth")
    assert found.shared == 2 and found.shapes == {"head.weight": ("19 x 300", "16 x 300")} and found.only == ((), ())
    code, _, err = run("diff", files[0], files[1], "--headers", "--tau", "3")
    assert code == 1 and "--headers reads no values" in err
