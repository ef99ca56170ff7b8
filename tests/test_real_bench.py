"""The bench of real fine-tunes: films and runs of frames, training that resumes, and its page."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import hf_lwmm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hf_lwmm.demo.streets import CLASSES
from scripts.networks.espnetv2 import CAMVID, OUTPUTS, s10_camvid
from scripts.uda.real import cells, document, train
from scripts.uda.real.cells import Candidate, pair
from scripts.uda.real.films import blocks, part, read_split

SIZE = (48, 32)  # width, height


def split(folder: Path, frames: dict[str, int]) -> Path:
    """Write a split with some frames of each film."""
    draw = np.random.default_rng(0)
    for film, count in frames.items():
        for number in range(count):
            for name, shape, top in (("images", (SIZE[1], SIZE[0], 3), 256), ("labels", SIZE[::-1], len(CLASSES) + 1)):
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(draw.integers(0, top, shape, np.uint8)).save(folder / name / f"{film}_{number:03}.png")
    return folder


def as_large_as_they_are(config: Any, classes: Any) -> torch.nn.Module:
    """The network of the bench, which sees small pictures as they are."""
    return s10_camvid(config, classes)


as_large_as_they_are.description = replace(CAMVID, size=None)  # type: ignore[attr-defined]


@pytest.fixture
def start(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(s10_camvid({}, OUTPUTS).state_dict(), tmp_path / "start.pth")
    return tmp_path / "start.pth"


def test_blocks_are_runs_of_one_film() -> None:
    assert blocks(["a"] * 5 + ["b"] * 2 + ["a"], 2).tolist() == [0, 0, 1, 1, 2, 3, 3, 4]


def test_parts_of_a_film_are_its_frames_in_order(tmp_path: Path) -> None:
    film = read_split(split(tmp_path / "train", {"0001TP": 3, "0016E5": 5}))
    assert film.films == ("0001TP",) * 3 + ("0016E5",) * 5 and film.labels.max() == 255
    first, second = (part(film, train.SETTINGS["data"][name]) for name in ("first-half", "second-half"))
    assert first.names + second.names == film.names[3:] and len(part(film, {})) == 8
    np.testing.assert_array_equal(first.images, film.images[3 : 3 + len(first)])


def test_an_interrupted_run_ends_with_the_same_weights(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = read_split(split(tmp_path / "train", {"0001TP": 4}))
    settings = {**train.SETTINGS, "batch": 2, "steps": [1, 2]}
    monkeypatch.setattr(train, "SAVE_EVERY", 1)
    for folder, stops in (("once", [2]), ("twice", [1, 2])):
        for until in stops:
            train.train("film-a/updated/1", settings, start, tmp_path / folder, film, until)
    once, twice = (load_file(train.checkpoint(tmp_path / f, "film-a/updated/1", 2)) for f in ("once", "twice"))
    assert all((once[name] == twice[name]).all() for name in once)
    before = load_file(train.checkpoint(tmp_path / "once", "film-a/updated/1", 1))
    assert (once["base_net.level1.bn.running_mean"] != before["base_net.level1.bn.running_mean"]).any()
    train.train("film-a/frozen/1", settings, start, tmp_path / "once", film, 1)
    frozen = load_file(train.checkpoint(tmp_path / "once", "film-a/frozen/1", 1))
    published = torch.load(start, weights_only=True)
    changed = {name for name, values in frozen.items() if not np.array_equal(values, published[name].numpy())}
    assert "bu_dec_l4.merge_layer.3.weight" in changed and not any("running" in name for name in changed)


def test_counts_of_merges_are_kept_by_run_of_frames(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camvid, out = tmp_path / "camvid", tmp_path / "out"
    split(camvid / "val", {"0016E5": 1})
    split(camvid / "test", {"0001TP": 1, "Seq05VD": 1})
    monkeypatch.setitem(train.SETTINGS, "block", 1)
    monkeypatch.setattr(cells, "OWN", hf_lwmm.NetworkOptions(network=as_large_as_they_are))
    for model in pair("different films", 1):
        data, seed = model.split("/")
        torch.manual_seed(len(data) + ord(data[-1]))
        path = train.checkpoint(out, f"{data}/frozen/{seed}", 45)
        path.parent.mkdir(parents=True)
        train.save_file(s10_camvid({}, OUTPUTS).state_dict(), path)
    scorer = cells.Scorer(start, out, camvid, "frozen", 45)
    wanted = cells.candidates(["different films"], 1, ["ensemble"])[2:]
    wanted.append(Candidate(pair("different films", 1), "isotropic"))
    scorer.score(wanted)
    cells.collect(scorer, tmp_path / "results")
    found = json.loads((tmp_path / "results" / "frozen-45.json").read_text())
    assert found["blocks"] == {"test": ["0001TP", "Seq05VD"], "val": ["0016E5"]}
    assert set(found["counts"]) == {each.name for each in wanted}
    labels = read_split(camvid / "test").labels
    for counts in found["counts"].values():
        hits_and_misses = np.asarray(counts["test"])[..., [0, 2]].sum((1, 2))
        assert hits_and_misses.tolist() == [int((label < 11).sum()) for label in labels]
    images = hf_lwmm.ImageSource(str(camvid), split="test", ids="camvid")
    report = hf_lwmm.evaluate([scorer.path("film-a/1")], images, network=cells.OWN)
    assert report is not None
    np.testing.assert_array_equal(report.counts[0], found["counts"]["film-a/1"]["test"])


def fabricated(bn: str, steps: int, hits: dict[str, int]) -> document.Cell:
    """A cell in which every class of every run of frames has 100 pixels, and a candidate hits some of them."""
    films = {"test": ["0001TP", "Seq05VD", "Seq05VD"], "val": ["0016E5"]}
    counts: dict[str, Any] = {
        name: {s: [[[h, 0, 100 - h]] * len(CLASSES)] * len(own) for s, own in films.items()} for name, h in hits.items()
    }
    return document.Cell(bn, steps, films, counts, {})


def test_the_page_compares_with_the_best_parent_and_says_what_was_not_run() -> None:
    models = pair("different films", 1)
    hits = {"start": 40, models[0]: 50, models[1]: 52, "all/1": 53, Candidate(models, "isotropic").name: 54}
    hits[Candidate(models, "layerwise").name] = 51
    text = document.document([fabricated("frozen", 45, hits)])
    assert "| frozen | 45 | mixed | isotropic | **+2.0 (+2.0 to +2.0)** |  |  | +2.0 | +1.0 | +14.0 |" in text
    assert "| frozen | 45 | new | layerwise | -1.0 (-1.0 to -1.0) |  |  | -1.0 | -2.0 | +11.0 |" in text
    # Isotropic above the best parent, and clearly so; the same of layerwise and wise; isotropic at least layerwise, and
    # hardly below joint training.
    row = "| 1 of 1 | 1 of 1 | 0 of 1 | 0 of 1 |  |  | 1 of 1 | 1 of 1 |"
    assert f"| different films | frozen | new {row}" in text and f"| different films | frozen | known {row}" in text
    assert "| frozen | 45 | 1 | isotropic | **+2.0 (+2.0 to +2.0)** |" in text
    assert "| different films | frozen | 45 | ties | 1, 2, 3 |" in text
    assert "| different films | frozen | 45 | isotropic | 2, 3 |" in text
