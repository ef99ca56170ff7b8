"""Pictures shown to networks: views, windows, batches, ensembles, and the files that `predict` writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run
from PIL import Image
from small_networks import network, picture, saved
from transformers import SegformerImageProcessorPil

import hf_lwmm
from hf_lwmm.errors import PlanError
from hf_lwmm.evaluation.class_map import resized_logits
from hf_lwmm.evaluation.inference import predict_logits, segment
from hf_lwmm.evaluation.overlays import class_colours
from hf_lwmm.evaluation.pictures import all_views
from hf_lwmm.networks.image_processing import SegmentationImageProcessor, as_rgb


def test_several_networks_average_their_softmax_by_class_name(tmp_path: Path) -> None:
    first = hf_lwmm.load(saved(network("segformer", 1), tmp_path / "one"))
    other_network = network("segformer", 2)
    other_network.config.id2label = {0: "car", 1: "road", 2: "bus"}
    other = hf_lwmm.load(saved(other_network, tmp_path / "two"))
    size = (64, 96)
    (one,), (two,) = (predict_logits(loaded, [picture()]) for loaded in (first, other))
    a, b = (torch.nn.functional.interpolate(s.logits[0][None], size, mode="bilinear")[0].softmax(0) for s in (one, two))
    expected = torch.stack([(a[0] + b[1]) / 2, a[1], (a[2] + b[0]) / 2]).argmax(0).numpy()
    assert (segment([first, other], [picture()])[0] == expected).mean() > 0.999
    stranger = network("segformer", 3)
    stranger.config.id2label = {0: "x", 1: "y", 2: "z"}
    with pytest.raises(PlanError, match="share no class name"):
        segment([first, hf_lwmm.load(saved(stranger, tmp_path / "three"))], [picture()])


def test_mirrored_and_scaled_views_are_averaged(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(saved(network("segformer"), tmp_path / "one"))
    views = all_views(flip=True, scales=(1.0, 0.5))
    assert len(views) == 4
    (plain,), (mirrored,) = (
        predict_logits(loaded, [picture()]),
        predict_logits(loaded, [picture().transpose(0)], views[1]),
    )
    torch.testing.assert_close(plain.logits[0], mirrored.logits[0].flip(-1))
    symmetric = Image.fromarray(np.concatenate([np.asarray(picture()), np.asarray(picture())[:, ::-1]], axis=1))
    (result,) = segment([loaded], [symmetric], views=all_views(flip=True))
    assert (result == result[:, ::-1]).mean() > 0.99


def test_windows_are_asked_for_by_the_image_processor(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(saved(network("segformer"), tmp_path / "one"))
    (whole,) = predict_logits(loaded, [picture()])
    processor = SegmentationImageProcessor(window=(64, 64), stride=(32, 32))
    windowed = hf_lwmm.LoadedModel(loaded.model, processor, loaded.classes, loaded.family, loaded.source)
    result, mirrored = (predict_logits(windowed, [picture()], view)[0] for view in all_views(flip=True))
    assert whole.logits[0].shape[-2:] == (16, 24)
    assert result.boxes == ((0, 64, 0, 64), (0, 64, 32, 96)) and mirrored.boxes == ((0, 64, 32, 96), (0, 64, 0, 64))
    (small,) = predict_logits(windowed, [picture(size=(48, 40))])
    assert small.boxes == ((0, 40, 0, 48),)
    # Windows are averaged at the picture's size, then resized: as one map, whatever rows are asked for.
    total, count = torch.zeros(3, 64, 96), torch.zeros(64, 96)
    for logits, (y1, y2, x1, x2) in zip(result.logits, result.boxes, strict=True):
        total[:, y1:y2, x1:x2] += torch.nn.functional.interpolate(logits[None], (y2 - y1, x2 - x1), mode="bilinear")[0]
        count[y1:y2, x1:x2] += 1
    for size in ((64, 96), (100, 150)):
        expected = torch.nn.functional.interpolate((total / count)[None], size, mode="bilinear")[0]
        torch.testing.assert_close(resized_logits(result, size), expected, rtol=1e-4, atol=1e-5)


def test_pictures_in_a_batch_are_segmented_as_they_are_alone(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(saved(network("segformer"), tmp_path / "one"))
    pictures = [picture(), picture(size=(48, 40)), picture().transpose(0)]
    alone = [segment([loaded], [each])[0] for each in pictures]
    for mine, batched in zip(alone, segment([loaded], pictures), strict=True):
        assert mine.shape == batched.shape and (mine == batched).mean() > 0.999


def test_pictures_of_every_kind_become_rgb() -> None:
    colours = np.asarray(picture())
    assert as_rgb(Image.fromarray(colours[..., 0])).mode == "RGB"
    assert as_rgb(picture().convert("RGBA")).mode == as_rgb(picture().convert("P")).mode == "RGB"
    deep = Image.fromarray(colours[..., 0].astype(np.uint16) * 257)
    assert np.array_equal(np.asarray(as_rgb(deep))[..., 0], colours[..., 0])
    assert np.array_equal(np.asarray(as_rgb(torch.from_numpy(colours.transpose(2, 0, 1).copy()))), colours)
    assert np.array_equal(np.asarray(as_rgb(colours.astype(np.float32) / 255)), colours)
    with pytest.raises(ValueError, match="is no picture"):
        as_rgb(np.zeros((2, 3, 4, 5)))
    with pytest.raises(ValueError, match="several sizes"):
        SegmentationImageProcessor()([picture(), picture(size=(32, 32))], return_tensors="pt")


def test_predict_writes_overlay_labels_and_segments(run: Run, tmp_path: Path) -> None:
    saved(network("edaps"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "stuff_area": 1, "instance_score": 0.0}))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    picture().save(pictures / "street.png")
    picture(1).convert("L").save(pictures / "grey.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    code, out, err = run("predict", tmp_path / "model", pictures, "--json", "--output", tmp_path / "out")
    assert code == 1 and "1 of 3 pictures could not be read." in err
    answer = json.loads(out)
    assert len(answer["predictions"]) == 2 and len(answer["skipped"]) == 1
    labels = Image.open(tmp_path / "out" / "street_labels.png")
    assert labels.mode == "P" and labels.size == (96, 64) and np.asarray(labels).max() < 3
    loaded = hf_lwmm.load(tmp_path / "model")
    assert repr(loaded) == "<LoadedModel: model; EDAPSForPanopticSegmentation, panoptic, 3 classes>"
    assert np.array_equal(np.asarray(labels), segment([loaded], [picture()])[0])
    segments = json.loads((tmp_path / "out" / "street_segments.json").read_text())
    rgb = np.asarray(Image.open(tmp_path / "out" / "street_segments.png")).astype(int)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    assert {s["id"] for s in segments} == set(np.unique(ids)) - {0}
    assert all((ids == s["id"]).sum() == s["area"] and s["category"] in loaded.classes for s in segments)
    overlay = np.asarray(Image.open(tmp_path / "out" / "street_overlay.png"))
    seen, key = overlay[:64, :96], overlay[64:]
    found = {tuple(colour) for colour in class_colours(loaded.classes)[np.unique(labels)].tolist()}
    assert found <= set(map(tuple, key.reshape(-1, 3).tolist())) and len(key) > 4 + 20 * len(found)  # and a caption
    expected = 0.4 * np.asarray(picture()) + 0.6 * class_colours(loaded.classes)[np.asarray(labels)]
    assert np.abs(seen - expected).max() <= 1


def test_predict_says_when_there_is_nothing_to_see(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(saved(network("segformer"), tmp_path / "model"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="No pictures in"):
        hf_lwmm.predict(loaded, [tmp_path / "empty"], tmp_path / "out")
    found = hf_lwmm.predict(loaded, [tmp_path / "none.png"], tmp_path / "out")
    assert repr(found) == "<Predictions: 0 done, 1 failed>"
    assert not found.done and "there is no such file" in found.failed[0][1]


def test_hugging_faces_own_segformer_keeps_its_image_processor(tmp_path: Path) -> None:
    saved(network("segformer"), tmp_path / "model")
    SegformerImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(tmp_path / "model")
    loaded = hf_lwmm.load(tmp_path / "model")
    assert predict_logits(loaded, [picture()])[0].logits[0].shape[-2:] == (8, 12)
