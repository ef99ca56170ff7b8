"""Checkpoints as networks that run: loaded, converted, pushed, and shown pictures."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from huggingface_hub import HfApi
from manifests import stored, write
from PIL import Image
from torch import Tensor
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessorPil,
    YolosConfig,
    YolosForObjectDetection,
    YolosImageProcessor,
)

import hf_lwmm
from hf_lwmm.api.predict import predict
from hf_lwmm.errors import CheckpointError, LayoutError, PlanError
from hf_lwmm.evaluation.inference import Logits, all_views, best_classes, predict_logits, resized_rows, segment
from hf_lwmm.evaluation.overlays import class_colours
from hf_lwmm.networks import (
    BottleneckConfig,
    BottleneckForImageClassification,
    DAFormerConfig,
    DAFormerForSemanticSegmentation,
    DeepLabV2Config,
    DeepLabV2ForSemanticSegmentation,
    EDAPSConfig,
    EDAPSForPanopticSegmentation,
    HRDAConfig,
    HRDAForSemanticSegmentation,
)
from hf_lwmm.networks.image_processing import SegmentationImageProcessor, as_rgb
from hf_lwmm.planning.inputs import NetworkOptions

LABELS = {"id2label": {0: "road", 1: "sky", 2: "car"}}
MIT: dict[str, Any] = {
    "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4], **LABELS
}  # fmt: skip
SMALL: dict[str, tuple[Any, Any]] = {
    "daformer": (DAFormerForSemanticSegmentation, DAFormerConfig(embedding_size=8, decoder_hidden_size=8, **MIT)),
    "hrda": (
        HRDAForSemanticSegmentation,
        HRDAConfig(
            embedding_size=8, decoder_hidden_size=8, attention_hidden_size=8,
            detail_crop_size=(32, 32), detail_crop_stride=(16, 16), **MIT,
        ),
    ),
    "edaps": (
        EDAPSForPanopticSegmentation,
        EDAPSConfig(
            embedding_size=8, decoder_hidden_size=8, fpn_hidden_size=8, box_hidden_size=16, mask_hidden_size=8,
            thing_ids=(2,), **MIT,
        ),
    ),
    "deeplab": (
        DeepLabV2ForSemanticSegmentation,
        DeepLabV2Config(
            system="adaptsegnet", summed_branches=2, multi_level=True, depths=(1, 1, 1, 1), width=8, **LABELS
        ),
    ),
    "segformer": (SegformerForSemanticSegmentation, SegformerConfig(decoder_hidden_size=16, **MIT)),
}  # fmt: skip


def network(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    made, config = SMALL[name]
    model = made(config).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += 0.05 * torch.rand_like(tensor)
    return model


def picture(seed: int = 0, size: tuple[int, int] = (96, 64)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(values).resize(size, 3)


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def state(model: Any) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if "num_batches" not in name}


# Loading


@pytest.mark.parametrize("name", SMALL)
def test_what_was_saved_is_loaded_with_its_labels(name: str, tmp_path: Path) -> None:
    model = network(name)
    loaded = hf_lwmm.load(saved(model, tmp_path / "model"))
    assert type(loaded.model) is type(model) and loaded.classes == ("road", "sky", "car")
    assert all(torch.equal(tensor, state(loaded.model)[key]) for key, tensor in state(model).items())
    assert not loaded.model.training and not loaded.notes


@pytest.mark.parametrize("name", ["daformer", "deeplab", "segformer"])
def test_a_bare_state_dict_is_loaded_by_its_tensors(name: str, tmp_path: Path) -> None:
    model = network(name)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "latest.pth")
    system = "adaptsegnet" if name == "deeplab" else None
    loaded = hf_lwmm.load(tmp_path / "latest.pth", NetworkOptions(system=system, labels=("road,sky,car",)))
    assert all(torch.equal(tensor, state(loaded.model)[key]) for key, tensor in state(model).items())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(image).logits, model(image).logits)
    assert loaded.classes == ("road", "sky", "car")
    nameless = hf_lwmm.load(tmp_path / "latest.pth")
    assert nameless.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert any("names none of its 3 classes; --labels does" in note for note in nameless.notes)
    assert any("taken for advent's arithmetic" in note for note in nameless.notes) == (name == "deeplab")


def test_image_settings_are_the_code_bases_own(tmp_path: Path) -> None:
    torch.save(network("deeplab").state_dict(), tmp_path / "d.pth")
    bgr = hf_lwmm.load(tmp_path / "d.pth").image_processor
    rgb = hf_lwmm.load(tmp_path / "d.pth", NetworkOptions(system="fada")).image_processor
    assert (bgr.channel_order, bgr.align_corners, bgr.image_std) == ("BGR", True, [1, 1, 1])
    assert (rgb.channel_order, rgb.size) == ("RGB", {"height": 512, "width": 1024})
    one = picture()
    values = bgr(one, return_tensors="np")["pixel_values"][0]
    expected = np.asarray(one.resize((1024, 512), 3), np.float32)[..., ::-1] - np.float32(
        [104.00698793, 116.66876762, 122.67891434]
    )
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), atol=1e-4)
    scaled = rgb(one, return_tensors="np")["pixel_values"][0, 0]
    expected = (np.asarray(one.resize((1024, 512), 3), np.float32)[..., 0] / 255 - 0.485) / 0.229
    np.testing.assert_allclose(scaled, expected, atol=1e-4)


def test_missing_tensors_and_wrong_counts_are_listed(tmp_path: Path) -> None:
    arrays = network("daformer").state_dict()
    short = {name: tensor for name, tensor in arrays.items() if "fuse_layer.bottleneck.bn.w" not in name}
    torch.save(short, tmp_path / "short.pth")
    with pytest.raises(LayoutError, match=r"short\.pth.*daformer\.bottleneck\.bn\.weight"):
        hf_lwmm.load(tmp_path / "short.pth")
    gone = {
        name: tensor for name, tensor in arrays.items() if name != "segformer.stages.0.patch_embeddings.proj.weight"
    }
    torch.save(gone, tmp_path / "gone.pth")
    with pytest.raises(LayoutError, match=r"gone\.pth: The checkpoint has no mit\.stage0\.embed\.proj\.weight"):
        hf_lwmm.load(tmp_path / "gone.pth")
    flat = {name: tensor.flatten() if "bottleneck.conv" in name else tensor for name, tensor in arrays.items()}
    torch.save(flat, tmp_path / "flat.pth")
    with pytest.raises(LayoutError, match=r"flat\.pth: its shapes do not make a DAFormer: "):
        hf_lwmm.load(tmp_path / "flat.pth")
    torch.save(arrays, tmp_path / "whole.pth")
    with pytest.raises(PlanError, match="is not a label set"):
        hf_lwmm.load(tmp_path / "whole.pth", NetworkOptions(labels=("cityscapes",)))
    with pytest.raises(LayoutError, match="whole.pth: --system advent does not apply"):
        hf_lwmm.load(tmp_path / "whole.pth", NetworkOptions(system="advent"))
    write(tmp_path / "pvt.safetensors", stored("timm_pvt_v2_b2"))
    with pytest.raises(LayoutError, match="there is no network for PVTv2-B2"):
        hf_lwmm.load(tmp_path / "pvt.safetensors")


def test_a_repository_that_contradicts_itself_is_refused_with_the_reason(tmp_path: Path) -> None:
    folder = saved(network("daformer"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for wrong, fault in (
        ({"depths": "deep"}, "config.json does not make a DAFormer: .*depths"),
        ({"hidden_sizes": [8]}, "config.json does not make a DAFormer: "),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **wrong}))
        with pytest.raises(CheckpointError, match=fault):
            hf_lwmm.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    for settings in ("{", "[]", '{"image_processor_type": "SegmentationImageProcessor", "channel_order": "bgr"}'):
        (folder / "preprocessor_config.json").write_text(settings)
        with pytest.raises(CheckpointError, match=r"model: its preprocessor_config\.json cannot be read: "):
            hf_lwmm.load(folder)


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = saved(network("daformer"), tmp_path / "model")
    (folder / "own.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\n")
    settings = {"image_processor_type": "Own", "auto_map": {"AutoImageProcessor": "own.Own"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    loaded = hf_lwmm.load(folder)
    assert loaded.notes == ("model: its image processor (Own) cannot be used; the original's settings are used",)
    assert loaded.image_processor.size == {"shortest_edge": 512, "longest_edge": 1024}
    assert not (tmp_path / "ran").exists()


def test_glc_and_conmix_classifiers_load_from_their_own_names(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(write(tmp_path / "glc.safetensors", stored("glc_sfunida_resnet50", shrink=16)))
    assert isinstance(loaded.model, BottleneckForImageClassification) and loaded.task == "classification"
    assert isinstance(loaded.model.config, BottleneckConfig) and loaded.model.config.width == 4
    assert len(loaded.classes) == 15


# Auto classes, also by trust_remote_code alone

READ = """
import sys, torch
{imports}
from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation, AutoImageProcessor
for name in sys.argv[1:]:
    auto = AutoModelForUniversalSegmentation if name == "edaps" else AutoModelForSemanticSegmentation
    model, info = auto.from_pretrained(f"local/{{name}}-hub", {trust} output_loading_info=True)
    processor = AutoImageProcessor.from_pretrained(f"local/{{name}}-hub", {trust})
    assert not any(info.values()), info
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 3, 64, 96)).logits
    print(":", type(model).__module__, type(processor).__name__, logits.double().sum().item())
