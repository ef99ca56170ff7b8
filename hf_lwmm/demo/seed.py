"""Fill a Hub with two small models and a data set of rendered streets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hf_lwmm.demo.streets import CLASSES, render

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
