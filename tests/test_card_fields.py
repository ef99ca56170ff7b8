"""What a visitor finds on a card: the verdict and a picture first, links that lead somewhere, the recipe in a fold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import get_session
from PIL import Image
from tiny import segformer, tree

import hf_lwmm
from hf_lwmm.labels import label_sets
from hf_lwmm.publishing.licences import merged_licence
from hf_lwmm.recipes.recipe import read_recipe

CARD: dict[str, Any] = {
    "license": "other",
    "license_name": "own-terms",
    "license_link": "LICENSE",
    "datasets": ["org/streets"],
    "widget": [
        {"src": "https://x.y/a.jpg", "example_title": "A street"},
        {"src": "javascript:alert(1)", "example_title": "no"},
        {"text": "not a picture"},
        {"src": "https://x.y/b.jpg", "example_title": 3},
    ],
}


def pushed(api: HfApi, name: str, folder: Path, seed: int) -> str:
    """A small SegFormer on the Hub, with a card and a licence."""
    segformer(folder / name, seed)
    (folder / name / "README.md").write_text(f"---\n{yaml.safe_dump(CARD)}---\n")
    (folder / name / "LICENSE").write_text("Ours.")
    repo = api.create_repo(f"local/{name}", exist_ok=True).repo_id
    api.upload_folder(repo_id=repo, folder_path=folder / name)
    return repo


def test_a_pushed_card_shows_and_links_what_there_is(run: Run, api: HfApi, tmp_path: Path) -> None:
    models = [pushed(api, name, tmp_path, seed) for seed, name in enumerate(("fields-a", "fields-b"), 1)]
    data = tree(tmp_path / "cityscapes", 2)
    code, _, err = run("merge", *models, "--eval-data", data, "--examples", 1, "--push", "local/fields")
    assert code == 0, err
    card = ModelCard.load("local/fields")
    metadata = yaml.safe_load(card.content.split("---\n")[1])
    assert metadata["metrics"] == ["mean_iou"] and metadata["datasets"] == ["org/streets"]
    assert metadata["widget"] == [
        {"src": "https://x.y/a.jpg", "example_title": "A street"},
        {"src": "https://x.y/b.jpg"},
    ]
    assert metadata["license_name"] == "own-terms" and metadata["model-index"][0]["results"][0]["dataset"] == {
        "type": "a local folder", "name": "cityscapes", "args": {"protocol": "all classes"}
    }  # fmt: skip
    sha = api.model_info(models[0]).sha
    assert metadata["license_link"] == f"{api.endpoint}/{models[0]}/blob/{sha}/LICENSE"
    picture = get_session().get(
        metadata["thumbnail"], headers={"authorization": f"Bearer {api.token}"}, follow_redirects=True
    )
    assert picture.status_code == 200 and picture.content.startswith(b"\x89PNG")
    top = [line for line in card.text.split("\n## ")[0].splitlines() if line][1:3]
    assert top[0].startswith(("Keep ", "Take ")) and re.fullmatch(r"!\[A picture, .*\]\(plots/01_.*\.png\)", top[1])
    assert "](plots/scores.png)" in card.text.split("## Scores")[1]
    assert f"[{sha[:12]}]({api.endpoint}/{models[0]}/tree/{sha})" in card.text and "huggingface.co" not in card.text
    use = card.text.split("## Intended use and limits\n")[1].split("\n## ")[0]
    assert "gives each pixel of a picture one of the classes" in use and "2 images of cityscapes" in use
    (fold,) = re.findall(
        r"<details>\n<summary>The recipe</summary>\n\n```yaml\n(.*?)\n```\n\n</details>", card.text, re.DOTALL
    )
    assert read_recipe(fold).models == tuple(f"{model}@{api.model_info(model).sha}" for model in models)


def test_a_card_without_scores_says_so_and_names_no_pictures_of_them(
    models: list[Path], run: Run, tmp_path: Path
) -> None:
    assert run("merge", *models[:2], "--output", "out")[0] == 0
    card = ModelCard.load("out/README.md")
    assert "Nobody has measured how good it is" in card.text and "plots/scores.png" not in card.text
    assert "thumbnail" not in card.data.to_dict() and "metrics" not in card.data.to_dict()
    assert "- **Task:** semantic segmentation, 3 classes" in card.text and "- **Size:** " in card.text


def test_one_licence_in_two_repositories_is_one_licence() -> None:
    sources = [
        hf_lwmm.hub.Source(hf_lwmm.ModelRef(f"org/{n}"), "0" * 40, ("LICENSE",), {**CARD, "license_link": "LICENSE"})
        for n in "ab"
    ]
    found = merged_licence(sources)
    assert not found.warnings and found.licence.metadata["license_link"].endswith(f"/org/a/blob/{'0' * 40}/LICENSE")


@pytest.mark.parametrize(
    ("stated", "excludes"),
    [
        ({"license": "apache-2.0", "license_link": "https://github.com/google-research/x/blob/main/LICENSE"}, False),
        ({"license_name": "sam", "license_link": "https://github.com/facebookresearch/x/blob/main/LICENSE"}, False),
        ({"license_name": "fair-noncommercial-research-license"}, True),
        ({"license_name": "theirs", "license_link": "https://creativecommons.org/licenses/by-nc/4.0/"}, True),
    ],
)
def test_a_licence_is_not_judged_by_who_keeps_it(stated: dict[str, str], excludes: bool) -> None:
    source = hf_lwmm.hub.Source(hf_lwmm.ModelRef("org/a"), "0" * 40, (), {"license": "other", **stated})
    assert merged_licence([source]).licence.non_commercial == excludes


def test_sheets_of_examples_have_a_key(models: list[Path], data: Path) -> None:
    spec = hf_lwmm.EvaluationSpec(examples=1)
    found = hf_lwmm.evaluate(models[:2], data, evaluation=spec)
    assert found is not None
    city, sheet = label_sets()["cityscapes19"], np.asarray(found.examples[0].picture)
    panels = 2 * (24 + 270) + 4  # rows of panels of 360 x 270 below their titles
    key = sheet[panels + 4 :]
    shown = {tuple(int(part) for part in pixel) for pixel in key.reshape(-1, 3)}
    colours = {name: tuple(colour) for name, colour in zip(city.classes, city.colours, strict=True)}
    labels = {0: "road", 1: "sky", 2: "car"}
    occurring = {labels[i] for i in np.unique(Image.open(data / "labels" / found.examples[0].name)) if i in labels}
    assert {colours[name] for name in occurring} <= shown and colours["person"] not in shown
