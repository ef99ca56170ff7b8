"""Fill a Hub with two small models and a data set of rendered streets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_lwmm.demo.streets import CLASSES, render
from hf_lwmm.errors import HubError
from hf_lwmm.hub.calls import reaching

if TYPE_CHECKING:
    from huggingface_hub import HfApi

MODELS = Path(__file__).parent / "models"
# The models know "gta" and "night", a style each; the styles of "new" nobody has seen.
SPLITS = {"gta": ("gta",), "night": ("night",), "mixed": ("gta", "night"), "new": ("evening", "fog")}
FIRST_SCENE = 200_000  # the number of the first frame of a split; the training used lower ones


def upload_model(api: HfApi, folder: Path, user: str) -> str:
    """Upload a model's folder as one commit, and return the id of its repository."""
    from huggingface_hub import CommitOperationAdd

    repo_id = f"{user}/{folder.name}"
    api.create_repo(repo_id, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
    api.create_commit(repo_id, operations, commit_message="Add the trained model")
    return repo_id


def upload_scenes(repo_id: str, split: str, frames: int) -> None:
    """Upload a split of a data set: `frames` rendered frames of each of its styles, with their masks."""
    from datasets import Dataset, Features, Image

    scenes = [render(style, FIRST_SCENE + i) for style in SPLITS[split] for i in range(frames)]
    rows = {"image": [s.image for s in scenes], "label": [np.asarray(s.labels) for s in scenes]}
    Dataset.from_dict(rows, features=Features({"image": Image(), "label": Image()})).push_to_hub(repo_id, split=split)


def upload_names(api: HfApi, repo_id: str) -> None:
    """Upload the names of the masks' ids."""
    names = json.dumps(dict(enumerate(CLASSES))).encode()
    api.upload_file(path_or_fileobj=names, path_in_repo="id2label.json", repo_id=repo_id, repo_type="dataset")


def fill(place: Path, data: str, frames: int) -> None:
    """Put the models and the pictures into the Hub that the stock clients are set to.

    Args:
        place: what messages call the Hub.
        data: the repository of the pictures.
        frames: scenes a split.

    Raises:
        HubError: if the Hub is not reached or cannot keep them.
    """
    import datasets
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    with reaching("The demo"), _uploading(place):
        api = HfApi()
        for folder in sorted(MODELS.iterdir()):
            upload_model(api, folder, "local")
        api.create_repo(data, repo_type="dataset", exist_ok=True)
        for split in ("new", "gta"):
            upload_scenes(data, split, frames)
        upload_names(api, data)


@contextlib.contextmanager
def _uploading(place: Path) -> Iterator[None]:
    """Turn the stock client's error of an upload that its Hub cannot keep into a HubError."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        cause = error.__cause__ or error
        why = " ".join(str(getattr(cause, "server_message", None) or cause).split()).rstrip(".")
        raise HubError(
            f"{place}: the demo's Hub cannot be filled ({why}). If the disk is full, free some space, or choose "
            "another --output."
        ) from error
