"""Fill the Hub at HF_ENDPOINT with the quick start's two models and a small rendered dataset; safe to repeat."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, Features, Image
from huggingface_hub import CommitOperationAdd, HfApi

from scripts.uda.streets import CLASSES, render

MODELS = Path(__file__).parent / "models"
# The models know "gta" and "night", a style each; the styles of "new" nobody has seen.
SPLITS = {"gta": ("gta",), "night": ("night",), "mixed": ("gta", "night"), "new": ("evening", "fog")}
FRAMES = 16  # of each style


def upload_model(api: HfApi, folder: Path, user: str) -> str:
    """Upload a model folder as one commit."""
    repo_id = f"{user}/{folder.name}"
    api.create_repo(repo_id, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
    api.create_commit(repo_id, operations, commit_message="Add the trained model")
    return repo_id


def upload_scenes(repo_id: str, split: str, frames: int) -> None:
    """Upload a split of a dataset: rendered frames of each of its styles, with their masks."""
    scenes = [render(style, 200_000 + i) for style in SPLITS[split] for i in range(frames)]
    rows = {"image": [s.image for s in scenes], "label": [np.asarray(s.labels) for s in scenes]}
    Dataset.from_dict(rows, features=Features({"image": Image(), "label": Image()})).push_to_hub(repo_id, split=split)


def upload_names(repo_id: str) -> None:
    """Upload the names of the masks' ids."""
    names = json.dumps(dict(enumerate(CLASSES))).encode()
    HfApi().upload_file(path_or_fileobj=names, path_in_repo="id2label.json", repo_id=repo_id, repo_type="dataset")


def main() -> None:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    api = HfApi()
    user = api.whoami()["name"]
    for folder in sorted(MODELS.iterdir()):
        print(f"model    {upload_model(api, folder, user)}")
    if not api.repo_exists(f"{user}/streets", repo_type="dataset"):
        for split in SPLITS:
            upload_scenes(f"{user}/streets", split, FRAMES)
        upload_names(f"{user}/streets")
    print(f"dataset  {user}/streets")


if __name__ == "__main__":
    main()
