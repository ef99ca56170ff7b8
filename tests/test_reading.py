"""Images are read ahead by threads, in order, and no more of them than is said."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import scene, segformer, tree

import hf_lwmm
from hf_lwmm.data.loading import open_images
from hf_lwmm.data.samples import LabelledImages, Sample
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.reading import SampleCache
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.sweeping import scorer


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return hf_lwmm.load(segformer(tmp_path_factory.mktemp("reading") / "a", 1))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    return open_images(tree(tmp_path_factory.mktemp("data") / "tree"))


class Counting:
    """A data set that notes which samples are read ahead, and by how many threads."""

    def __init__(self, images: LabelledImages, broken: int = -1) -> None:
        self.read: list[int] = []
        self.threads: set[str] = set()
        self._images, self._broken, self._lock = images, broken, threading.Lock()
        self.images = replace(images, read=self._read)

    def _read(self, index: int) -> Sample:
        thread = threading.current_thread()
        if thread is not threading.main_thread():  # which looks at some labels for the numbering of ids
            with self._lock:
                self.read.append(index)
                self.threads.add(thread.name)
            if index == self._broken:
                raise DatasetError(f"{index}.png: cannot be decoded")
        return self._images.read(index)


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_threads_gives_the_same_scores(
    workers: int, batch: int, loaded: LoadedModel, images: LabelledImages, tmp_path: Path
) -> None:
    counting = Counting(images)
    spec = EvaluationSpec(workers=workers, batch_size=batch)
    found = evaluate([loaded], counting.images, spec, partial=tmp_path / "a")
    plain = evaluate([loaded], images, replace(spec, workers=1), partial=tmp_path / "b")
    assert found is not None and plain is not None and np.array_equal(found.counts, plain.counts)
    assert sorted(counting.read) == list(range(images.count)) and len(counting.threads) <= workers


def test_a_stream_is_read_in_its_order(loaded: LoadedModel, images: LabelledImages, tmp_path: Path) -> None:
    counting = Counting(images)
    assert images.source is not None
    stream = replace(counting.images, source=replace(images.source, streaming=True))
    evaluate([loaded], stream, EvaluationSpec(workers=4), partial=tmp_path)
    assert counting.read == list(range(images.count)) and len(counting.threads) == 1


def test_a_broken_image_ends_the_run_with_its_name_and_what_came_before_is_kept(
    loaded: LoadedModel, images: LabelledImages, tmp_path: Path
) -> None:
    spec = EvaluationSpec(workers=3)
    with pytest.raises(DatasetError, match=r"3\.png: cannot be decoded"):
        evaluate([loaded], Counting(images, broken=3).images, spec, partial=tmp_path)
    again = Counting(images)
    assert evaluate([loaded], again.images, spec, partial=tmp_path) is not None
    assert sorted(again.read) == list(range(3, images.count))  # nothing is read twice


def test_samples_in_memory_are_not_read_again(loaded: LoadedModel, images: LabelledImages, tmp_path: Path) -> None:
    counting, cache = Counting(images), SampleCache(10**9)
    first = evaluate([loaded], counting.images, partial=tmp_path, cache=cache)
    again = evaluate([loaded], counting.images, partial=tmp_path, cache=cache)
    assert first is not None and again is not None and np.array_equal(first.counts, again.counts)
    assert sorted(counting.read) == list(range(images.count))
    # Another view takes other pixels, and so does another numbering of ids.
    evaluate([loaded], counting.images, EvaluationSpec(flip=True), partial=tmp_path, cache=cache)
    assert len(counting.read) == 2 * images.count


def test_a_cache_keeps_as_much_as_it_may(loaded: LoadedModel, images: LabelledImages, tmp_path: Path) -> None:
    counting = Counting(images)
    image, label = scene(0)
    cache = SampleCache(2 * (3 * 4 * image.width * image.height + label.nbytes) + 100)
    for _ in range(2):
        evaluate([loaded], counting.images, EvaluationSpec(workers=1), partial=tmp_path, cache=cache)
    assert sorted(counting.read) == sorted([*range(images.count), *range(2, images.count)])


def test_sizes_of_the_cache_are_checked() -> None:
    assert hf_lwmm.SweepRun(cache_images="2GB", jobs=2).cache_bytes == 10**9
    assert hf_lwmm.SweepRun(cache_images=0).cache_bytes == 0
    with pytest.raises(PlanError, match="--cache-images much: write a size"):
        hf_lwmm.SweepRun(cache_images="much")


def test_a_sweep_reads_images_once_and_scores_equal_merges_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, data = [segformer(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2))], tree(tmp_path / "data")
    images = open_images(data)
    counting, scored = Counting(images), []
    monkeypatch.setattr(scorer, "open_images", lambda *_, **__: counting.images)
    monkeypatch.setattr(scorer, "evaluate", lambda *args, **options: scored.append(1) or evaluate(*args, **options))
    axes = hf_lwmm.SweepAxes(ramp=("linear", "power:1"), anchors="all")  # two names of one ramp
    found = hf_lwmm.sweep(models, str(data), tmp_path / "sweep.parquet", axes=axes)
    assert sorted(counting.read) == list(range(images.count))
    assert len(found.rows) == 2 + 4 and len(scored) == 2 + 2
    assert len({row.score for row in found.rows}) == 4
