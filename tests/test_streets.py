"""The rendered streets, the shipped models that were trained on them, and the benchmark's trainers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import SegformerForSemanticSegmentation

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hf_lwmm.demo import MODELS  # noqa: E402
from hf_lwmm.demo.streets import CLASSES, IGNORE, STYLES, THINGS, render  # noqa: E402
from scripts.uda import train as trainer  # noqa: E402
from scripts.uda.data import Batch, Frames, View, draw_batch, folder_of_images, rendered  # noqa: E402
from scripts.uda.losses import STRATEGIES, mix_classes  # noqa: E402


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_gives_one_scene_with_valid_labels(style: str) -> None:
    scene, again, other = render(style, 3, (160, 120)), render(style, 3, (160, 120)), render(style, 4, (160, 120))
    assert np.array_equal(scene.image, again.image) and np.array_equal(scene.labels, again.labels)
    assert np.array_equal(scene.instances, again.instances)
    assert not np.array_equal(scene.image, other.image)
    assert scene.image.shape == (120, 160, 3) and scene.labels.shape == scene.instances.shape == (120, 160)
    assert scene.image.dtype == scene.labels.dtype == np.uint8 and scene.instances.dtype == np.int32
    assert set(np.unique(scene.labels)) <= {*range(11), IGNORE}


@pytest.mark.parametrize("style", STYLES)
def test_every_thing_is_an_instance_of_one_class(style: str) -> None:
    for seed in range(6):
        scene = render(style, seed, (160, 120))
        assert np.array_equal(scene.instances > 0, np.isin(scene.labels, THINGS))
        for number in np.unique(scene.instances[scene.instances > 0]):
            assert len(np.unique(scene.labels[scene.instances == number])) == 1


@pytest.mark.parametrize("style", STYLES)
def test_streets_show_every_class_and_look_like_streets(style: str) -> None:
    labels = np.stack([render(style, seed, (160, 120), every_class=True).labels for seed in range(40)])
    share = dict(zip(CLASSES, np.bincount(labels.ravel(), minlength=11) / labels.size, strict=True))
    assert min(share.values()) > 0.001
    assert 0.2 < share["road"] < 0.5 and share["building"] > 0.1 and share["sky"] > 0.05
    assert (labels[:, :10] == CLASSES.index("road")).mean() < 0.001  # no road in the sky
    assert (labels[:, -10:] == CLASSES.index("sky")).mean() < 0.001


def test_synthia_leaves_two_classes_unlabelled() -> None:
    scene, whole = render("synthia", 1), render("synthia", 1, every_class=True)
    hidden = np.isin(whole.labels, (CLASSES.index("sign"), CLASSES.index("fence")))
    assert np.array_equal(scene.image, whole.image)
    assert hidden.any() and np.array_equal(scene.labels == IGNORE, hidden)


def test_a_scene_keeps_its_layout_at_any_size() -> None:
    small, large = render("gta", 2, (160, 120)).labels, render("gta", 2, (320, 240)).labels[::2, ::2]
    assert (small == large).mean() > 0.85


def test_styles_look_different() -> None:
    means = [np.mean([render(style, seed, (160, 120)).image.mean() for seed in range(8)]) for style in STYLES]
    assert max(means) - min(means) > 30


@pytest.mark.parametrize("name", ["streets-gta", "streets-night"])
def test_the_shipped_models_see_streets_at_night(name: str, tmp_path: Path) -> None:
    folder = MODELS / name
    assert (folder / "model.safetensors").stat().st_size < 3_000_000
    model = SegformerForSemanticSegmentation.from_pretrained(folder).float().eval()
    assert np.nanmean(trainer.class_ious(model, rendered(tmp_path, "night", 300_000, 10))) > 0.15


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def source(cache: Path) -> Frames:
    return rendered(cache, "gta", 0, 6, (96, 64))


@pytest.fixture(scope="module")
def target(cache: Path) -> Frames:
    return Frames(rendered(cache, "night", 0, 4, (96, 64)).images)


def test_cached_frames_are_the_rendered_ones(cache: Path, source: Frames) -> None:
    scene = render("gta", 2, (96, 64))
    for frames in (source, rendered(cache, "gta", 0, 6, (96, 64))):
        assert np.array_equal(frames.images[2], scene.image) and np.array_equal(frames.labels[2], scene.labels)
        assert np.array_equal(frames.instances[2], scene.instances)
    assert np.allclose(source.shares.sum(1), 1)
    assert len(list(cache.glob("gta-0-6-96x64-*"))) == 1


def test_a_folder_gives_labels_only_where_they_are_asked_for(tmp_path: Path) -> None:
    from PIL import Image

    for part, array in (("images", np.zeros((4, 6, 3), np.uint8)), ("labels", np.full((4, 6), 11, np.uint8))):
        (tmp_path / part).mkdir()
        Image.fromarray(array).save(tmp_path / part / "a.png")
    assert folder_of_images(tmp_path, labelled=False).labels is None
    assert (folder_of_images(tmp_path, labelled=True).labels == IGNORE).all()


def test_batches_follow_the_seed(source: Frames, target: Frames) -> None:
    view = View(size=(32, 48), zoom=(0.7, 1.3), rarity=0.2, jitter=0.3, transfer=0.5)

    def batch(seed: int) -> Batch:
        torch.manual_seed(seed)
        return draw_batch(source, target, 3, view, np.random.default_rng(seed))

    one, again, other = batch(1), batch(1), batch(2)
    assert torch.equal(one.images, again.images) and torch.equal(one.target, again.target)
    assert not torch.equal(one.images, other.images)
    assert one.images.shape == one.target.shape == (3, 3, 32, 48)
    assert one.labels.shape == one.instances.shape == (3, 32, 48)
    assert one.images.min() >= 0 and one.images.max() <= 1


def test_mixing_pastes_whole_classes(source: Frames, target: Frames) -> None:
    batch = draw_batch(source, target, 3, View(size=(32, 48)), np.random.default_rng(0))
    images, labels, masks = mix_classes(batch, torch.full_like(batch.labels, 7))
    for i in range(3):
        pasted = masks[i]
        assert torch.equal(images[i][:, pasted], batch.images[i][:, pasted])
        assert torch.equal(images[i][:, ~pasted], batch.target[i][:, ~pasted])
        assert (labels[i][~pasted] == 7).all()
        assert not set(batch.labels[i][pasted].tolist()) & set(batch.labels[i][~pasted].tolist())


BENCH = yaml.safe_load((ROOT / "scripts" / "uda" / "bench.yaml").read_text())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_interrupted_run_goes_on_as_if_it_had_not_stopped(
    strategy: str, cache: Path, target: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "edaps" if "panoptic" in strategy else "hrda" if "consistency" in strategy else "daformer"
    small = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1]}
    if kind == "hrda":
        small |= {"detail_crop_size": [32, 32], "detail_crop_stride": [32, 32]}
    run = {**BENCH["defaults"], "strategy": strategy, "network": BENCH["networks"][kind] | small}
    run |= {"frames": 4, "batch": 2, "steps": 4, "view": {"size": [64, 64], "jitter": 0.2}}
    monkeypatch.setattr(trainer, "SAVE_EVERY", 2)
    whole = trainer.train("a", run, tmp_path, cache, target)

    with monkeypatch.context() as patch:
        patch.setattr(STRATEGIES[strategy], "after_step", _stop_at(3, STRATEGIES[strategy].after_step))
        with pytest.raises(KeyboardInterrupt):
            trainer.train("b", run, tmp_path, cache, target)
    resumed = trainer.train("b", run, tmp_path, cache, target)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert {path.name for path in (tmp_path / "b").iterdir()} == {*(f"quarter-{i}" for i in range(1, 5)), "state.pt"}


def _stop_at(last: int, after_step):  # type: ignore[no-untyped-def]
    def stopped(self, network, step: int) -> None:  # type: ignore[no-untyped-def]
        if step == last:
            raise KeyboardInterrupt
        after_step(self, network, step)

    return stopped


def test_every_run_of_the_benchmark_is_described_in_full() -> None:
    runs = trainer.read_runs(ROOT / "scripts" / "uda" / "bench.yaml")
    for name, run in runs.items():
        assert run["strategy"] in STRATEGIES and set(run["sources"]) <= set(STYLES), name
        assert run["network"]["kind"] in trainer.NETWORKS and run.get("start", name) in runs, name
        View(**run["view"])
