"""Paths of the machine on which a model was trained are not published with what is made of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from calls import merge

import hf_lwmm
from hf_lwmm.checkpoints.companions import without_local_paths

HOME = "/home/somebody/secret-project"
LEAKS: dict[str, Any] = {
    "_name_or_path": f"{HOME}/run",
    "pretrained": f"{HOME}/mit_b5.pth",
    "init_cfg": {"type": "Pretrained", "checkpoint": f"{HOME}/mit_b5.pth"},
    "backbone_config": {"_name_or_path": f"{HOME}/mit", "model_type": "segformer"},
    "sources": [f"file://{HOME}/a.json", {"text_config": {"_name_or_path": "C:\\Users\\somebody\\b"}}],
    "base_model": "D:\\somebody\\base",
}


@pytest.fixture
def anchor(models: list[Path], tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(models[0], tmp_path / "anchor"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **LEAKS}))
    processor = {"image_processor_type": "SegformerImageProcessor", "do_resize": False, **LEAKS}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    nested = {"image_processor": processor, "processor_class": "Own", **LEAKS}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    return folder


@pytest.mark.parametrize("how", ["merge", "export"])
def test_no_path_leaves_the_machine(how: str, anchor: Path, models: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "out"
    if how == "merge":
        merge([anchor, models[1]], output=output)
    else:
        hf_lwmm.export(anchor, output)
    files = [path for path in output.rglob("*") if path.suffix in (".json", ".yaml", ".md", ".safetensors")]
    assert len(files) >= 4
    for path in files:
        assert b"somebody" not in path.read_bytes() and str(tmp_path).encode() not in path.read_bytes(), path.name
    assert json.loads((output / "config.json").read_text())["init_cfg"]["checkpoint"] == "mit_b5.pth"
    assert hf_lwmm.load(output).classes == hf_lwmm.load(models[0]).classes


@pytest.mark.parametrize(
    "text", ["org/name", "https://a.org/b/c", "/", "//", "/s", "a/b/c.pth", "", "1/2", "road / path"]
)
def test_what_is_no_path_stays(text: str) -> None:
    content = {"name": text, "id2label": {"0": "/m/01g317"}, "count": [1, None, True, 0.5]}
    assert without_local_paths(content) == content
