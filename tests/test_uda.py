"""The benchmark's document, from tiny runs to its tables and figures."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm.evaluation.inference import classify, predict_logits
from hf_lwmm.metrics.semantic import iou
from hf_lwmm.plots import style

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from hf_lwmm.demo.streets import CLASSES, IGNORE, THINGS  # noqa: E402
from scripts.uda import cells, figures, objects, specialists, tables  # noqa: E402
from scripts.uda import train as trainer  # noqa: E402
from scripts.uda.candidates import Bench, Candidate, Scored, panoptic_means  # noqa: E402
from scripts.uda.cells import NEW, STYLES  # noqa: E402
from scripts.uda.data import Frames, joined, rendered  # noqa: E402
from scripts.uda.document import document as whole_document  # noqa: E402

SEEDS = (1, 2)
SIZE = (96, 64)  # width, height
MIT = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "depths": [1, 1, 1, 1],
       "mlp_ratios": [1, 1, 1, 1], "embedding_size": 8, "decoder_hidden_size": 8}  # fmt: skip
WINDOWS = {"attention_hidden_size": 8, "detail_crop_size": [32, 32], "detail_crop_stride": [32, 32]}
FADA, SEED = "cnn-gta-fada/4", "cnn-gta-fada@2/4"


def small_bench() -> dict[str, Any]:
    """The benchmark's own description, its networks and runs made tiny."""
    bench = yaml.safe_load((ROOT / "scripts" / "uda" / "bench.yaml").read_text())
    bench["networks"]["deeplab"]["depths"] = [1, 1, 1, 1]
    bench["networks"]["segformer"] |= {key: MIT[key] for key in MIT if key != "embedding_size"}
    for network in ("daformer", "hrda", "edaps"):
        bench["networks"][network] |= MIT | (WINDOWS if network == "hrda" else {})
    bench["networks"]["edaps"] |= {"fpn_hidden_size": 8, "box_hidden_size": 16, "mask_hidden_size": 8, "max_boxes": 5}
    bench["networks"]["edaps"] |= {"proposals_per_level": 10, "max_proposals": 10}
    for name, run in bench["runs"].items():
        run |= {"steps": 4, "target": "folder", "view": {"size": [64, 64]}, "frozen": name == "cnn-night-minent"}
    bench["defaults"] |= {"frames": 2, "batch": 2, "rate": 1.0}
    return bench


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("uda")


