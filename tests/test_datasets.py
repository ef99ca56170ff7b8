"""Data sets in folders: the trees in which they are downloaded, and folders of classes."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scenes import check, scene
from tiny import tree

from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages
from hf_lwmm.data.unlabelled import UnlabelledImages, open_unlabelled_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.labels import label_sets, match_classes
from hf_lwmm.planning.images import ImageSource

CITY = label_sets()["cityscapes19"]


@pytest.mark.parametrize("module", ["loading", "unlabelled"])
def test_opening_a_data_set_needs_no_networks(module: str) -> None:
    code = (
        f"import sys, hf_lwmm.data.{module}; print(sorted({{'torch', 'transformers', 'datasets'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def pairs(root: Path, images: str, labels: str, count: int = 3, ending: str = "") -> Path:
    for seed in range(count):
        image, label = scene(seed)
        write(root / images / f"{seed}.png", image)
        write(root / labels / f"{seed}{ending}.png", Image.fromarray(label))
    return root


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
            open_images(tmp_path).read(0).image.load()
        return str(error.value)

    label.write_bytes(b"\x89PNG\r\n\x1a\nshort")
    assert "0.png: cannot be decoded" in refusal()
    write(label, scene(0)[0])
    assert "is a picture of colours, not of ids. --ids names the set" in refusal()
    Image.fromarray(scene(0)[1]).save(label, format="JPEG")
    assert "is a JPEG, which does not keep ids exactly" in refusal()
    for wrong in (0.5, float("nan"), 1e9):
        Image.fromarray(scene(0)[1].astype(np.float32) + wrong).save(label, format="TIFF")
        assert "at (0, 0); labels are whole numbers" in refusal()
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
    with pytest.raises(PlanError, match=r"--data '.*d\.\.\.: File name too long\."):
        open_images(str(tmp_path / ("d" * 300)))
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


def test_a_split_of_a_folder_without_splits_is_all_of_it_and_said(tmp_path: Path) -> None:
    flat = tree(tmp_path / "flat", 2)
    found = open_images(ImageSource(flat, split="test"))
    assert found.count == 2 and found.notes == ("flat: has no splits, so --split test stands for all its images",)
    assert open_images(ImageSource(flat)).notes == ()
