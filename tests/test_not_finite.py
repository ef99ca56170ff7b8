"""Networks whose weights or outputs are not finite are refused, not scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from calls import lwmm
from conftest import Run
from safetensors.numpy import load_file, save_file
from small_networks import network, saved
from test_evaluation_tasks import detector
from tiny import NAMES, scene, segformer, tree

import hf_lwmm
from hf_lwmm.errors import CheckpointError, OutputError
from hf_lwmm.evaluation.inference import classify, detect, panoptic
from hf_lwmm.networks import BottleneckConfig, BottleneckForImageClassification

pytestmark = pytest.mark.usefixtures("without_plots")
Change = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("data"), 2)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segformer(tmp_path_factory.mktemp("models") / "good", 2)


def spoilt(folder: Path, name: str, change: Change) -> Path:
    """A SegFormer with other values in the tensors whose names end so."""
    segformer(folder, 1)
    tensors = load_file(folder / "model.safetensors")
    changed = {key: change(values) if key.endswith(name) else values for key, values in tensors.items()}
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return folder


def with_nan(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(values.size).reshape(values.shape) == 0, np.float32(np.nan), values)


def too_large(folder: Path) -> Path:
    """A SegFormer whose weights fit float16, and whose outputs do not."""
    return spoilt(folder, "linear_fuse.weight", lambda values: values * 6e4)


@pytest.mark.parametrize(
    ("tensor", "change", "fault"),
    [
        ("block.0.0.mlp.dense1.weight", with_nan, "dense1.weight' has a value that is not finite in float32"),
        ("running_var", np.negative, "running_var' is a variance, and has a value below 0"),
    ],
)
def test_weights_that_mean_nothing_are_named(
    tensor: str, change: Change, fault: str, good: Path, data: Path, tmp_path: Path
) -> None:
    bad = spoilt(tmp_path / "bad", tensor, change)
    for words in (
        ("evaluate", bad, "--data", data),
        ("evaluate", good, bad, "--data", data, "--ensemble"),
        ("sweep", bad, good, "--data", data, "--start", 0, "--output", tmp_path / "sweep"),
        ("predict", bad, data / "images", "--output", tmp_path / "predictions"),
        ("measure", bad, "--data", data, "--output", tmp_path / "fisher.safetensors"),
        ("measure", bad, "--data", data, "--kind", "grams", "--output", tmp_path / "grams.safetensors"),
    ):
        result = lwmm(*words)
        assert isinstance(result.exception, CheckpointError)
        assert str(result.exception).startswith("bad: its tensor") and fault in str(result.exception)
        assert "Repair the checkpoint" in str(result.exception)
    assert not (tmp_path / "fisher.safetensors").exists() and not list(tmp_path.glob("predictions/*.png"))


def test_variances_below_0_stop_a_merge_unless_allowed(run: Run, good: Path, tmp_path: Path) -> None:
    bad = spoilt(tmp_path / "bad", "running_var", lambda values: np.where(np.arange(len(values)) == 3, -0.1, values))
    for models in ((bad, good), (good, bad)):
        code, _, err = run("merge", *models, "--output", tmp_path / "out")
        assert code == 1 and not (tmp_path / "out").exists()
        assert "bad: tensor" in err and "running_var' is a variance, and has a value below 0" in err
    shutil.copy(bad / "model.safetensors", tmp_path / "bare.safetensors")  # whose tensors are given other names
    code, _, err = run("merge", tmp_path / "bare.safetensors", good, "--output", tmp_path / "out")
    assert code == 1 and "running_var' is a variance, and has a value below 0" in err
    assert run("merge", good, bad, "--output", tmp_path / "out", "--allow-nonfinite")[0] == 0
    assert run("merge", good, bad, "--output", tmp_path / "kept", "--bn-stats", "anchor")[0] == 0  # it is not read


def test_outputs_that_overflow_name_the_picture_and_the_remedy(data: Path, good: Path, tmp_path: Path) -> None:
    bad = too_large(tmp_path / "bad")
    for words in (
        ("evaluate", bad, "--data", data),
        ("evaluate", good, bad, "--data", data, "--ensemble", "--flip"),
        ("sweep", good, bad, "--data", data, "--start", 0, "--output", tmp_path / "sweep"),
        ("predict", bad, data / "images", "--output", tmp_path / "predictions"),
        ("measure", bad, "--data", data, "--output", tmp_path / "fisher.safetensors"),
        ("measure", bad, "--data", data, "--kind", "grams", "--output", tmp_path / "grams.safetensors"),
    ):
        result = lwmm(*words, "--compute-dtype", "float16")
        assert isinstance(result.exception, OutputError)
        text = str(result.exception)
        assert text.startswith("bad: what it computes for ") and "0.png is not finite" in text
        assert text.endswith("overflows float16. Compute in another type: --compute-dtype float32.")
    assert lwmm("evaluate", bad, "--data", data).exit_code == 0


def test_measurements_that_overflow_are_not_written(data: Path, tmp_path: Path) -> None:
    large = spoilt(tmp_path / "large", "classifier.weight", lambda values: values * 3e2)
    words = ("measure", large, "--data", data, "--compute-dtype", "float16", "--output", tmp_path / "f.safetensors")
    result = lwmm(*words)
    assert isinstance(result.exception, OutputError) and not (tmp_path / "f.safetensors").exists()
    assert "large: what is measured of " in str(result.exception) and "overflows float16" in str(result.exception)


def test_a_merge_whose_outputs_overflow_is_left_out_of_a_sweep(run: Run, data: Path, tmp_path: Path) -> None:
    """In the models a large factor meets a small one; the merges have two large ones."""
    models = []
    for name, power in (("first", 25), ("second", -25)):
        models.append(spoilt(tmp_path / name, "linear_fuse.weight", lambda v, p=power: v * np.float32(10.0**p)))
        tensors = load_file(models[-1] / "model.safetensors")
        (scale,) = (key for key in tensors if key.endswith("batch_norm.weight"))
        tensors[scale] *= np.float32(10.0**-power)
        save_file(tensors, models[-1] / "model.safetensors", {"format": "pt"})
    code, out, err = run("sweep", *models, "--data", data, "--start", 0.9, "--output", tmp_path / "sweep")
    assert code == 0, err
    assert "| first |" in out and "Skipped (2)" in out
    assert out.count(f"merge: what it computes for {data.name}, 0.png is not finite") == 1, out


def test_networks_of_every_task_are_checked(tmp_path: Path) -> None:
    picture = scene(0)[0]
    config = BottleneckConfig(
        depths=(1, 1, 1, 1), width=8, block="basic", bottleneck_size=8, id2label=dict(enumerate(NAMES))
    )
    BottleneckForImageClassification(config).save_pretrained(tmp_path / "classifier")
    classifier = hf_lwmm.load(tmp_path / "classifier")
    detecting = hf_lwmm.load(detector(tmp_path / "detector", 1))
    segmenting = hf_lwmm.load(saved(network("edaps"), tmp_path / "edaps"))
    for loaded, part, call in (
        (classifier, "feat_embed_layer.bottleneck.weight", lambda: classify([classifier], [picture])),
        (detecting, "bbox_predictor.layers.2.weight", lambda: detect(detecting, picture)),
        (segmenting, "rpn", lambda: panoptic(segmenting, picture)),
    ):
        call()
        with torch.no_grad():
            tensors = {name: values for name, values in loaded.model.named_parameters() if part in name}
            for values in tensors.values():
                values.fill_(torch.inf)
        with pytest.raises(OutputError, match=f"{loaded.label}: what it computes for a picture is not finite"):
            call()


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("--bn-stats", "recalibrate", "--bn-data"), "Keep the merged statistics: --bn-stats linear."),
        (("--method", "adaptive", "--tune-data"), "Compute in another type: --compute-dtype float64."),
    ],
)
def test_images_that_decide_a_merge_are_not_looked_at_with_what_overflows(
    words: tuple[str, ...], remedy: str, data: Path, tmp_path: Path
) -> None:
    models = [spoilt(tmp_path / name, "linear_fuse.weight", lambda v: v * np.float32(1e38)) for name in ("one", "two")]
    result = lwmm("merge", *models, *words, data, "--output", tmp_path / "out")
    assert isinstance(result.exception, OutputError) and not (tmp_path / "out").exists()
    assert "one: what it computes for " in str(result.exception)
    assert str(result.exception).endswith(f"overflows float32. {remedy}")
