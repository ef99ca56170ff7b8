"""Pictures that are turned, tiny, long and thin, of odd modes, or none at all."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import lwmm
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image, ImageOps
from small_networks import network, picture, saved
from tiny import deeplab, scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.decoding import decode_rgb, label_ids
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.unlabelled import open_unlabelled_images
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.class_map import resized_logits
from hf_lwmm.evaluation.examples import COLUMNS, TALLEST, WIDTH
from hf_lwmm.evaluation.inference import predict_logits
from hf_lwmm.evaluation.pictures import all_views
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.localhub import LocalHub
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from hf_lwmm.planning.images import ImageSource

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "one", 1)


def turned(upright: Image.Image, value: int, kind: str = "PNG") -> bytes:
    """The file of a picture that is stored turned, with the tag that turns it back."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # to PIL's numbers of transpositions
    stored = upright.transpose(Image.Transpose(back[value])) if value in back else upright
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = value
    stored.save(file, kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    return file.getvalue()


# EXIF


@pytest.mark.parametrize("value", range(10))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_are_turned_as_cameras_mean_it_and_labels_never(value: int, kind: str) -> None:
    upright = picture(size=(96, 64))
    content = turned(upright, value, kind)
    found = decode_rgb(content, "a picture")
    with Image.open(io.BytesIO(content)) as stored:
        expected = ImageOps.exif_transpose(stored).convert("RGB")  # of datasets and of viewers
    assert found.size == (96, 64) and np.array_equal(found, expected)
    if kind == "PNG":
        assert np.array_equal(found, upright)
        label = label_ids(turned(upright.convert("L"), value), "a label")
        assert label.shape == ((96, 64) if value in (5, 6, 7, 8) else (64, 96))


def test_pictures_of_16_bits_are_turned_too() -> None:
    values = np.arange(24, dtype=np.uint16).reshape(4, 6) * 2048
    found = decode_rgb(turned(Image.fromarray(values), 6), "a picture")
    assert np.array_equal(np.asarray(found)[..., 0], values // 256)


def test_a_damaged_exif_block_turns_nothing(tmp_path: Path) -> None:
    upright, file = picture(), io.BytesIO()
    upright.save(file, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert np.array_equal(decode_rgb(file.getvalue(), "a picture"), upright)


def test_turned_photos_score_as_upright_ones_wherever_they_lie(hub: LocalHub, model: Path, tmp_path: Path) -> None:
    plain = tree(tmp_path / "plain", 2)
    data = Path(shutil.copytree(plain, tmp_path / "turned"))
    for path, value in zip(sorted((data / "images").iterdir()), (6, 3), strict=True):
        path.write_bytes(turned(Image.open(path), value))
    expected, found = hf_lwmm.evaluate([model], plain), hf_lwmm.evaluate([model], data)
    assert expected is not None and found is not None and np.array_equal(found.counts, expected.counts)
    rows = {
        "image": [{"path": None, "bytes": (data / "images" / f"{i}.png").read_bytes()} for i in range(2)],
        "label": [Image.open(data / "labels" / f"{i}.png") for i in range(2)],
    }
    features = Features({"image": ImageFeature(), "label": ImageFeature()})
    Dataset.from_dict(rows, features=features).push_to_hub("local/turned", split="validation")
    pushed = hf_lwmm.evaluate([model], "local/turned")
    assert pushed is not None and np.array_equal(pushed.counts, expected.counts)
    assert np.array_equal(open_unlabelled_images(data / "images").read(0).image, scene(0)[0])
    (data / "images" / "0.png").write_bytes(turned(scene(0)[0].transpose(Image.Transpose.ROTATE_90), 6))
    with pytest.raises(DatasetError, match=r"0\.png: the label is 64x48, but the image 48x64\. Images are turned as"):
        hf_lwmm.evaluate([model], data)


def test_overlays_are_as_large_as_viewers_show_the_photo(model: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(turned(picture(size=(96, 64)), 8))
    done = hf_lwmm.predict(model, [tmp_path / "photo.png"], tmp_path / "out", key=False)
    assert [Image.open(path).size for path in done.done[0].files] == [(96, 64)] * 2


# Sizes

SIZES = [(1, 1), (5, 5), (16, 16), (31, 31), (1, 500), (500, 1), (3, 900)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    for width, height in SIZES:
        scene(1)[0].resize((width, height)).save(folder / f"{width}x{height}.png")
    return folder


@pytest.mark.parametrize("kind", ["segformer", "deeplab", "daformer", "hrda", "windows"])
def test_pictures_smaller_than_a_network_are_segmented(kind: str, small: Path, tmp_path: Path) -> None:
    made = deeplab(tmp_path / "m", 1, 1e-5) if kind == "deeplab" else None
    name = "segformer" if kind == "windows" else kind
    loaded = hf_lwmm.load(made or saved(network(name), tmp_path / "m"))
    if kind == "windows":
        windows = SegmentationImageProcessor(window=(48, 48), stride=(32, 32))
        loaded = hf_lwmm.LoadedModel(loaded.model, windows, loaded.classes, loaded.family, loaded.source)
    found = hf_lwmm.predict(loaded, [small], tmp_path / "out")
    assert not found.failed and len(found.done) == len(SIZES)
    for one in found.done:
        assert Image.open(one.files[1]).size == Image.open(one.picture).size


@pytest.mark.parametrize("window", [None, (48, 48)])
@pytest.mark.parametrize("size", [(5, 40), (40, 5), (20, 20)])
def test_a_small_picture_is_continued_by_its_last_row_and_column(size: Any, window: Any, model: Path) -> None:
    loaded = hf_lwmm.load(model)
    processor = SegmentationImageProcessor(window=window, stride=window and (32, 32))
    loaded = hf_lwmm.LoadedModel(loaded.model, processor, loaded.classes, loaded.family, loaded.source)
    values = np.asarray(picture(size=(96, 64)))[: size[1], : size[0]]
    continued = np.pad(values, ((0, 64 - size[1]), (0, 64 - size[0]), (0, 0)), mode="edge")
    (found,), (large,) = (predict_logits(loaded, [Image.fromarray(each)]) for each in (values, continued))
    expected = resized_logits(large, (64, 64))[:, : size[1], : size[0]]
    torch.testing.assert_close(resized_logits(found, (size[1], size[0])), expected)
    # The logits of a mirrored view are turned back with what they were continued to.
    (mirrored,) = predict_logits(loaded, [Image.fromarray(values[:, ::-1])], all_views(flip=True)[1])
    torch.testing.assert_close(resized_logits(mirrored, (size[1], size[0])), expected.flip(-1))


def test_tiny_images_are_scored_and_drawn(model: Path, tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 1)
    for name, size in (("1x1", (1, 1)), ("long", (900, 3)), ("tall", (1, 500))):
        scene(1)[0].resize(size).save(data / "images" / f"{name}.png")
        Image.fromarray(np.ones(size[::-1], np.uint8)).save(data / "labels" / f"{name}.png")
    spec = EvaluationSpec(examples=4, flip=True, scales=(1.0, 0.5), batch_size=2)
    found = hf_lwmm.evaluate([model], data, evaluation=spec)
    assert found is not None and found.images == 4 and found.confusion is not None
    assert found.confusion.sum() == (scene(0)[1] != 255).sum() + 1 + 2700 + 500
    shapes = {example.name: example.picture.size for example in found.examples}
    key = 4 + 24  # the classes that occur, below the panels
    assert shapes["tall.png"] == (COLUMNS * (WIDTH + 4) - 4, TALLEST + 24 + key)
    assert shapes["long.png"] == (COLUMNS * (WIDTH + 4) - 4, 1 + 24 + key)


def test_what_a_network_cannot_take_is_skipped_or_refused_by_name(model: Path, small: Path, tmp_path: Path) -> None:
    panoptic = saved(network("edaps"), tmp_path / "edaps")
    done = lwmm("predict", panoptic, small, "--output", tmp_path / "out")
    assert (
        done.exit_code == 1
        and "Warning: " in done.stderr
        and "1x1.png: skipped: edaps cannot take 1 x 1" in (" ".join(done.stderr.split()))
    )
    shutil.copytree(small, tmp_path / "data" / "images")
    with pytest.raises(PlanError, match=r"one cannot take \d+ x \d+ pixels"):
        hf_lwmm.measure(model, ImageSource(tmp_path / "data", "train"), tmp_path / "g.safetensors", kind="grams")


def test_long_pictures_keep_a_pixel_when_they_are_resized() -> None:
    processor = SegmentationImageProcessor(size={"shortest_edge": 512, "longest_edge": 1024})
    assert processor(picture(size=(8, 8)).resize((1, 3000)), return_tensors="pt")["pixel_values"].shape == (
        1,
        3,
        1024,
        1,
    )


# Modes and files

MODES = {
    "cmyk.jpg": lambda rgb: rgb.convert("CMYK"),
    "ycbcr.jpg": lambda rgb: rgb.convert("YCbCr"),
    "print.tif": lambda rgb: rgb.convert("CMYK"),
    "lab.tif": lambda rgb: rgb.convert("LAB"),
    "la.png": lambda rgb: rgb.convert("LA"),
    "palette.png": lambda rgb: rgb.convert("P"),
    "deep.png": lambda rgb: Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
    "one.png": lambda rgb: rgb.convert("1"),
}


def test_pictures_of_every_mode_are_segmented_and_no_pictures_are_named(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, convert in MODES.items():
        convert(picture()).save(folder / name)
    Image.fromarray(np.full((64, 96), 0.5, np.float32)).save(folder / "fractions.tif")
    whole = (folder / "ycbcr.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    (folder / "._apple.png").write_bytes(b"\0\5\x16\7")
    done = lwmm("predict", model, folder, "--output", tmp_path / "out", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1 and len(found["predictions"]) == len(MODES)
    skipped = {Path(each["picture"]).name: each["reason"] for each in found["skipped"]}
    assert sorted(skipped) == ["._apple.png", "cut.jpg", "fractions.tif", "text.png"]
    assert "truncated" in skipped["cut.jpg"] and "no picture of a known kind" in skipped["text.png"]
    rgb = np.asarray(picture())
    for name in ("print.tif", "lab.tif"):
        assert np.abs(np.asarray(decode_rgb(folder / name, name)).astype(int) - rgb).mean() < 12


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "JPEG2000", "PPM"])
def test_damaged_files_are_named_or_read(kind: str) -> None:
    file, draw = io.BytesIO(), np.random.default_rng(0)
    picture(size=(32, 24)).save(file, kind)
    content = np.frombuffer(file.getvalue(), np.uint8)
    for _ in range(60):
        damaged = content.copy()
        damaged[draw.integers(0, len(content), 4)] = draw.integers(0, 256, 4)
        for read in (decode_rgb, label_ids):
            try:
                read(damaged[: draw.integers(1, len(content) + 1)].tobytes(), "that")
            except DatasetError as error:
                assert str(error).startswith("that: ")


def test_hidden_files_are_no_images_of_a_data_set(tmp_path: Path) -> None:
    data = tree(tmp_path / "data", 2)
    for folder in ("images", "labels"):
        (data / folder / "._0.png").write_bytes(b"\0\5\x16\7")
    assert open_images(data).count == 2
    assert open_unlabelled_images(data).count == open_unlabelled_images(data / "images").count == 2


def test_a_picture_that_claims_more_pixels_than_its_file_has_room_for_is_refused_before_it_is_decoded() -> None:
    claimed = struct.pack(">IIBBBBB", 20_000, 4_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", claimed), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )
    with pytest.raises(hf_lwmm.DatasetError, match=r"x\.png: cannot be decoded: it claims 80,000,000 pixels"):
        label_ids(content, "x.png")
