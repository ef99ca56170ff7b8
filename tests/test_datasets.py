"""Label sets and their tables of ids, matching by name, and data sets as they lie on the Hub and in folders."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from huggingface_hub import HfApi
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_lwmm.data.loading import LabelledImages, open_images
from hf_lwmm.data.unlabelled import UnlabelledImages, open_unlabelled_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.labels import label_sets, match_classes, normalise, raw_label_set, read_label_set
from hf_lwmm.localhub import Fault, LocalHub
from hf_lwmm.planning.images import ImageSource

CITY = label_sets()["cityscapes19"]

# Label sets


def test_the_label_sets_have_as_many_classes_as_their_names_say() -> None:
    sizes = {name: len(labels.classes) for name, labels in label_sets().items()}
    assert sizes == {
        "cityscapes19": 19, "synthia16": 16, "synthia13": 13, "mapillary": 66, "voc": 21, "ade20k": 150,
        "camvid11": 11, "camvid32": 32, "foggy-cityscapes8": 8, "office31": 31, "office-home": 65,
    }  # fmt: skip
    for labels in label_sets().values():
        assert len(set(map(normalise, labels.classes))) == len(labels.classes)
        assert set(labels.things) <= set(labels.classes)
        assert len(labels.colours) in (0, len(labels.classes)) and len(set(labels.colours)) == len(labels.colours)
        for groups in labels.ids.values():
            raw = [number for group in groups for number in group]
            assert len(groups) == len(labels.classes) and len(set(raw)) == len(raw) and max(raw) < 255


def test_cityscapes_is_what_its_own_scripts_say() -> None:
    trained = sorted(
        (label for label in cityscapes_labels if 0 <= label.trainId < 255), key=lambda label: label.trainId
    )
    assert CITY.classes == tuple(label.name for label in trained)
    assert CITY.colours == tuple(label.color for label in trained)
    assert CITY.things == tuple(label.name for label in trained if label.hasInstances)
    for scheme in ("cityscapes", "gta"):
        table = CITY.table(scheme)
        for label in cityscapes_labels:
            assert table[label.id] == (label.trainId if label.trainId >= 0 else 255)  # -1, a licence plate, too
        assert (table[34:] == 255).all()


def test_synthias_protocols_are_parts_of_cityscapes() -> None:
    rows = {name: [CITY.classes.index(c) for c in label_sets()[name].classes] for name in ("synthia16", "synthia13")}
    assert rows["synthia16"] == [*range(9), *range(10, 14), 15, 17, 18]
    assert rows["synthia13"] == [*range(3), *range(6, 9), *range(10, 14), 15, 17, 18]
    table = CITY.table("synthia")
    own = {1: "sky", 2: "building", 3: "road", 4: "sidewalk", 8: "car", 10: "person", 17: "rider", 21: "wall"}
    assert {raw: CITY.classes[table[raw]] for raw in own} == own and table[0] == 255


def test_vistas_and_camvid_fold_into_coarser_classes_by_name() -> None:
    def folded(target: str, scheme: str, source: str) -> dict[str, set[str]]:
        fine, coarse = label_sets()[source].classes, label_sets()[target]
        return {c: {fine[raw] for raw in group} for c, group in zip(coarse.classes, coarse.ids[scheme], strict=True)}

    vistas = folded("cityscapes19", "mapillary", "mapillary")
    assert vistas["road"] == {"Road", "Lane Marking - General", "Manhole"} and vistas["train"] == {"On Rails"}
    assert vistas["rider"] == {"Bicyclist", "Motorcyclist", "Other Rider"} and vistas["bicycle"] == {"Bicycle"}
    camvid = folded("camvid11", "camvid32", "camvid32")
    assert camvid["building"] == {"Archway", "Bridge", "Building", "Tunnel", "Wall"}
    assert camvid["bicyclist"] == {"Bicyclist", "Motorcycle Scooter"} and camvid["sky"] == {"Sky"}
    assert not any("Void" in group for group in camvid.values())
    vistas66, ade = raw_label_set("mapillary66"), raw_label_set("ade20k")
    assert vistas66 and vistas66.name == "mapillary" and ade and ade.table("ade20k")[150] == 149


def test_label_sets_are_read_from_files_and_lists(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("# mine\nroad\n\nsky\n")
    (tmp_path / "classes.json").write_text('["road", "sky"]')
    (tmp_path / "classes.yaml").write_text("# mine\n- road\n- 'sky'\n")
    (tmp_path / "config.json").write_text('{"id2label": {"1": "sky", "0": "road"}}')
    for name in ("classes.txt", "classes.json", "classes.yaml", "config.json"):
        assert read_label_set(tmp_path / name).classes == ("road", "sky")
    assert read_label_set("road, sky").classes == read_label_set(["road", "sky"]).classes == ("road", "sky")
    with pytest.raises(PlanError, match=r"is not a label set \(cityscapes19, .*office-home.*no such file"):
        read_label_set("cityscapes20")
    (tmp_path / "twice").write_text("road\nRoad\n")
    with pytest.raises(PlanError, match="names a class twice"):
        read_label_set(tmp_path / "twice")


def test_labels_need_no_heavy_library() -> None:
    code = "import sys, hf_lwmm.labels as l; l.label_sets(); print({'torch', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize("module", ["loading", "unlabelled"])
def test_opening_a_data_set_needs_no_networks(module: str) -> None:
    code = (
        f"import sys, hf_lwmm.data.{module}; print(sorted({{'torch', 'transformers', 'datasets'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


# Matching by name


@given(st.permutations(range(19)), st.sampled_from([str.title, str.upper, lambda name: name.replace(" ", "_")]))
def test_classes_match_by_name_in_any_order_and_spelling(order: list[int], spelt: Any) -> None:
    data = [spelt(CITY.classes[index]) for index in order]
    table = match_classes(CITY.classes, data, "m", "d")
    assert [order[row] for row in table[:19]] == list(range(19)) and (table[19:] == 255).all()


def test_one_thing_may_have_two_names() -> None:
    camvid = label_sets()["camvid11"].classes
    table = match_classes(CITY.classes, camvid, "m", "d")
    found = {model: camvid[row] for model, row in zip(CITY.classes, table, strict=False) if row != 255}
    assert found["sidewalk"] == "pavement" and found["person"] == "pedestrian" and found["vegetation"] == "tree"
    assert "rider" not in found and "truck" not in found
    # A name that is there comes before one that means the same.
    assert match_classes(["tree", "vegetation"], ["vegetation", "tree"], "m", "d")[:2].tolist() == [1, 0]
    assert match_classes(["tree"], ["vegetation"], "m", "d")[0] == 0


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"m \(LABEL_0, .*\) and d \(road, .*\) share no class name\. --labels"):
        match_classes([f"LABEL_{i}" for i in range(19)], CITY.classes, "m", "d")
    with pytest.raises(DatasetError, match="share only bike and bottle as class names"):
        match_classes(label_sets()["voc"].classes, label_sets()["office31"].classes, "m", "d")


# Trees


def scene(seed: int, classes: int = 4) -> tuple[Image.Image, np.ndarray]:
    draw = np.random.default_rng(seed)
    label = draw.integers(0, classes, (6, 8), np.uint8)
    return Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)), np.kron(label, np.ones((2, 2), np.uint8))


def write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def pairs(root: Path, images: str, labels: str, count: int = 3, ending: str = "") -> Path:
    for seed in range(count):
        image, label = scene(seed)
        write(root / images / f"{seed}.png", image)
        write(root / labels / f"{seed}{ending}.png", Image.fromarray(label))
    return root


def check(images: LabelledImages, count: int = 3) -> None:
    """The samples are the scenes, in order."""
    assert images.count == count
    for seed, sample in enumerate(images):
        assert np.array_equal(np.asarray(sample.image), np.asarray(scene(seed)[0])) and sample.index == seed
        assert np.array_equal(sample.label, scene(seed)[1])


@pytest.mark.parametrize("labels", ["labels", "masks", "annotations"])
@pytest.mark.parametrize("shape", ["{}", "validation/{}", "val/{}", "{}/validation"])
def test_images_lie_beside_their_labels(labels: str, shape: str, tmp_path: Path) -> None:
    check(open_images(pairs(tmp_path, shape.format("images"), shape.format(labels))))


@pytest.mark.parametrize(("images", "labels", "ids"), [
    ("RGB", "GT/LABELS", "synthia"),
    ("validation/images", "validation/v1.2/labels", "mapillary"),
    ("val", "valannot", "camvid"),
])  # fmt: skip
def test_known_trees_tell_their_raw_ids(images: str, labels: str, ids: str, tmp_path: Path) -> None:
    found = open_images(pairs(tmp_path, images, labels))
    check(found)
    assert found.ids == ids
    assert open_images(ImageSource(tmp_path, ids="gta")).ids == "gta"  # what is asked for comes first


def test_vistas_of_the_first_release_is_known_by_its_configuration(tmp_path: Path) -> None:
    pairs(tmp_path, "validation/images", "validation/labels")
    assert open_images(tmp_path).ids is None
    (tmp_path / "config.json").write_text('{"labels": [{"name": "animal--bird"}]}')
    assert open_images(tmp_path).ids == "mapillary"


def test_gtas_labels_are_known_by_their_palette(tmp_path: Path) -> None:
    pairs(tmp_path, "images", "labels")
    assert open_images(tmp_path).ids is None
    palette = np.zeros((256, 3), np.uint8)
    for raw, colour in zip(CITY.ids["gta"], CITY.colours, strict=True):
        palette[raw] = colour
    for seed in range(3):
        picture = Image.fromarray(scene(seed)[1])
        picture.putpalette(palette.tobytes())
        picture.save(tmp_path / "labels" / f"{seed}.png")
    found = open_images(tmp_path)
    check(found)
    assert found.ids == "gta"


@pytest.mark.parametrize("foggy", [False, True])
def test_cityscapes_and_its_foggy_copy_are_trees_of_cities(foggy: bool, tmp_path: Path) -> None:
    for seed, city in enumerate(("aachen", "ulm", "zurich")):
        image, label = scene(seed)
        folder = tmp_path / ("leftImg8bit_foggy" if foggy else "leftImg8bit") / "train" / city
        for beta in ("_foggy_beta_0.005", "_foggy_beta_0.01", "_foggy_beta_0.02") if foggy else ("",):
            write(folder / f"{city}_000000_000019_leftImg8bit{beta}.png", image)
        for ending in ("labelIds", "color", "instanceIds"):
            write(tmp_path / "gtFine" / "train" / city / f"{city}_000000_000019_gtFine_{ending}.png",
                  Image.fromarray(label if ending == "labelIds" else label + 1))  # fmt: skip
    found = open_images(ImageSource(tmp_path, "train"))
    check(found)
    assert found.ids == "cityscapes"
    for path in (tmp_path / "gtFine").rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    found = open_images(ImageSource(tmp_path, "train"))
    check(found)
    assert found.ids == "from-0" and found.classes == CITY.classes


def png_of_16_bits(channels: np.ndarray) -> bytes:
    """A PNG of colours with 16 bits a channel, as SYNTHIA has them; Pillow cannot write it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = channels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_synthias_16_bit_labels_keep_their_classes(tmp_path: Path) -> None:
    pairs(tmp_path, "RGB", "GT/LABELS")
    for seed in range(3):
        label = scene(seed)[1].astype(np.uint16)
        channels = np.stack([label, label + 300, 0 * label], axis=-1)  # class, instance, nothing
        (tmp_path / "GT" / "LABELS" / f"{seed}.png").write_bytes(png_of_16_bits(channels))
    check(open_images(tmp_path))
    (tmp_path / "GT" / "LABELS" / "0.png").write_bytes(png_of_16_bits(channels[..., [1, 0, 2]]))
    assert np.array_equal(open_images(tmp_path).read(0).label, scene(2)[1] + np.uint16(300))


