"""Data sets of the Hub: numbered rows, columns, revisions, and connections that break."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import HfApi, constants
from PIL import Image
from scenes import check, scene

from hf_lwmm.data.loading import open_images
from hf_lwmm.data.rows import open_rows
from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.errors import DatasetError
from hf_lwmm.localhub import Fault, LocalHub
from hf_lwmm.planning.images import ImageSource

MASKS = Features({"image": ImageFeature(), "mask": ImageFeature()})


@pytest.fixture(scope="module")
def pushed(_served: LocalHub) -> str:
    """A data set of ten scenes in three files."""
    scenes = [scene(seed) for seed in range(10)]
    rows = {"image": [image for image, _ in scenes], "mask": [Image.fromarray(label) for _, label in scenes]}
    Dataset.from_dict(rows, features=MASKS).push_to_hub("org/scenes", split="validation", num_shards=3)
    return "org/scenes"


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_the_hub_are_numbered_alike_streamed_or_cached(pushed: str, streaming: bool) -> None:
    images = open_images(ImageSource(pushed, streaming=streaming))
    assert images.task == "semantic" and images.classes is None
    check(images, 10)
    for index in (7, 2, 2, 9):  # in any order
        assert np.array_equal(images.read(index).label, scene(index)[1])
    parts = [open_images(ImageSource(pushed, streaming=streaming)) for _ in range(3)]
    for rank, part in enumerate(parts):
        assert [part.read(i).label.tolist() for batch in part.part(rank, 3) for i in batch] == [
            scene(i)[1].tolist() for i in range(rank, 10, 3)
        ]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_without_their_labels_are_the_same_images(pushed: str, streaming: bool) -> None:
    images = open_unlabelled_images(ImageSource(pushed, "validation", limit=4, streaming=streaming))
    assert images.count == 4 and images.commit == open_images(pushed).commit
    assert all(np.array_equal(images.read(i).image, scene(i)[0]) for i in range(4))


@pytest.mark.parametrize("fault", [{"drop_after_bytes": 0}, {"delay": 3.0}], ids=["broken", "silent"])
def test_a_commit_that_the_hub_does_not_tell_is_unknown(
    fault: dict[str, Any], pushed: str, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = open_rows(pushed, "validation", streaming=True)
    told = rows.commit
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    hub.faults.append(Fault(r"^/api/datasets/", times=99, **fault))
    assert told is not None and rows.commit is None


def test_a_revision_is_what_it_was(pushed: str, api: HfApi) -> None:
    sha = api.dataset_info(pushed).sha
    image, label = scene(77)
    rows = {"image": [image], "mask": [Image.fromarray(label)]}
    api.create_branch(pushed, repo_type="dataset", branch="other")
    Dataset.from_dict(rows, features=MASKS).push_to_hub(pushed, split="validation", revision="other")
    assert open_images(f"{pushed}@{sha}").count == 10 and open_images(f"{pushed}@other").count == 1
    with pytest.raises(DatasetError, match="split validation: cannot be opened: Revision 'nope' doesn't exist"):
        open_images(f"{pushed}@nope")


@pytest.mark.parametrize("streaming", [False, True])
def test_what_the_hub_does_not_have_is_named(pushed: str, api: HfApi, streaming: bool) -> None:
    with pytest.raises(DatasetError, match=r"org/none, split validation: cannot be opened: .*doesn't exist"):
        open_images(ImageSource("org/none", streaming=streaming))
    with pytest.raises(DatasetError, match=r"org/scenes, split test: cannot be opened: .*\['validation'\]"):
        open_images(ImageSource(pushed, "test", streaming=streaming))
    with pytest.raises(DatasetError, match=r"cannot be opened: .*Available: \['default'\]"):
        open_images(ImageSource(pushed, config="fine", streaming=streaming))
    api.create_repo("org/bare", repo_type="dataset", exist_ok=True)
    with pytest.raises(DatasetError, match=r"org/bare, split validation: cannot be opened: .*doesn't contain any data"):
        open_images(ImageSource("org/bare", streaming=streaming))


def test_a_hub_that_fails_leaves_no_classes_out(hub: LocalHub) -> None:
    image, label = scene(0)
    name = push("org/named", {"image": (ImageFeature(), [image]), "mask": (ImageFeature(), [Image.fromarray(label)])})
    hub.faults.append(Fault(path=r"id2label\.json", method="HEAD", status=403, times=9))
    with pytest.raises(DatasetError, match=r"org/named, id2label\.json: cannot be read: .*403.* Run it again"):
        open_images(name)


def test_the_commit_of_a_data_set_is_known_offline(hub: LocalHub, api: HfApi) -> None:
    image, label = scene(0)
    name = push("org/kept", {"image": (ImageFeature(), [image]), "mask": (ImageFeature(), [Image.fromarray(label)])})
    known = open_images(name).commit
    code = "import sys; from hf_lwmm.data.loading import open_images; print(open_images(sys.argv[1]).commit)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == known == api.dataset_info(name).sha, done.stderr


def test_data_sets_whose_names_have_gated_in_them_are_not_gated(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "irrigated").mkdir()
    with pytest.raises(DatasetError, match="irrigated: no images with labels"):
        open_images(tmp_path / "irrigated")
    with pytest.raises(DatasetError, match="org/aggregated, split validation: cannot be opened"):
        open_images("org/aggregated")


def test_gated_data_sets_say_where_to_ask(api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    image, label = scene(0)
    Dataset.from_dict({"image": [image], "mask": [Image.fromarray(label)]}, features=MASKS).push_to_hub(
        "org/gated", split="validation"
    )
    api.update_repo_settings("org/gated", repo_type="dataset", gated="auto")
    monkeypatch.setenv("HF_TOKEN", "hf_stranger")
    for streaming in (False, True):
        with pytest.raises(DatasetError, match="org/gated: is gated; ask for access on its page, then log in"):
            open_images(ImageSource("org/gated", streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_connection_cut_in_the_middle_is_taken_up_again(hub: LocalHub, streaming: bool) -> None:
    draw = np.random.default_rng(0)
    pictures = [Image.fromarray(draw.integers(0, 256, (90, 120, 3), np.uint8)) for _ in range(6)]
    masks = [Image.fromarray(np.full((90, 120), index, np.uint8)) for index in range(6)]
    name = f"org/cut-{'streamed' if streaming else 'cached'}"
    Dataset.from_dict({"image": pictures, "mask": masks}, features=MASKS).push_to_hub(name, split="validation")
    cut = Fault(r"/resolve/.*\.parquet", drop_after_bytes=20_000)
    hub.faults.append(cut)
    images = open_images(ImageSource(name, streaming=streaming))
    for index in range(6):
        sample = images.read(index)
        assert (sample.label == index).all() and np.array_equal(np.asarray(sample.image), np.asarray(pictures[index]))
    assert cut.times == 0


def test_a_stream_that_broke_off_goes_on_with_the_same_row(hub: LocalHub, pushed: str) -> None:
    images = open_images(ImageSource(pushed, streaming=True))
    images.read(0)
    hub.faults.append(Fault(r"/resolve/.*00001-of-00003.*\.parquet", status=403, times=100))
    with pytest.raises(DatasetError, match=r"org/scenes, split validation, image 5: cannot be read: .* Run it again"):
        images.read(5)
    hub.faults.clear()
    assert np.array_equal(images.read(5).label, scene(5)[1]) and np.array_equal(images.read(6).label, scene(6)[1])


def test_a_stream_needs_to_know_how_long_it_is(api: HfApi) -> None:
    image, label = scene(0)
    rows = {"image": [image], "mask": [Image.fromarray(label)]}
    content = io.BytesIO()
    Dataset.from_dict(rows, features=MASKS).to_parquet(content)
    api.create_repo("org/uncounted", repo_type="dataset")
    api.upload_file(path_or_fileobj=content.getvalue(), path_in_repo="data/validation.parquet", repo_id="org/uncounted",
                    repo_type="dataset")  # fmt: skip
    with pytest.raises(DatasetError, match="its card does not say how many rows validation has; do without streaming"):
        open_images(ImageSource("org/uncounted", streaming=True))
    assert open_images("org/uncounted").count == 1


def push(name: str, columns: dict[str, tuple[Any, list[Any]]]) -> str:
    features = Features({column: feature for column, (feature, _) in columns.items()})
    rows = {column: values for column, (_, values) in columns.items()}
    Dataset.from_dict(rows, features=features).push_to_hub(name, split="validation")
    return name


def test_columns_are_found_by_type_before_name(hub: LocalHub) -> None:
    picture, mask = scene(0)[0], Image.fromarray(scene(0)[1])
    name = push("org/columns", {
        "pixel_values": (ImageFeature(), [picture]),
        "semantic_segmentation": (ImageFeature(), [mask]),
        "label": (ClassLabel(names=["day", "night"]), [1]),
        "caption": (Value("string"), ["x"]),
    })  # fmt: skip
    images = open_images(name)
    assert images.task == "semantic" and np.array_equal(images.read(0).label, scene(0)[1])
    images = open_images(ImageSource(name, label_column="label"))
    assert images.task == "classification" and images.classes == ("day", "night") and images.read(0).label == 1
    with pytest.raises(DatasetError, match="the column 'caption' holds neither pictures nor boxes nor classes"):
        open_images(ImageSource(name, label_column="caption"))
    with pytest.raises(DatasetError, match="has no column 'masks'; it has pixel_values, semantic_segmentation"):
        open_images(ImageSource(name, label_column="masks"))
    images = push("org/unlabelled", {"image": (ImageFeature(), [picture])})
    with pytest.raises(DatasetError, match=r"cannot tell which column holds the label: it has image\. Name it with"):
        open_images(images)


@pytest.mark.parametrize("streaming", [False, True])
def test_missing_and_undecodable_pictures_are_named(hub: LocalHub, streaming: bool) -> None:
    masks = [{"bytes": b"no picture", "path": None}, None, Image.fromarray(scene(2)[1])]
    name = f"org/damaged-{streaming}"
    push(name, {"image": (ImageFeature(), [scene(i)[0] for i in range(3)]), "mask": (ImageFeature(), masks)})
    images = open_images(ImageSource(name, streaming=streaming))
    with pytest.raises(DatasetError, match=f"{name}, split validation, image 0, its label: cannot be decoded"):
        images.read(0)
    with pytest.raises(DatasetError, match="image 1, its label: is missing"):
        images.read(1)
    assert np.array_equal(images.read(2).label, scene(2)[1])


def test_panoptic_labels_are_segments_with_classes(hub: LocalHub, api: HfApi) -> None:
    ids = np.zeros((4, 6), np.int64)
    ids[:, 2:4], ids[:, 4:] = 70_000, 300
    code = Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8))
    listed = [{"id": 70_000, "category_id": 7, "iscrowd": 0}, {"id": 300, "category_id": 200, "iscrowd": 1}]
    record = [{"id": Value("int64"), "category_id": Value("int64"), "iscrowd": Value("int64")}]
    unknown, unnamed = [{**listed[0], "id": 5}], [{**listed[0], "category_id": 8}]
    name = push("org/panoptic", {
        "image": (ImageFeature(), [scene(0)[0]] * 3),
        "label": (ImageFeature(), [code] * 3),
        "segments_info": (record, [listed, unknown, unnamed]),
    })  # fmt: skip
    names = json.dumps({"7": "car", "200": "road"}).encode()
    api.upload_file(path_or_fileobj=names, path_in_repo="id2label.json", repo_id=name, repo_type="dataset")
    images = open_images(name)
    assert images.task == "panoptic" and images.classes == ("car", "road")
    sample = images.read(0)
    assert sample.segments is not None and sample.segments.classes == {70_000: 0, 300: 1}
    assert sample.segments.crowds == {300} and np.array_equal(sample.segments.runs.paint(sample.segments.runs.ids), ids)
    assert sample.label[0].tolist() == [255, 255, 0, 0, 1, 1]
    with pytest.raises(DatasetError, match="segments_info lists the segment 5, which the label does not have"):
        images.read(1)
    with pytest.raises(DatasetError, match=r"has the category 8, which the data set does not name"):
        images.read(2)


def test_objects_of_a_category_without_a_name_are_no_other_classs(hub: LocalHub, api: HfApi) -> None:
    record = [{"bbox": [Value("float32")], "category_id": Value("int64")}]
    rows = [[{"bbox": [1, 1, 4, 4], "category_id": category}] for category in (200, 0)]
    name = push("org/boxes", {"image": (ImageFeature(), [scene(0)[0]] * 2), "objects": (record, rows)})
    names = json.dumps({"7": "car", "200": "road"}).encode()
    api.upload_file(path_or_fileobj=names, path_in_repo="id2label.json", repo_id=name, repo_type="dataset")
    images = open_images(name)
    found = images.read(0).boxes
    assert images.classes == ("car", "road") and found is not None and found.labels.tolist() == [1]
    with pytest.raises(DatasetError, match="an object has the category 0, which the data set does not name"):
        images.read(1)
