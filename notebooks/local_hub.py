"""A Hub on this machine for the notebooks: two small trained SegFormers and labelled street scenes."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path


def start(splits: tuple[str, ...] = ("night",), frames: int = 4) -> str:
    """Start it, point the stock clients to it, fill it, and give its user's name; a second call starts no second one.

    Call it before anything imports huggingface_hub.

    Args:
        splits: of the data set: `gta` (day) and `night` are each known to one model, `mixed` has both, `new` has styles
            that neither knows.
        frames: how many scenes a split has of each of its styles.

    Raises:
        RuntimeError: if huggingface_hub was imported before, and so talks to another Hub.
    """
    user = _serve()
    for split in splits:
        _upload_scenes(f"{user}/streets", split, frames)
    return user


@cache
def _serve() -> str:
    if "huggingface_hub" in sys.modules:
        raise RuntimeError("huggingface_hub is in use already: restart the kernel and run this cell first.")
    from hf_lwmm import LocalHub

    folder = Path(tempfile.mkdtemp(prefix="hf-lwmm-notebook-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    hub = LocalHub(folder / "hub", faults=False)
    hub.__enter__()  # until the kernel ends
    warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, without ipywidgets
    os.environ.update(
        HF_ENDPOINT=hub.endpoint,
        HF_TOKEN=hub.token,
        HF_HOME=str(folder / "hf"),
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )
    import datasets
    from huggingface_hub import HfApi

    from hf_lwmm import demo

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    user = str(HfApi().whoami()["name"])
    for model in sorted(demo.MODELS.iterdir()):
        demo.upload_model(HfApi(), model, user)
    HfApi().create_repo(f"{user}/streets", repo_type="dataset")
    demo.upload_names(HfApi(), f"{user}/streets")
    return user


@cache
def _upload_scenes(repo_id: str, split: str, frames: int) -> None:
    from hf_lwmm import demo

    demo.upload_scenes(repo_id, split, frames)