def test_camvids_colours_are_its_32_classes(tmp_path: Path) -> None:
    colours = np.array(label_sets()["camvid32"].colours, np.uint8)
    for seed in range(3):
        image, label = scene(seed, 32)
        write(tmp_path / "701_StillsRaw_full" / f"{seed}.png", image)
        write(tmp_path / "LabeledApproved_full" / f"{seed}_L.png", Image.fromarray(colours[label]))
    images = open_images(tmp_path)
    assert images.ids == "camvid32"
    assert all(np.array_equal(images.read(seed).label, scene(seed, 32)[1]) for seed in range(3))
    table = label_sets()["camvid11"].table("camvid32")
    sky, void = (label_sets()["camvid32"].classes.index(name) for name in ("Sky", "Void"))
    assert table[sky] == 0 and table[void] == 255
    write(tmp_path / "LabeledApproved_full" / "0_L.png", Image.fromarray(np.full((12, 16, 3), (1, 2, 3), np.uint8)))
    with pytest.raises(DatasetError, match=r"0_L\.png: has the colour \[1, 2, 3\] at \(0, 0\), which is no class's"):
        images.read(0)


def test_equal_names_in_different_folders_are_kept_apart(tmp_path: Path) -> None:
    for seed, city in enumerate("abc"):
        pairs(tmp_path, f"images/{city}", f"labels/{city}", 1)
        image, label = scene(seed)
        write(tmp_path / "images" / city / "0.png", image)
        write(tmp_path / "labels" / city / "0.png", Image.fromarray(label))
    check(open_images(tmp_path))


