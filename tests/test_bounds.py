"""Sizes that a file or an option claims are checked before anything is made of that size."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import calls
import numpy as np
import pytest
from conftest import Run
from manifests import write

import hf_lwmm
from hf_lwmm.errors import CheckpointError, MergeError, PlanError


@pytest.mark.parametrize(
    "shape",
    [[2] * 65, [0, 1 << 40, 1 << 40], [1 << 62], [1 << 5000], [0] + [1 << 62] * 3],
    ids=["many dimensions", "empty and huge", "huge", "endless", "empty and endless"],
)
def test_shapes_that_no_file_has_room_for_are_refused(shape: list[int], tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="a shape that no file has room for"):
        hf_lwmm.inspect(path)


@pytest.mark.parametrize("size", ["0", "0.0001KB", "-1", "9" * 400, "1e5", "99999999TB", "5 PB", "x"])
def test_a_shard_size_of_no_meaning_is_refused(size: str, run: Run) -> None:
    code, _, err = run("merge", "org/a", "org/b", f"--max-shard-size={size}")
    assert code in (1, 2) and "Traceback" not in err and len(err) < 500
    with pytest.raises(PlanError, match="write a size such as"):
        hf_lwmm.WriteOptions(max_shard_size=size)


def test_more_shards_than_files_may_be_open_are_refused(tmp_path: Path) -> None:
    arrays = {f"block.{i}.weight": np.ones(4, np.float32) for i in range(501)}
    paths = [write(tmp_path / f"{name}.safetensors", arrays) for name in "ab"]
    with pytest.raises(MergeError, match="would make 501 files, more than 500"):
        calls.merge(paths, output=tmp_path / "out", max_shard_size=1)
    assert not (tmp_path / "out").exists()