"""


def test_a_converted_checkpoint_is_one_line_of_transformers(run: Run, hub: Any, api: HfApi, tmp_path: Path) -> None:
    models = {name: network(name) for name in ("daformer", "deeplab", "segformer", "edaps")}
    for name, model in models.items():
        if name == "edaps":
            hf_lwmm.export(saved(model, tmp_path / name), push="local/edaps-hub", license="mit")
            continue
        folder = tmp_path / name
        folder.mkdir()
        classes = {"CLASSES": ("road", "sky", "car")}
        torch.save({"state_dict": model.state_dict(), "meta": classes}, folder / "latest.pth")
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        repo = api.create_repo(f"local/{name}-pth", exist_ok=True).repo_id
        api.upload_folder(repo_id=repo, folder_path=folder)
        system = ("--system", "adaptsegnet") if name == "deeplab" else ()
        code, _, err = run("convert", f"{repo}:latest.pth", "--push", f"local/{name}-hub", *system)
        assert code == 0, err
        card = api.model_info(f"local/{name}-hub").card_data
        assert card.base_model == [repo] and card.license == "mit" and card.library_name == "transformers"
    for imports, trust in (("import hf_lwmm.networks", ""), ("", "trust_remote_code=True,")):
        code = READ.format(imports=imports, trust=trust)
        done = subprocess.run([sys.executable, "-c", code, *models], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        read = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith(": ")]
        for (name, model), (module, processor, total) in zip(models.items(), read, strict=True):
            torch.manual_seed(0)
            with torch.no_grad():
                expected = model(torch.randn(1, 3, 64, 96)).logits.double().sum().item()
            assert float(total) == pytest.approx(expected, rel=1e-4, abs=1e-3)
            own = "transformers." if name == "segformer" else "hf_lwmm." if imports else "transformers_modules."
            assert module.startswith(own) and processor.startswith("Seg"), name


def test_conversion_keeps_every_bit_and_type(tmp_path: Path) -> None:
    model = network("daformer").half()
    torch.save(model.state_dict(), tmp_path / "half.pth")
    done = hf_lwmm.export(tmp_path / "half.pth", tmp_path / "out")
    assert done.folder == tmp_path / "out"
    again = DAFormerForSemanticSegmentation.from_pretrained(tmp_path / "out", dtype="auto")
    assert all(
        torch.equal(tensor, state(again)[key]) and tensor.dtype == torch.float16 for key, tensor in state(model).items()
    )


def test_the_command_on_the_card_converts_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("road\nsky\ncar\n")
    torch.save(network("deeplab").state_dict(), tmp_path / "latest.pth")
    options = NetworkOptions(system="adaptsegnet", labels=("cityscapes19", str(tmp_path / "names.txt")), device="cpu")
    hf_lwmm.export(tmp_path / "latest.pth", tmp_path / "one", license="mit", network=options)
    card = (tmp_path / "one" / "README.md").read_text()
    assert 'model = AutoModelForSemanticSegmentation.from_pretrained("one", trust_remote_code=True)' in card
    assert str(tmp_path) not in card and "3 classes: road, sky, car." in card
    (command,) = (line for line in card.splitlines() if line.startswith("hf-lwmm convert "))
    assert command.split()[3:] == ["--system", "adaptsegnet", "--labels", "cityscapes19", "--labels", "road,sky,car"]
    code, _, err = run(*shlex.split(command)[1:], "--license", "mit", "--overwrite")
    assert code == 0, err
    for path in (tmp_path / "one").iterdir():
        again = (tmp_path / "latest" / path.name).read_text("latin1")
        assert again == path.read_text("latin1").replace('"one"', '"latest"').replace("# one", "# latest")


def test_a_detector_is_converted_with_a_card_of_its_task(tmp_path: Path) -> None:
    config = YolosConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=[32, 32],
        num_detection_tokens=3, **LABELS,
    )  # fmt: skip
    saved(YolosForObjectDetection(config), tmp_path / "model")
    YolosImageProcessor(do_resize=False, do_pad=False).save_pretrained(tmp_path / "model")
    done = hf_lwmm.export(tmp_path / "model", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert done.loaded.task == "detection" and "pipeline_tag: object-detection" in card
    assert 'AutoModelForObjectDetection.from_pretrained("out")' in card and not list((tmp_path / "out").glob("*.py"))


def test_a_merge_of_networks_keeps_the_code_that_travels_with_its_anchor(tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        torch.save(network("daformer", seed).state_dict(), tmp_path / f"{seed}.pth")
        hf_lwmm.export(
            tmp_path / f"{seed}.pth", tmp_path / f"model{seed}", network=NetworkOptions(labels=("road,sky,car",))
        )
        folders.append(tmp_path / f"model{seed}")
    hf_lwmm.merge(folders, output=tmp_path / "merged")
    assert {"daformer.py", "mit.py", "image_processing.py"} <= {path.name for path in (tmp_path / "merged").iterdir()}
    merged = hf_lwmm.load(tmp_path / "merged")
    one, other = (hf_lwmm.load(folder) for folder in folders)
    key = "segformer.stages.0.patch_embeddings.proj.weight"
    first, second, both = (state(loaded.model)[key] for loaded in (one, other, merged))
    torch.testing.assert_close(both, (first + second) / 2, rtol=0.02, atol=0.01)


# Pictures


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(
    ("given", "wanted"), [((5, 7), (20, 28)), ((9, 13), (65, 97)), ((16, 16), (40, 50)), ((8, 8), (8, 8))]
)
def test_strips_are_what_resizing_at_once_gives(corners: bool, given: tuple[int, int], wanted: tuple[int, int]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, *given)
    whole = torch.nn.functional.interpolate(logits[None], wanted, mode="bilinear", align_corners=corners)[0]
    strips = [
        resized_rows(Logits((logits,), corners), wanted, slice(i, min(i + 7, wanted[0])))
        for i in range(0, wanted[0], 7)
    ]
    torch.testing.assert_close(torch.cat(strips, dim=1), whole, rtol=1e-4, atol=1e-5)
    assert (best_classes([Logits((logits,), corners)], wanted) == whole.argmax(0).numpy()).mean() > 0.999


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
        strips = [resized_rows(result, size, slice(i, min(i + 7, size[0]))) for i in range(0, size[0], 7)]
        torch.testing.assert_close(torch.cat(strips, dim=1), expected, rtol=1e-4, atol=1e-5)


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
    assert np.array_equal(np.asarray(labels), segment([loaded], [picture()])[0])
    segments = json.loads((tmp_path / "out" / "street_segments.json").read_text())
    rgb = np.asarray(Image.open(tmp_path / "out" / "street_segments.png")).astype(int)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    assert {s["id"] for s in segments} == set(np.unique(ids)) - {0}
    assert all((ids == s["id"]).sum() == s["area"] and s["category"] in loaded.classes for s in segments)
    overlay = np.asarray(Image.open(tmp_path / "out" / "street_overlay.png"))
    expected = 0.4 * np.asarray(picture()) + 0.6 * class_colours(loaded.classes)[np.asarray(labels)]
    assert np.abs(overlay - expected).max() <= 1


def test_predict_says_when_there_is_nothing_to_see(tmp_path: Path) -> None:
    loaded = hf_lwmm.load(saved(network("segformer"), tmp_path / "model"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PlanError, match="No pictures in"):
        predict(loaded, [tmp_path / "empty"], tmp_path / "out")
    found = predict(loaded, [tmp_path / "none.png"], tmp_path / "out")
    assert not found.done and "No such file" in found.failed[0][1]


def test_hugging_faces_own_segformer_keeps_its_image_processor(tmp_path: Path) -> None:
    saved(network("segformer"), tmp_path / "model")
    SegformerImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(tmp_path / "model")
    loaded = hf_lwmm.load(tmp_path / "model")
    assert predict_logits(loaded, [picture()])[0].logits[0].shape[-2:] == (8, 12)


# What importing costs


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


KNOWN = "print('hf-lwmm-daformer' in transformers.models.auto.configuration_auto.CONFIG_MAPPING)"


@pytest.mark.parametrize("lines", ["import hf_lwmm, transformers", "import transformers, hf_lwmm"])
def test_importing_the_package_leaves_transformers_alone(lines: str) -> None:
    alone = "import sys, hf_lwmm; print(sorted({'torch', 'transformers'} & set(sys.modules)), len(sys.meta_path))"
    bare = "import sys; print([], len(sys.meta_path))"
    assert printed(alone) == printed(bare)
    assert printed(f"{lines}; import transformers.models.auto; {KNOWN}") == "False\n"


@pytest.mark.parametrize("name", ["SegformerForSemanticSegmentation", "PreTrainedModel", "AutoConfig"])
@pytest.mark.parametrize("lines", ["import hf_lwmm.networks", "import hf_lwmm.networks.loading", ""])
def test_importing_the_networks_registers_them_with_the_auto_classes(name: str, lines: str) -> None:
    first, after = (lines, "") if lines else ("", "import hf_lwmm.networks")
    code = f"{first}\nimport transformers\nfrom transformers import {name}\n{after}\n{KNOWN}"
    assert printed(code) == "True\n"