def test_a_folder_for_each_class_is_a_classification(tmp_path: Path) -> None:
    for seed, name in enumerate(("back_pack", "bike", "mug")):
        write(tmp_path / "amazon" / "images" / name / f"frame_{seed}.jpg", scene(seed)[0])
    images = open_images(ImageSource(tmp_path / "amazon", "train"))
    assert images.task == "classification" and images.classes == ("back_pack", "bike", "mug")
    assert [(sample.label, sample.name) for sample in images] == [(i, f"frame_{i}.jpg") for i in range(3)]
    table = match_classes(label_sets()["office31"].classes, images.classes, "m", "d")
    assert label_sets()["office31"].classes[int(np.flatnonzero(table == 2)[0])] == "mug"


def test_ids_that_do_not_count_from_0_follow_their_names(tmp_path: Path) -> None:
    pairs(tmp_path, "images", "labels")
    (tmp_path / "id2label.json").write_text(json.dumps({"1": "wall", "2": "sky", "3": "tree"}))
    images = open_images(tmp_path)
    assert images.classes == ("wall", "sky", "tree")
    assert np.array_equal(images.read(0).label, np.array([255, 0, 1, 2])[scene(0)[1]])
    (tmp_path / "id2label.json").write_text(json.dumps({"1": "wall", "2": "sky"}))
    with pytest.raises(DatasetError, match=r"has the id 3, which id2label\.json does not name"):
        open_images(tmp_path).read(0)
    (tmp_path / "id2label.json").write_text("[]")
    with pytest.raises(DatasetError, match="an object of ids and class names"):
        open_images(tmp_path)


