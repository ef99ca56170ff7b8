"""Merging: the files that it writes and reads, and what a run that fails leaves."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import calls
import numpy as np
import pytest
from huggingface_hub import HfApi
from manifests import stored, write
from merged import merged, tiny, write_header
from safetensors.numpy import load_file, save

from hf_lwmm.engine.streaming import write_merged
from hf_lwmm.errors import CheckpointError, MergeError
from hf_lwmm.files.scratch import tidy
from hf_lwmm.localhub import LocalHub


def test_key_order_in_a_file_changes_nothing(tmp_path: Path) -> None:
    import torch

    results = []
    for reverse in (False, True):
        paths = []
        for seed in (1, 2):
            state = {n: torch.from_numpy(a) for n, a in sorted(tiny(seed).items(), reverse=reverse)}
            paths.append(tmp_path / f"{seed}{reverse}.pth")
            torch.save(state, paths[-1])
        calls.merge(paths, output=tmp_path / f"out{reverse}")
        results.append((tmp_path / f"out{reverse}" / "model.safetensors").read_bytes())
    assert results[0] == results[1]


def test_the_file_is_what_safetensors_would_write(tmp_path: Path) -> None:
    arrays = merged(tmp_path, tiny(1), tiny(2))
    written = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert written == save(arrays, metadata={"format": "pt"})


def test_large_outputs_are_sharded_as_transformers_reads_them(tmp_path: Path) -> None:
    whole = merged(tmp_path, tiny(1), tiny(2))
    paths = [tmp_path / "model0.safetensors", tmp_path / "model1.safetensors"]
    calls.merge(paths, output=tmp_path / "sharded", max_shard_size=700)
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == whole.keys() and len(set(index["weight_map"].values())) > 2
    for name, file in index["weight_map"].items():
        assert np.array_equal(load_file(tmp_path / "sharded" / file)[name], whole[name])
    again = calls.merge([tmp_path / "sharded", tmp_path / "out"], output=tmp_path / "again")
    assert all(np.array_equal(a, whole[n]) for n, a in load_file(again.folder / "model.safetensors").items())


def test_an_existing_folder_is_never_touched_unasked(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(MergeError, match="exists already"):
        calls.merge(paths, output=tmp_path / "out")
    with pytest.raises(MergeError, match=r"holds mine\.txt, which is no part of a model"):
        calls.merge(paths, output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "out" / "mine.txt").unlink()
    card = "---\ntags: [hf-lwmm]\n---\n"
    (tmp_path / "out" / "README.md").write_text(card)
    broken = tiny(1)
    broken["block.1.conv.weight"].flat[0] = np.nan
    bad = write(tmp_path / "bad.safetensors", broken)
    with pytest.raises(MergeError, match="not finite"):
        calls.merge([paths[0], bad], output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "README.md").read_text() == card
    calls.merge(paths, output=tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "README.md").read_text() != card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors", "bad.safetensors", "out"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", stored("nvlabs_segformer_b0", i)) for i in (1, 2)]
    code = textwrap.dedent(
        f"""
        import resource, signal, sys
        import hf_lwmm
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
        try:
            hf_lwmm.merge({[str(p) for p in paths]}, output={str(tmp_path / "out")!r})
        except hf_lwmm.HfLwmmError as error:
            print(error)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "Could not write the weights" in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.safetensors", "2.safetensors"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1_000_000


@pytest.mark.parametrize("moment", [".hf-lwmm-*", ".hf-lwmm-*/new/out/model.safetensors"])
def test_ctrl_c_leaves_nothing_behind(moment: str, tmp_path: Path) -> None:
    paths = [write_header(tmp_path / f"{i}.safetensors", "nvlabs_segformer_b5") for i in (1, 2)]
    command = [sys.executable, "-m", "hf_lwmm", "merge", *map(str, paths), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob(moment)):
        time.sleep(0.002)  # the writing takes a hundred times as long
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors and process.returncode in (0, 130), errors
    assert (tmp_path / "out").exists() == (process.returncode == 0)
    tidy(tmp_path)  # as the next run does, where a busy machine was too slow to do it in time
    left = sorted(path.name for path in tmp_path.iterdir() if path.name != "out")
    assert left == ["1.safetensors", "2.safetensors"]


def test_a_merge_of_local_files_imports_no_torch_no_hub_client_and_no_pydantic(tmp_path: Path) -> None:
    paths = [str(write(tmp_path / f"{i}.safetensors", tiny(i))) for i in (1, 2)]
    code = (
        f"import sys, hf_lwmm; hf_lwmm.merge({paths}, output={str(tmp_path / 'out')!r}); "
        "print([name for name in ('torch', 'huggingface_hub', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_recipe_names_no_path_of_this_machine(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    calls.merge(paths, output=tmp_path / "out")
    for file in ("README.md", "hf_lwmm.yaml"):
        assert str(tmp_path) not in (tmp_path / "out" / file).read_text()


def test_merging_twice_gives_the_same_bytes_everywhere(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    contents = []
    for run in ("a", "b"):
        calls.merge(paths, output=tmp_path / run / "out")
        files = sorted(p for p in (tmp_path / run / "out").rglob("*") if p.is_file())
        contents.append({p.name: p.read_bytes() for p in files})
    assert contents[0] == contents[1] and "layer_weights.png" in contents[0]


def test_plans_and_results_show_themselves_in_notebooks(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    plan = calls.plan(paths)
    assert "16 depth positions" in plan._repr_markdown_() and "at 16 depth positions>" in repr(plan)
    result = calls.merge(paths, output=tmp_path / "out")
    assert result._repr_markdown_().strip().startswith("# out")
    assert f"]({(tmp_path / 'out').as_posix()}/plots/layer_weights.png)" in result._repr_markdown_()
    assert len(repr(result)) < 600


def test_what_is_closed_cannot_be_read(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.safetensors", tiny(i)) for i in (1, 2)]
    decided = calls.plan(paths)
    result = calls.merge(paths, output=tmp_path / "out")
    for name, plan in (("decided", decided), ("merged", result.plan)):
        # Files that are opened now take the numbers of the descriptors that were closed.
        with contextlib.ExitStack() as others:
            for _ in range(8):
                others.enter_context((tmp_path / "1.safetensors").open("rb"))
            for checkpoint in plan.checkpoints:
                with pytest.raises(CheckpointError, match="was closed"):
                    checkpoint.slot_values("classifier.weight")
            (tmp_path / name).mkdir()
            with pytest.raises(CheckpointError, match="was closed"):
                write_merged(plan, tmp_path / name)


def test_a_torch_file_that_is_closed_cannot_be_read(tmp_path: Path) -> None:
    import torch

    torch.save({name: torch.from_numpy(array) for name, array in tiny(1).items()}, tmp_path / "1.pth")
    path = write(tmp_path / "2.safetensors", tiny(2))
    decided = calls.plan([tmp_path / "1.pth", path])
    with pytest.raises(CheckpointError, match="was closed"):
        decided.checkpoints[0].slot_values("classifier.weight")


def test_a_plan_of_remote_models_has_no_values(hub: LocalHub, api: HfApi, tmp_path: Path) -> None:
    api.create_repo("org/headers", exist_ok=True)
    api.upload_file(
        path_or_fileobj=write(tmp_path / "m.safetensors", tiny(1)),
        path_in_repo="model.safetensors",
        repo_id="org/headers",
    )
    decided = calls.plan(["org/headers", tmp_path / "m.safetensors"])
    with pytest.raises(CheckpointError, match="was closed"):
        decided.checkpoints[0].slot_values("classifier.weight")
