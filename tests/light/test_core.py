"""The package without its extras: what merges, plans and compares needs no torch, and what needs more names the extra.

In these tests no package of an extra can be imported, installed or not. `.ci/run` also runs them where none is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fresh import Forks, Ran
from huggingface_hub import HfApi, metadata_load
from torch_files import ordered, storage, tensor, zipped

from hf_lwmm.errors import EXTRAS

MODELS = Path(__file__).parents[2] / "hf_lwmm" / "demo" / "models"
# Of model.safetensors, when the quick start's models are merged with all defaults.
MERGED = "f4a341eb66e9038707481d5f737822948ab6aa0e1d9f896dd1122e597e11605e"

_BLOCKED = f"import sys; sys.modules.update(dict.fromkeys({list(EXTRAS)})); "
_DEPENDENCIES = "import click, huggingface_hub.hf_api, jinja2, numpy, rich.table, yaml"
Core = Callable[..., Ran]


@pytest.fixture(scope="module")
def without_extras() -> Iterator[Forks]:
    """Processes that can import no extra; all that every installation has, they have imported."""
    with Forks(_BLOCKED + _DEPENDENCIES) as prepared:
        yield prepared


@pytest.fixture
def core(without_extras: Forks, tmp_path: Path) -> Core:
    """Run a command in an empty folder, in a process that can import no extra."""

    def run(*arguments: object) -> Ran:
        code = "from hf_lwmm.cli import main; main()"
        done = without_extras.run(code, *arguments, folder=tmp_path, environment={"COLUMNS": "200"})
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run


@pytest.fixture
def models(api: HfApi) -> tuple[str, str]:
    """The quick start's two trained SegFormers, on the Hub."""
    for folder in ("streets-gta", "streets-night"):
        api.create_repo(f"org/{folder}", exist_ok=True)
        api.upload_folder(repo_id=f"org/{folder}", folder_path=MODELS / folder)
    return "org/streets-gta", "org/streets-night"


def test_the_main_job_from_pull_to_pushed_card(core: Core, models: tuple[str, str], api: HfApi) -> None:
    repo = "local/streets-gta-lwmm"
    merged = core("merge", *models, "--anchor", models[0], "--push")
    assert merged.returncode == 0 and repo in merged.stdout, merged
    assert "plots/layer_weights.png" in merged.stderr and "pip install 'hf-lwmm[plots]'" in merged.stderr
    assert set(api.list_repo_files(repo)) == {
        ".gitattributes", "README.md", "config.json", "hf_lwmm.yaml", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    [weights] = api.get_paths_info(repo, "model.safetensors")
    assert weights.lfs.sha256 == MERGED
    card = Path(api.hf_hub_download(repo, "README.md"))
    assert metadata_load(card)["base_model"] == list(models) and "layer_weights.png" not in card.read_text()
    again = core("reproduce", repo)
    assert again.returncode == 0 and "the bytes agree" in again.stdout and MERGED in again.stdout


def test_a_merged_folder_is_pushed_later(
    core: Core, without_extras: Forks, models: tuple[str, str], api: HfApi, tmp_path: Path
) -> None:
    assert core("merge", *models, "--output", "out").returncode == 0
    code = "import hf_lwmm; print(hf_lwmm.push('out', 'local/light-later').changed)"
    pushed = without_extras.run(code, folder=tmp_path)
    assert pushed.stdout == "True\n" and "hf_lwmm.yaml" in api.list_repo_files("local/light-later")


def test_torch_files_are_inspected_planned_and_merged_without_torch(core: Core, tmp_path: Path) -> None:
    for value, name in enumerate(("a.pth", "b.pth"), 1):
        weights = struct.pack("<6f", *[value] * 6)
        state = {f"{layer}.weight": tensor(storage(str(key), 6), (2, 3)) for key, layer in enumerate(("first", "last"))}
        (tmp_path / name).write_bytes(zipped({"state_dict": ordered(state)}, {"0": weights, "1": weights}))
    for command in ("inspect a.pth", "plan a.pth b.pth", "diff a.pth b.pth --headers"):
        assert core(*command.split()).returncode == 0
    for kind, file in (("safetensors", "model.safetensors"), ("torch", "a.pth")):
        done = core("merge", "a.pth", "b.pth", "--format", kind, "--output", kind)
        assert done.returncode == 0 and (tmp_path / kind / file).is_file(), done
    same = core("diff", "torch", "safetensors")
    assert same.returncode == 0 and "1.0000" in same.stdout


# Commands about the models A and B, and a word of what they print.
WITHOUT_EXTRAS = {
    "plan A B": "mit.stage0",
    "inspect A B": "MiT",
    "diff A B": "cosine",
    "merge A B --method slerp --dry-run": "mit.stage0",
    "search --like A": "org/streets-night",
    "convert A nvidia.safetensors --to nvidia": "nvidia.safetensors",
    "methods": "layerwise",
    "--help": "reproduce",
    "merge --help": "--start",
    "sweep --help": "--methods",
}


@pytest.mark.parametrize("command", WITHOUT_EXTRAS)
def test_commands_about_weights_need_no_extra(command: str, core: Core, models: tuple[str, str]) -> None:
    done = core(*with_names(command, models))
    assert done.returncode == 0 and WITHOUT_EXTRAS[command] in done.stdout, done


# And the extra that brings all that each of these needs.
WITH_EXTRAS = {
    "evaluate A --data folder": "eval",
    "sweep A B --data folder": "eval",
    "measure A --data folder --output f.safetensors": "eval",
    "predict A picture.png": "eval",
    "merge A B --eval-data folder": "eval",
    "merge A B --method adaptive --tune-data folder": "eval",
    "merge A B --bn-stats recalibrate --bn-data folder": "eval",
    "convert A new": "networks",
    "merge A B --permute": "permute",
    "plan A B --plot plan.png": "plots",
    "hub serve --root hub": "hub",
}


@pytest.mark.parametrize("command", WITH_EXTRAS)
def test_other_commands_name_the_extra_that_they_lack(
    command: str, core: Core, models: tuple[str, str], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()  # where data are looked for before extras
    done = core(*(str(tmp_path / part) if part == "folder" else part for part in with_names(command, models)))
    assert done.returncode == 1
    assert f"pip install 'hf-lwmm[{WITH_EXTRAS[command]}]'" in done.stderr


def test_the_networks_name_the_extra_that_they_lack(without_extras: Forks) -> None:
    done = without_extras.run("import hf_lwmm.networks")
    assert "hf_lwmm.networks needs transformers, which is not installed: pip install 'hf-lwmm[networks]'" in done.stderr


def with_names(command: str, models: tuple[str, str]) -> list[str]:
    """The words of a command, with the models' names in place of A and B."""
    return [{"A": models[0], "B": models[1]}.get(word, word) for word in command.split()]