# Bad files


def test_label_files_that_cannot_be_ids_are_refused(tmp_path: Path) -> None:
    pairs(tmp_path, "images", "labels", 1)
    label = tmp_path / "labels" / "0.png"

    def refusal() -> str:
        with pytest.raises(DatasetError) as error:
            open_images(tmp_path).read(0)
        return str(error.value)

    label.write_bytes(b"\x89PNG\r\n\x1a\nshort")
    assert "0.png: cannot be decoded" in refusal()
    write(label, scene(0)[0])
    assert "is a picture of colours, not of ids. --ids names the set" in refusal()
    Image.fromarray(scene(0)[1]).save(label, format="JPEG")
    assert "is a JPEG, which does not keep ids exactly" in refusal()
    Image.fromarray(scene(0)[1].astype(np.float32)).save(label, format="TIFF")
    assert "labels are whole numbers" in refusal()
    label.unlink()
    assert "has no label for 0.png (1 of 1 images lack one)" in refusal()
    write(label, Image.fromarray(scene(0)[1]))
    (tmp_path / "images" / "0.png").write_bytes(b"")
    assert "0.png: cannot be decoded: it is empty" in refusal()


def test_grey_in_colour_and_masks_of_one_bit_are_ids(tmp_path: Path) -> None:
    pairs(tmp_path, "images", "labels", 1)
    label = scene(0, 2)[1]
    for picture in (Image.fromarray(label).convert("RGB"), Image.fromarray(label).convert("LA"),
                    Image.fromarray(label.astype(bool)), Image.fromarray(label.astype(np.uint16))):  # fmt: skip
        picture.save(tmp_path / "labels" / "0.png")
        found = open_images(tmp_path).read(0).label
        assert np.array_equal(found, label) and found.dtype.kind in "ui"


