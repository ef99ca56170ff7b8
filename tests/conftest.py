"""Fixtures of the tests: a Hub of their own (the local one, over real HTTP), the command line, models, images."""

from __future__ import annotations

import gc
import itertools
import math
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

gc.disable()  # until all is collected: what is imported stays, and looking through it again and again is slow

# The stock client reads these when it is imported, so they are set before anything imports it.
_HOME = Path(tempfile.mkdtemp(prefix="hf-lwmm-tests-"))
# What the tested code leaves among temporary files goes with it; pytest's own folders, of failed tests, stay.
os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
os.environ["TMPDIR"] = tempfile.tempdir = str(_HOME)
with socket.socket() as _probe:
    _probe.bind(("127.0.0.1", 0))
    _PORT = _probe.getsockname()[1]
TOKEN = "hf_local_write"
_NUMBERS = itertools.count()  # of repositories that a test has to itself
Run = Callable[..., tuple[int, str, str]]  # arguments to exit code, stdout and stderr
os.environ.update(
    HF_HOME=str(_HOME / "hf"),
    HF_ENDPOINT=f"http://127.0.0.1:{_PORT}",
    HF_TOKEN=TOKEN,
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    MPLCONFIGDIR=str(_HOME / "matplotlib"),
    OMP_NUM_THREADS="1",  # a test process for each core already
)
os.environ.pop("HF_HUB_OFFLINE", None)

from fresh import Forks  # noqa: E402
from huggingface_hub import HfApi  # noqa: E402
from hypothesis import settings  # noqa: E402

from hf_lwmm.cli import main  # noqa: E402
from hf_lwmm.localhub import LocalHub  # noqa: E402

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a long preparation come first: a process begins with many tests in a row."""
    prepared = ("test_uda.py", "test_extension.py", "test_torch_files_hostile.py")
    items.sort(key=lambda item: item.path.name not in prepared)


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later search for garbage."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def _served() -> Iterator[LocalHub]:
    with LocalHub(_HOME / "hub", port=_PORT) as hub:
        hub.add_user("local", token=TOKEN, orgs=("org",))
        hub.add_user("reader", token="hf_reader", role="read", orgs=("org",))
        hub.add_user("stranger", token="hf_stranger")
        yield hub


@pytest.fixture
def hub(_served: LocalHub) -> Iterator[LocalHub]:
    """A running local Hub with the users local (writes to org too), reader (read-only token) and stranger."""
    yield _served
    _served.faults.clear()
    _served.throttle.rate, _served.throttle.latency = math.inf, 0.0


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    """The stock client as the user local."""
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command line in an empty folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-lwmm", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes that have imported torch and torchvision, which takes longest, and nothing that needs these."""
    with Forks("import torch, torchvision") as prepared:
        yield prepared


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge as if matplotlib were not installed, for tests of something else: a plot takes longer than all the rest."""
    for module in ("hf_lwmm.api.merge", "hf_lwmm.api.merged_files", "hf_lwmm.publishing.score_files"):
        monkeypatch.setattr(f"{module}.find_spec", lambda name: None)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small SegFormers."""
    from tiny import segformer  # needs torch, which tests of the package without extras lack

    folder = tmp_path_factory.mktemp("models")
    return [segformer(folder / name, seed) for seed, name in enumerate(("one", "two", "three"), 1)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five images with their labels."""
    from tiny import tree

    return tree(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def bare(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images alone."""
    return Path(shutil.copytree(data / "images", tmp_path_factory.mktemp("bare") / "pictures"))


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two small SegFormers of one kind, as transformers saves them."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    folders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        config = SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], num_attention_heads=[1, 2], sr_ratios=[4, 2],
            patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=8,
            id2label={0: "road", 1: "sky"}, label2id={"road": 0, "sky": 1},
        )  # fmt: skip
        folder = tmp_path_factory.mktemp(f"tiny{seed}")
        SegformerForSemanticSegmentation(config).save_pretrained(folder)
        SegformerImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture
def hub_models(api: HfApi, tiny_folders: tuple[Path, Path], request: pytest.FixtureRequest) -> tuple[str, str]:
    """The two SegFormers as fresh repositories of the organisation org."""
    names = []
    for letter, folder in zip("ab", tiny_folders, strict=True):
        name = f"org/{request.node.originalname[5:35].strip('_')}-{next(_NUMBERS)}-{letter}"
        api.create_repo(name)
        (folder / "README.md").write_text("---\nlicense: mit\nlibrary_name: transformers\n---\n# Model\n")
        api.upload_folder(repo_id=name, folder_path=folder)
        names.append(name)
    return names[0], names[1]
