"""BatchNorm statistics that are estimated on images, against torch's own average over batches."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calls import merge
from manifests import write
from PIL import Image
from safetensors.numpy import save_file
from tiny import deeplab, scene, tensors

import hf_lwmm
from hf_lwmm.errors import PlanError
from hf_lwmm.networks import DeepLabV2ForSemanticSegmentation

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.mark.parametrize("method", ["layerwise", "isotropic", "slerp"])
def test_recalibration_estimates_the_running_statistics_alone(
    method: str, models: list[Path], bare: Path, tmp_path: Path
) -> None:
    merge(models[:2], method=method, output=tmp_path / "linear")
    result = merge(
        models[:2], method=method, bn_stats="recalibrate", bn_mix=1, bn_images=bare, output=tmp_path / "estimated"
    )
    linear, estimated = tensors(tmp_path / "linear"), tensors(tmp_path / "estimated")
    changed = {name for name, values in estimated.items() if not np.array_equal(values, linear[name])}
    assert changed == {"decode_head.batch_norm.running_mean", "decode_head.batch_norm.running_var"}
    loaded = hf_lwmm.load(tmp_path / "linear")
    seen: list[torch.Tensor] = []
    norm: Any = loaded.model.decode_head.batch_norm
    norm.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for seed in range(5):
            loaded.model(loaded.image_processor(scene(seed)[0], return_tensors="pt")["pixel_values"])
    for name, statistic in (("mean", torch.mean), ("var", torch.var)):
        expected = torch.stack([statistic(each, (0, 2, 3)) for each in seen]).mean(0)
        np.testing.assert_allclose(estimated[f"decode_head.batch_norm.running_{name}"], expected, rtol=2e-4, atol=1e-5)
    assert result.recipe.bn_images is not None and result.recipe.bn_images.limit == 5
    assert "estimated with the merged network on `pictures` (a local folder), split train (5 images)" in result.card
    assert "--bn-data pictures --bn-split train --bn-limit 5" in result.card


@pytest.mark.parametrize("eps", [1e-5, 0.0])
def test_layers_are_recalibrated_behind_each_other_as_update_bn_does(eps: float, bare: Path, tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, eps), deeplab(tmp_path / "b", 2, eps)]
    merge(paths, output=tmp_path / "linear")
    merge(
        paths,
        bn_stats="recalibrate",
        bn_mix=1,
        bn_images=hf_lwmm.ImageSource(bare, limit=3),
        output=tmp_path / "estimated",
    )
    loaded = hf_lwmm.load(tmp_path / "linear")
    twin = DeepLabV2ForSemanticSegmentation(copy.deepcopy(loaded.model.config).__class__(
        **{**loaded.model.config.to_dict(), "batch_norm_eps": 1e-5}
    ))  # fmt: skip
    twin.load_state_dict(loaded.model.state_dict(), strict=False)
    pixels = [
        loaded.image_processor(Image.open(path), return_tensors="pt")["pixel_values"]
        for path in sorted(bare.iterdir())[:3]
    ]
    torch.optim.swa_utils.update_bn(pixels, twin)  # a network without dropout
    state = twin.state_dict()
    for name, values in tensors(tmp_path / "estimated").items():
        if name.endswith("running_var"):
            np.testing.assert_allclose(values, state[name].numpy() + (1e-5 if eps == 0 else 0), rtol=1e-3, atol=1e-6)
        elif name.endswith("running_mean"):
            np.testing.assert_allclose(values, state[name].numpy(), rtol=1e-3, atol=1e-5)
    before, after = (hf_lwmm.load(tmp_path / name).model for name in ("linear", "estimated"))
    with torch.no_grad():
        assert after(pixels[0]).logits.isfinite().all() and not torch.equal(
            before(pixels[0]).logits, after(pixels[0]).logits
        )


def test_statistics_that_the_type_cannot_hold_are_refused(models: list[Path], bare: Path, tmp_path: Path) -> None:
    loud, fuse = [], "decode_head.linear_fuse.weight"
    for path in models[:2]:
        loud.append(Path(shutil.copytree(path, tmp_path / path.name)))
        values = tensors(path)
        save_file({**values, fuse: 2000 * values[fuse]}, loud[-1] / "model.safetensors", {"format": "pt"})
    images = hf_lwmm.ImageSource(bare, limit=1)
    options = {"bn_stats": "recalibrate", "bn_mix": 1, "bn_images": images, "output": tmp_path / "out"}
    with pytest.raises(PlanError, match=r"float16 cannot hold \(.*running_var\); write them in another type"):
        merge(loud, dtype="float16", **options)
    assert not (tmp_path / "out").exists()
    merge(loud, **options)


def test_images_without_a_variance_are_refused(tmp_path: Path) -> None:
    paths = [deeplab(tmp_path / "a", 1, 1e-5), deeplab(tmp_path / "b", 2, 1e-5)]
    (tmp_path / "small").mkdir()
    scene(1)[0].resize((2, 2)).save(tmp_path / "small/0.png")
    for path in paths:
        settings = json.dumps({"image_processor_type": "SegformerImageProcessor", "do_resize": False})
        (path / "preprocessor_config.json").write_text(settings)
    with pytest.raises(PlanError, match=r"small: --bn-stats recalibrate cannot estimate a variance where"):
        merge(paths, bn_stats="recalibrate", bn_mix=1, bn_images=tmp_path / "small", output=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bn_stats": "recalibrate"}, "estimates BatchNorm's statistics on images: name them with --bn-data"),
        (
            {"bn_images": "x"},
            "--bn-stats linear looks at no images; leave out --bn-data, or use --bn-stats recalibrate",
        ),
    ],
)
def test_images_that_are_missing_or_useless_are_named(
    options: dict[str, Any], message: str, models: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=message) as caught:
        merge(models[:3], output=tmp_path / "out", **options)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_networks_without_statistics_and_images_too_small_are_refused(
    models: list[Path], bare: Path, tmp_path: Path
) -> None:
    arrays = [{"a.weight": np.full((4, 3), float(i), np.float32)} for i in range(2)]
    unknown = [write(tmp_path / f"{i}.safetensors", each) for i, each in enumerate(arrays)]
    with pytest.raises(PlanError, match="has no BatchNorm, so --bn-stats recalibrate has nothing to do"):
        merge(unknown, bn_stats="recalibrate", bn_mix=1, bn_images=bare, output=tmp_path / "out")
    (tmp_path / "dots").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "dots/0.png")
    with pytest.raises(PlanError, match="dots: one cannot take 1 x 1 pixels: "):
        merge(models[:2], bn_stats="recalibrate", bn_mix=1, bn_images=tmp_path / "dots", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_network_computes_in_float32_whatever_else_is_asked_for(
    models: list[Path], bare: Path, tmp_path: Path
) -> None:
    for name, dtype in (("one", "float32"), ("two", "bfloat16")):
        merge(
            models[:2], bn_stats="recalibrate", bn_mix=1, bn_images=bare, output=tmp_path / name,
            network=hf_lwmm.NetworkOptions(compute_dtype=dtype),
        )  # fmt: skip
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two
