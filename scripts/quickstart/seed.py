"""Fill the Hub at HF_ENDPOINT with the quick start's two models and a small rendered dataset; safe to repeat."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset, Features, Image
from huggingface_hub import CommitOperationAdd, HfApi

from scripts.uda.streets import render

MODELS = Path(__file__).parent / "models"
FRAMES = 16  # of each style


def upload_model(api: HfApi, folder: Path, user: str) -> str:
    """Upload a model folder as one commit."""
    repo_id = f"{user}/{folder.name}"
    api.create_repo(repo_id, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.is_file())
    operations = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in files]
    api.create_commit(repo_id, operations, commit_message="Add the trained model")
    return repo_id


def upload_dataset(user: str) -> str:
    """Upload rendered frames with their masks, one split for each style, and the names of the masks' ids."""
    repo_id = f"{user}/streets"
    features = Features({"image": Image(), "label": Image()})
    for style in ("gta", "synthia", "night"):
        scenes = [render(style, 200_000 + i) for i in range(FRAMES)]
        rows = {"image": [s.image for s in scenes], "label": [np.asarray(s.labels) for s in scenes]}
        Dataset.from_dict(rows, features=features).push_to_hub(repo_id, split=style)
    names = json.dumps(json.loads((MODELS / "streets-day" / "config.json").read_text())["id2label"]).encode()
    HfApi().upload_file(path_or_fileobj=names, path_in_repo="id2label.json", repo_id=repo_id, repo_type="dataset")
    return repo_id


def main() -> None:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    api = HfApi()
    user = api.whoami()["name"]
    for folder in sorted(MODELS.iterdir()):
        print(f"model    {upload_model(api, folder, user)}")
    if not api.repo_exists(f"{user}/streets", repo_type="dataset"):
        upload_dataset(user)
    print(f"dataset  {user}/streets")


if __name__ == "__main__":
    main()
