"""Scores on data sets of the Hub and in folders, whatever their columns and files are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import HfApi
from PIL import Image
from tiny import scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.loading import open_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.evaluation.inference import segment
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.labels import label_sets
from hf_lwmm.planning.images import ImageSource
from hf_lwmm.planning.inputs import MergeInputs


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return segformer(folder / "one", 1), segformer(folder / "two", 2)


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Any]]:
    scenes = [scene(seed) for seed in range(4)]
    return {"image": [image for image, _ in scenes], "annotation": [Image.fromarray(label) for _, label in scenes]}


def test_data_sets_of_the_hub_are_read_by_type_and_usual_names(
    hub: Any, api: HfApi, models: tuple[Path, Path], rows: dict[str, list[Any]], tmp_path: Path
) -> None:
    features = Features({"image": ImageFeature(), "annotation": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/scenes", split="validation")
    (tmp_path / "id2label.json").write_text(json.dumps(dict(enumerate(("sky", "road", "car")))))
    api.upload_file(path_or_fileobj=tmp_path / "id2label.json", path_in_repo="id2label.json", repo_id="local/scenes",
                    repo_type="dataset")  # fmt: skip
    images = open_images("local/scenes")
    assert images.count == 4 and images.classes == ("sky", "road", "car")
    assert np.array_equal(images.read(2).label, scene(2)[1])
    found = hf_lwmm.evaluate(models[:1], "local/scenes")
    # Ids are the data set's, whose names stand in another order.
    assert found is not None and found.classes == ("sky", "road", "car")
    hits = sum(
        ((segment([hf_lwmm.load(models[0])], [scene(s)[0]])[0] == 1) & (scene(s)[1] == 0)).sum() for s in range(4)
    )
    assert found.counts[0, :, 0, 0].sum() == hits
    with pytest.raises(DatasetError, match="local/scenes, split test: cannot be opened"):
        open_images(ImageSource("local/scenes", "test"))
    with pytest.raises(DatasetError, match=r"no such data set|cannot be opened"):
        open_images("local/nothing-here")
    with pytest.raises(DatasetError, match="has no column 'x'"):
        open_images(ImageSource("local/scenes", label_column="x"))


def test_palette_masks_keep_their_ids_and_columns_can_be_ambiguous(hub: Any, rows: dict[str, list[Any]]) -> None:
    masks = [mask.convert("P") for mask in rows["annotation"]]
    for mask, source in zip(masks, rows["annotation"], strict=True):
        mask.putdata(np.asarray(source).reshape(-1).tolist())
        mask.putpalette([value for colour in label_sets()["cityscapes19"].colours for value in colour])
    features = Features({"pixel_values": ImageFeature(), "first": ImageFeature(), "second": ImageFeature()})
    data = Dataset.from_dict({"pixel_values": rows["image"], "first": masks, "second": masks}, features=features)
    data.push_to_hub("local/palette", split="validation")
    with pytest.raises(DatasetError, match=r"several columns could be it \(first, second\).*--label-column"):
        open_images("local/palette")
    images = open_images(ImageSource("local/palette", label_column="second"))
    assert np.array_equal(images.read(1).label, scene(1)[1])


def test_what_has_no_masks_is_refused(hub: Any, models: tuple[Path, Path], rows: dict[str, list[Any]]) -> None:
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["a", "b"])})
    data = Dataset.from_dict({"image": rows["image"], "label": [0, 1, 0, 1]}, features=features)
    data.push_to_hub("local/classes", split="validation")
    assert open_images("local/classes").task == "classification"
    with pytest.raises(DatasetError, match="has classification labels, but one is a semantic network"):
        hf_lwmm.evaluate(models[:1], "local/classes")
    features = Features({"image": ImageFeature(), "caption": Value("string")})
    Dataset.from_dict({"image": rows["image"], "caption": ["x"] * 4}, features=features).push_to_hub(
        "local/captions", split="validation"
    )
    with pytest.raises(DatasetError, match=r"cannot tell which column holds the label: it has image, caption"):
        open_images("local/captions")


def test_trees_are_read_as_they_are_downloaded(tmp_path: Path) -> None:
    city = tmp_path / "city"
    raw = np.full(256, 3, np.uint8)  # id 3 is ignored
    raw[:3] = (7, 23, 26)  # road, sky, car
    for seed in range(3):
        image, label = scene(seed)
        for kind, picture in (("leftImg8bit", image), ("gtFine", Image.fromarray(raw[label]))):
            folder = city / kind / "val" / "ulm"
            folder.mkdir(parents=True, exist_ok=True)
            ending = "leftImg8bit" if kind == "leftImg8bit" else "gtFine_labelIds"
            picture.save(folder / f"ulm_{seed}_{ending}.png")
    images = open_images(city)
    assert images.ids == "cityscapes" and images.count == 3
    table = label_sets()["cityscapes19"].table("cityscapes")
    assert np.array_equal(table[images.read(0).label], np.array([0, 10, 13, *[255] * 253], np.uint8)[scene(0)[1]])
    synthia = tree(tmp_path / "synthia", 2, "RGB", "GT/LABELS")
    assert open_images(synthia).ids == "synthia"
    assert open_images(tree(tmp_path / "vistas" / "validation", 2)).count == 2
    assert open_images(tmp_path / "vistas").count == 2
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DatasetError, match="no images with labels of the split validation"):
        open_images(tmp_path / "nothing")
    (synthia / "GT" / "LABELS" / "1.png").unlink()
    with pytest.raises(DatasetError, match=r"has no label for 1\.png \(1 of 2"):
        open_images(synthia)


def test_protocols_choose_classes_by_name_in_one_pass(tmp_path: Path) -> None:
    city = label_sets()["cityscapes19"].classes
    path = segformer(tmp_path / "city", 3, city)
    data = tree(tmp_path / "data", 3)
    found = hf_lwmm.evaluate([path], data, evaluation=EvaluationSpec(protocol="synthia16"))
    assert found is not None and found.classes == label_sets()["synthia16"].classes
    assert set(found.models[0].other_protocols) == {"cityscapes19", "synthia13"}
    whole = hf_lwmm.evaluate([path], data, evaluation=EvaluationSpec(protocol="cityscapes19"))
    assert whole is not None
    rows = [city.index(name) for name in found.classes]
    np.testing.assert_array_equal(found.models[0].by_class, whole.models[0].by_class[rows])
    assert whole.models[0].other_protocols["synthia16"] == pytest.approx(found.models[0].mean)
    for label in (data / "labels").iterdir():
        Image.fromarray(np.asarray(Image.open(label)) + np.uint8(7)).save(label)
    strange = hf_lwmm.evaluate([path], ImageSource(data, ids="cityscapes"))
    assert strange is not None and "only 2 of 19 classes occur" in " ".join(strange.notes)


def test_scores_on_a_data_set_of_the_hub_are_pushed_as_the_hub_reads_them(
    hub: Any, api: HfApi, models: tuple[Path, Path], rows: dict[str, list[Any]]
) -> None:
    import yaml
    from huggingface_hub import parse_eval_result_entries

    features = Features({"image": ImageFeature(), "annotation": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/scored", split="validation")
    inputs, spec = MergeInputs(eval_images="local/scored"), EvaluationSpec(examples=1)
    done = hf_lwmm.merge(models, push="local/merged", inputs=inputs, evaluation=spec)
    assert done.evaluation is not None
    path = api.hf_hub_download("local/merged", ".eval_results/local--scored.yaml")
    (entry,) = parse_eval_result_entries(yaml.safe_load(Path(path).read_text()))
    assert entry.dataset_id == "local/scored" and entry.value == pytest.approx(
        done.evaluation.models[-1].mean, abs=1e-6
    )
    assert entry.dataset_revision == api.dataset_info("local/scored").sha
    pictures = [name for name in api.list_repo_files("local/merged") if name.startswith("plots/01_")]
    assert len(pictures) == 1 and f"]({pictures[0]})" in done.card