def test_folders_and_names_that_are_no_data_sets_are_refused(tmp_path: Path) -> None:
    for root in (tmp_path, pairs(tmp_path / "misspelt", "images", "lables")):
        for split in ("validation", "train"):
            with pytest.raises(DatasetError, match=f"no images with labels of the split {split} in it. Known are"):
                open_images(ImageSource(root, split))
    pairs(tmp_path / "many" / "one", "validation/images", "validation/labels")
    write(tmp_path / "many" / "validation" / "0.png", scene(0)[0])
    with pytest.raises(DatasetError, match=r"and what datasets reads \(which finds images without labels\)"):
        open_images(tmp_path / "many")
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "labels").mkdir()
    with pytest.raises(DatasetError, match="the split has no images"):
        open_images(tmp_path / "empty")
    with pytest.raises(DatasetError, match=r"neither a folder here nor org/name\[@revision\]"):
        open_images(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="--ids kitti is not one of cityscapes, gta, synthia, mapillary"):
        open_images(ImageSource(tmp_path, ids="kitti"))


@pytest.mark.parametrize("open_", [open_images, open_unlabelled_images])
@pytest.mark.parametrize(("limit", "count"), [(None, 3), (2, 2), (9, 3)])
def test_a_limit_is_applied_when_images_are_opened(open_: Any, limit: int | None, count: int, tmp_path: Path) -> None:
    source = ImageSource(pairs(tmp_path, "images", "labels"), limit=limit)
    images: LabelledImages | UnlabelledImages = open_(source)
    assert images.count == count
    assert [np.array_equal(images.read(i).image, scene(i)[0]) for i in range(images.count)] == [True] * count
    # What was opened is told, with the split that was chosen.
    chosen = "validation" if open_ is open_images else "train"
    assert images.source == ImageSource(tmp_path, chosen, limit=limit)


@given(st.integers(0, 50), st.integers(1, 9))
def test_parts_share_out_every_image_once(count: int, world: int) -> None:
    images = LabelledImages("d", count, read=lambda index: None)  # type: ignore[arg-type, return-value]
    for batch in (1, 3):
        parts = [images.part(rank, world, batch) for rank in range(world)]
        assert sorted(index for part in parts for each in part for index in each) == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        # The batches are those of a single process, so what passes a network together is the same.
        shared_out = sorted(tuple(each) for part in parts for each in part)
        assert shared_out == [tuple(each) for each in images.part(0, 1, batch)]


# The Hub

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
    with pytest.raises(DatasetError, match=r"has the category 8, which id2label\.json does not name"):
        images.read(2)