@pytest.fixture(scope="module")
def data(root: Path) -> Mapping[str, Frames]:
    def frames(*styles: str, first: int = 50) -> Frames:
        return joined([rendered(root / "cache", style, first, 4 // len(styles), SIZE) for style in styles])

    return {
        "mixed": frames(*STYLES), "mixed test": frames(*STYLES, first=60),
        "new": frames(*NEW), "new test": frames(*NEW, first=60),
        "source": frames("synthia"), "night": frames("night"),
    }  # fmt: skip


def write_split(folder: Path, frames: Frames) -> Path:
    """A split as `folder_of_images` and `evaluate` read it."""
    assert frames.labels is not None
    for part, maps in (("images", frames.images), ("labels", frames.labels)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for index, array in enumerate(maps):
            Image.fromarray(np.asarray(array)).save(folder / part / f"{index}.png")
    return folder


TRAINED = ("cnn", "cnn-gta-fada", "cnn-gta-fada@2", "cnn-night-minent",
           "mit", "daformer-night", "mic-synthia", "edaps-gta")  # fmt: skip
OF_DOCUMENTS = ("cnn-night-minent@2", "hrda-gta", "pipa-night",
                "segformer", "segformer-gta", "segformer-night", "segformer-gta@2", "segformer-night@2")  # fmt: skip
CROPS = ("source", "consistency")


@pytest.fixture(scope="module")
def crops(data: Mapping[str, Frames]) -> Frames:
    return objects.object_crops(data["night"], 3)


def train(root: Path, runs: tuple[str, ...]) -> None:
    where = {"--target": "target", "--out": "out", "--cache": "cache", "--bench": "bench.yaml"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *runs, *(f"{key}={root / name}" for key, name in where.items())])
        trainer.main()


@pytest.fixture(scope="module")
def out(root: Path, data: Mapping[str, Frames], crops: Frames) -> Path:
    """Runs as the trainers leave them."""
    write_split(root / "target" / "train", data["night"])
    (root / "bench.yaml").write_text(yaml.safe_dump(small_bench()))
    train(root, TRAINED)
    for strategy in CROPS:
        objects.train(objects.build(), crops, 4, 1, strategy, root / "out" / f"objects-{strategy}@1")
    return root / "out"


@pytest.fixture(scope="module")
def bench(out: Path, data: Mapping[str, Frames], crops: Frames) -> Bench:
    return Bench(
        out,
        {
            name: partial(_same, frames)
            for name, frames in (*data.items(), ("objects", crops), ("source objects", crops))
        },
        SEEDS,
    )


def _same(frames: Frames) -> Frames:
    return frames


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """Fewer points on the curves, coarse pictures, and none beside each merge."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hf_lwmm.api.merge.find_spec", lambda name: None)
        for name, values in (("STARTS", (0.0, 0.5)), ("ALPHAS", (0.5, 1.0))):
            patch.setattr(figures, name, values)
        patch.setattr(style, "DPI", 40)
        patch.delitem(cells.TARGETS, "camvid")
        patch.setattr(specialists, "COLUMNS", (*STYLES, *NEW, *cells.TARGETS))
        yield


@pytest.fixture(scope="module")
def document(bench: Bench, root: Path) -> str:
    train(root, OF_DOCUMENTS)
    return whole_document(bench, root / "first" / "pictures", test=True)


def sections(text: str) -> dict[str, str]:
    """The text under each title; tables that are shown for several targets have one title."""
    parts, found = re.split(r"^#{2,3} (.*)$", text, flags=re.MULTILINE), {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        found[title] = found.get(title, "") + body
    return found


def absent(text: str) -> set[str]:
    """The runs that a text says are not trained."""
    return {
        run for line in re.findall(r"^Not trained: (.*)$", text, re.MULTILINE) for run in re.findall("`(.*?)`", line)
    }


@pytest.mark.slow
def test_a_document_has_every_table_and_figure_and_names_what_is_missing(document: str, root: Path) -> None:
    found = sections(document)
    for title in ("Table 2", "Table 3", "Table 4a", "Table 4b", "Table 5", "Table 6", "Table 9", "Seeds", "Figure 2",
                  "Figure 3", "Figure 5", "Specialists", "What predicts a gain", "On the test frames",
                  "Table 2 on test frames: new"):  # fmt: skip
        text = next((text for name, text in found.items() if name.startswith(title)), "")
        assert "\n| --- |" in text, title
    for table in re.findall(r"(?:^\|.*\n)+", document, re.MULTILINE):
        assert len({line.count(" | ") for line in table.splitlines()}) == 1 and table.count("\n") > 2, table
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", document)
    assert len(pictures) == len(set(pictures)) > 10
    written = {path.name for path in (root / "first" / "pictures").iterdir()}
    assert {f"pictures/{name}" for name in written - {"gains.json"}} == set(pictures) and "gains.json" in written
    assert str(root) not in document and "nan" not in document
    assert not absent(document) & {*TRAINED, *OF_DOCUMENTS}
    assert absent(found["The runs"]) >= {"cnn-synthia-advent", "cnn-all", "daformer-all"}
    assert absent(found["Figure 3: checkpoints of one run"]) == set()
    assert "hrda-gta@2" in absent(found["Table 4b: other heads"])
    assert "objects-information@1" in absent(found["Table 9: other tasks"])
    assert absent(found["Figure 2: where models differ"]) == set()
    claims = re.findall(r"^Claim: (.*): (\*\*\d+ of \d+\*\*)$", document, re.MULTILINE)
    assert len(claims) > 10
    for text, cases in claims:
        assert re.search(rf" \| {re.escape(text)} \|.*{re.escape(cases)}", found["What holds here"])


@pytest.mark.slow
def test_mean_and_spread_are_of_seeds_and_gains_within_them(bench: Bench, document: str) -> None:
    own, merged = [], []
    for run in ("cnn-night-minent", "cnn-night-minent@2"):
        own.append(bench.score(Candidate((f"{run}/4",)), "mixed").mean)
        merged.append(bench.score(Candidate((f"{run}/4", f"{run}/3"), "layerwise"), "mixed").mean)
    mean, spread = np.mean(own), abs(own[0] - own[1]) / math.sqrt(2)
    assert f"| cnn-night-minent | 1 (last) | {mean:.1f} ± {spread:.1f} |" in document
    gains = np.subtract(merged, own)
    mean, spread = gains.mean(), abs(gains[0] - gains[1]) / math.sqrt(2)
    assert cells.change(merged, own) == f"{mean:+.1f} ± {spread:.1f}"
    above = []
    for on in cells.TARGETS:
        single = bench.score(Candidate(("hrda-gta/4",)), on).mean
        both = bench.score(Candidate(("hrda-gta/4", "daformer-night/4"), "layerwise"), on).mean
        above.append(f"**{int(both > single)} of 1**")
    row = f"| Table 4b: other heads | layer-wise is above its anchor | {' | '.join(above)} |"
    assert row in sections(document)["What holds here"]
    assert cells.seeded("hrda-gta without sign+fence/4", 2) == "hrda-gta@2 without sign+fence/4"


def test_without_runs_a_document_names_them_all(tmp_path: Path) -> None:
    text = whole_document(Bench(tmp_path / "none", {}), tmp_path / "pictures", test=True)
    assert absent(text) >= {*tables.CNN, *tables.HRDA, "mic-synthia", "daformer-night", "edaps-gta"}
    assert "objects-source@1" in absent(text)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["gains.json"]


@pytest.mark.slow
def test_a_second_document_scores_nothing_again(document: str, out: Path, root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    forgetful = Bench(out, {}, SEEDS)  # has no image to score on
    assert whole_document(forgetful, root / "second" / "pictures", test=True) == document
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    for path in (root / "first" / "pictures").iterdir():
        assert path.read_bytes() == (root / "second" / "pictures" / path.name).read_bytes()


def test_remembered_scores_are_those_of_evaluate(bench: Bench, data: Mapping[str, Frames], tmp_path: Path) -> None:
    images, pair = write_split(tmp_path / "data", data["new"]), (FADA, SEED)
    for method in (None, "ensemble", "layerwise"):
        bench.score(Candidate(pair[:1] if method is None else pair, method), "new")
    remembered = Bench(bench.out, {}, SEEDS)
    folders = [bench.folder(model) for model in pair]
    hf_lwmm.merge(folders, output=tmp_path / "merged")
    models = hf_lwmm.evaluate(folders, images, evaluation=hf_lwmm.EvaluationSpec(ensemble=True))
    merge = hf_lwmm.evaluate([tmp_path / "merged"], images)
    assert models is not None and merge is not None
    for method, report in ((None, models.models[0]), ("ensemble", models.models[2]), ("layerwise", merge.models[0])):
        scored = remembered.score(Candidate(pair[:1] if method is None else pair, method), "new")
        assert scored.mean == pytest.approx(100 * report.mean, abs=1e-9)
        np.testing.assert_allclose(iou(scored.counts.sum(axis=0)), report.by_class)


def test_crops_are_scored_by_average_accuracy(bench: Bench, crops: Frames) -> None:
    assert crops.labels is not None
    model = f"objects-{CROPS[0]}@1/4"
    guesses = np.array(classify([bench.load(model)], [Image.fromarray(image) for image in crops.images]))
    by_hand = [(guesses[crops.labels == index] == index).mean() for index in np.unique(crops.labels)]
    scored = bench.score(Candidate((model,)), "objects", "classification")
    assert scored.mean == pytest.approx(100 * np.mean(by_hand))
    assert scored.counts.shape == (len(crops), len(objects.OBJECTS), 2)


def test_panoptic_networks_are_scored_by_panoptic_quality(bench: Bench, data: Mapping[str, Frames]) -> None:
    scored = bench.score(Candidate(("edaps-gta/4",)), "night", "panoptic")
    frames = data["night"]
    assert frames.labels is not None and frames.instances is not None
    assert scored.counts.shape == (len(frames), len(CLASSES), 4)
    for labels, instances, counts in zip(frames.labels, frames.instances, scored.counts, strict=True):
        shown = labels != IGNORE
        segments = np.unique(np.stack([labels[shown], instances[shown]]), axis=1)[0]
        assert (counts[:, 1] + counts[:, 3] == np.bincount(segments, minlength=len(CLASSES))).all()  # found or missed
    assert all(0 <= mean <= 100 for mean in panoptic_means(scored)) and panoptic_means(scored)[2] == scored.mean


def test_merges_with_several_anchors_differ_and_ensembles_from_both(bench: Bench) -> None:
    def counts(*models: str, method: str | None = None) -> np.ndarray:
        return bench.score(Candidate(models, method), "new").counts

    first, second = counts(FADA, SEED, method="layerwise"), counts(SEED, FADA, method="layerwise")
    both = counts(FADA, SEED, method="ensemble")
    for one, other in combinations((first, second, both, counts(FADA), counts(SEED)), 2):
        assert not np.array_equal(one, other)
    assert np.array_equal(both, counts(SEED, FADA, method="ensemble"))
    assert np.array_equal(counts(FADA, SEED, method="isotropic"), counts(SEED, FADA, method="isotropic"))


def test_several_models_need_a_method() -> None:
    for models, method in (((FADA, SEED), None), ((FADA,), "layerwise")):
        with pytest.raises(ValueError, match="method"):
            Candidate(models, method)


@pytest.mark.parametrize("run", ["mic-synthia", "daformer-night"])
def test_cut_classes_leaves_the_other_classes_logits(run: str, bench: Bench, data: Mapping[str, Frames]) -> None:
    whole, cut = bench.load(f"{run}/4"), bench.load(f"{run}{tables.UNLABELLED}/4")
    kept = [row for row, name in enumerate(CLASSES) if name not in ("sign", "fence")]
    assert cut.classes == tuple(CLASSES[row] for row in kept) and len(kept) == len(CLASSES) - 2
    pictures = [Image.fromarray(image) for image in data["new"].images]
    for before, after in zip(predict_logits(whole, pictures), predict_logits(cut, pictures), strict=True):
        torch.testing.assert_close(after.logits[0], before.logits[0][kept])


def test_object_crops_have_the_labels_object_in_their_centre() -> None:
    draw = np.random.default_rng(0)
    names = [CLASSES.index(name) for name in objects.OBJECTS]
    labels, instances = (np.zeros((8, 96, 128), np.uint8) for _ in range(2))
    for frame in range(8):
        for number, category in enumerate(draw.permutation(names)):
            height, width = draw.integers(objects.SMALLEST, 18, 2)
            top, left = 12 + 42 * (number // 3) + draw.integers(6), 8 + 40 * (number % 3) + draw.integers(8)
            labels[frame, top : top + height, left : left + width] = category
            instances[frame, top : top + height, left : left + width] = (number + 1) * (category in THINGS)
    shown = np.repeat((20 * labels + 10)[..., None], 3, axis=-1)
    crops = objects.object_crops(Frames(shown, labels, instances), 5)
    assert crops.labels is not None and crops.images.shape == (30, objects.SIDE, objects.SIDE, 3)
    assert np.bincount(crops.labels).tolist() == [5] * 6
    middle = objects.SIDE // 2
    for image, label in zip(crops.images, crops.labels, strict=True):
        assert (image[middle - 2 : middle + 2, middle - 2 : middle + 2] == 20 * names[label] + 10).all()
        assert (image[0] == 10).any()  # what is around it


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_gain_is_antisymmetric_and_its_interval_holds_the_difference(columns: int) -> None:
    for seed in range(3):
        draw = np.random.default_rng(seed)
        one, other = (draw.integers(1, 9, (12, 5, columns)).astype(np.float64) for _ in range(2))
        for counts in (one, other):
            if columns == 4:
                counts[..., 0] *= draw.uniform(0.5, 1)  # the matches' summed IoU
                counts[..., 1] = np.ceil(counts[..., 0])
        first, second = (Scored(c) for c in (one, other))
        gain, low, high = first.gain(second)
        assert gain == first.mean - second.mean and low <= gain <= high
        assert second.gain(first) == pytest.approx((-gain, -high, -low))
        assert first.gain(first) == (0, 0, 0)


@pytest.mark.slow
def test_a_gain_is_over_the_best_parent_and_comes_with_what_was_known(bench: Bench, document: str, root: Path) -> None:
    assert "What predicts a gain" in document
    rows = json.loads((root / "first" / "pictures" / "gains.json").read_text())
    pair = ["segformer-gta/4", "segformer-night/4"]
    found = {(row["target"], row["method"]): row for row in rows if row["models"] == pair}
    targets, methods = ("mixed", "new", "evening", "fog", "own"), ("isotropic", "layerwise")
    assert set(found) == {(on, method) for on in targets for method in methods}
    merge = bench.score(Candidate(tuple(pair), "isotropic"), "new").mean
    parents = [bench.score(Candidate((model,)), "new").mean for model in pair]
    row = found["new", "isotropic"]
    assert row["gain"] == pytest.approx(merge - max(parents), abs=0.001) and row["low"] <= row["gain"] <= row["high"]
    assert (row["overlap"], row["steps"], row["frozen"]) == (0, 600, True)  # as bench.yaml has it
    same = next(row for row in rows if row["models"] == ["segformer-gta/4", "segformer-gta@2/4"])
    assert same["overlap"] == 1
    states = [load_file(bench.folder(model) / "model.safetensors") for model in (*pair, "segformer/4")]
    names = [name for name, value in states[0].items() if value.dtype.kind == "f" and "running" not in name]
    a, b, start = (np.concatenate([state[name].ravel() for name in names]).astype(float) for state in states)
    assert row["relative"] == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a), rel=1e-3)
    alike = (a - start) @ (b - start) / np.linalg.norm(a - start) / np.linalg.norm(b - start)
    assert row["agreement"] == pytest.approx(alike, abs=1e-3)


def test_specialists_keep_the_statistics_of_their_start(bench: Bench) -> None:
    states = [load_file(bench.folder(f"{run}/4") / "model.safetensors") for run in ("cnn", "cnn-night-minent")]
    statistics = [name for name in states[0] if "running" in name]
    assert statistics and all(np.array_equal(states[0][name], states[1][name]) for name in statistics)
    assert any(not np.array_equal(states[0][name], states[1][name]) for name in states[0])
