"""What merges gain over the best parent: blocks of films, and the rows of the real bench."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import tree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.uda import document, gains, real_gains  # noqa: E402
from scripts.uda.candidates import Scored  # noqa: E402


def counts(seed: int, blocks: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, (blocks, 5, 3))


def test_frames_of_a_film_are_resampled_in_blocks() -> None:
    films = [Scored(np.repeat(counts(seed), 4, axis=0), runs=range(0, 24, 4)) for seed in (1, 2)]
    gain = films[0].gain(films[1])
    assert gain == pytest.approx(Scored(counts(1)).gain(Scored(counts(2))))  # four frames alike say no more than one
    low, high = Scored(films[0].counts).gain(Scored(films[1].counts))[1:]
    assert high - low < gain[2] - gain[1]


def test_no_run_has_frames_of_two_films(tmp_path: Path) -> None:
    for split, films in (("val", {"a": 21}), ("test", {"a": 62, "b": 30})):
        for film, count in films.items():
            tree(tmp_path / split, 1)
            for kind in ("images", "labels"):
                picture = tmp_path / split / kind / "0.png"
                for frame in range(count):
                    shutil.copy(picture, picture.with_name(f"{film}_{frame:05}.png"))
        for kind in ("images", "labels"):
            (tmp_path / split / kind / "0.png").unlink()
    # Of every second frame of one film, five make a run; of every fourth of two films with 16 and 7, three.
    assert document.runs_of_films(tmp_path) == {"camvid": [0, 5, 10], "camvid test": [0, 3, 6, 9, 12, 15, 16, 19, 22]}


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A cell of the real bench: two films, one merge of them, and the start, which is no pair."""
    names = ("start", "film-a/1", "film-b/1", "isotropic: film-a/1, film-b/1", "ensemble: film-a/1, film-b/1")
    films = ["0001TP"] * 2 + ["Seq05VD"] * 4
    cell = {
        "bn": "frozen", "steps": 45, "blocks": {"test": films},
        "counts": {name: {"test": counts(index).tolist()} for index, name in enumerate(names)},
        "distances": {"different films, seed 1": {"cosine": 0.99, "relative L2": 0.1, "cosine of changes": 0.2}},
    }  # fmt: skip
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "frozen-45.json").write_text(json.dumps(cell))
    return tmp_path


def test_rows_of_the_real_bench_are_gains_over_the_better_film(real: Path) -> None:
    rows = [gains.Gain(**row) for row in real_gains.rows(real / "real")]
    assert {row.method for row in rows} == {"isotropic", "ensemble"}
    assert {row.target for row in rows} == {"mixed", "new", gains.OWN} and {row.models for row in rows} == {
        ("film-a/1", "film-b/1")
    }
    new = next(row for row in rows if (row.method, row.target) == ("isotropic", "new"))
    parents = [Scored(counts(index)[2:]).mean for index in (1, 2)]
    assert new.gain == pytest.approx(Scored(counts(3)[2:]).mean - max(parents))
    assert new.gap == pytest.approx(abs(parents[0] - parents[1]))
    assert (new.overlap, new.steps, new.frozen, new.agreement) == (0, 45, True, 0.2)
    assert new.cosine == pytest.approx(0.01)


def test_gains_are_drawn_over_every_predictor(real: Path) -> None:
    rows = [gains.Gain(**row) for row in real_gains.rows(real / "real")]
    gains.draw(rows, real / "gains.png")
    assert (real / "gains.png").stat().st_size > 10_000
