"""Documents that anybody may have written, with faults: named in one line, never a traceback, and nothing is lost."""

from __future__ import annotations

import ast
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from huggingface_hub import HfApi
from safetensors.numpy import save_file
from tiny import scene

import hf_lwmm
from hf_lwmm import DatasetError, PlanError
from hf_lwmm.labels import read_label_set

PACKAGE = Path(hf_lwmm.__file__).parent
READERS = {
    *(("json", name) for name in ("load", "loads", "JSONDecoder")),
    *(("yaml", f"{safe}load{every}") for safe in ("", "safe_", "full_", "unsafe_") for every in ("", "_all")),
    *((f"{kind}Card", "load") for kind in ("Model", "Repo", "Dataset")),
}


def test_one_module_reads_json_and_yaml() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found |= {path.relative_to(PACKAGE).as_posix()} if (node.value.id, node.attr) in READERS else set()
    assert set(found) == {"files/documents.py"}


# Cards


def with_card(folder: Path, model: Path, text: str | bytes) -> Path:
    shutil.copytree(model, folder)
    (folder / "README.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.mark.parametrize(
    ("card", "note"),
    [
        ("---\nlicense: mit\ntags: [x\n---\n", "is not valid YAML"),
        ("---\nlicense: mit\nlicense: gpl\n---\n", "'license' occurs twice"),
        ("---\na: &x [1]\nlicense: *x\n---\n", "alias"),
        ("---\n" + "[" * 5000 + "\n---\n", "more than 100 levels"),
        ("---\n- mit\n---\n", "must hold names and values, not ['mit']"),
        ("---\nlicense: 2.0\n---\n", "license is 2.0, not a text or a list of texts"),
        ("---\nlicense: no\n---\n", "license is False"),
        ("---\nlicense: [{name: mit}]\n---\n", "license is [{'name': 'mit'}]"),
        ("---\nlicense: other\nlicense_name: [a]\n---\n", "license_name is ['a'], not a text"),
        ("---\nlicense: other\nlicense_link: {a: b}\n---\n", "license_link is {'a': 'b'}"),
        ("---\nlicense: mit\ndatasets: {a: [b]}\n---\n", "datasets is {'a': ['b']}"),
        ("---\nlicense: mit\ndatasets: [[a]]\n---\n", "datasets is [['a']]"),
        ("---\nlicense: mit\npipeline_tag: [a]\n---\n", "pipeline_tag is ['a']"),
        (b"---\nlicense: \xff\n---\n", "is not UTF-8"),
    ],
)
def test_what_a_card_says_wrongly_is_noted_and_counts_as_not_stated(
    card: str | bytes, note: str, models: list[Path], tmp_path: Path, run: Run
) -> None:
    odd = with_card(tmp_path / "odd", models[0], card)
    for command in (
        ("inspect", odd),
        ("plan", odd, models[1]),
        ("merge", odd, models[1], "--output", "out"),
    ):
        code, _, err = run(*command)
        assert code == 0 and any(line.startswith("odd, README.md: ") for line in err.splitlines()) and note in err, err
    assert Path("out/README.md").is_file()


def test_a_card_that_is_right_has_no_notes(models: list[Path], tmp_path: Path) -> None:
    for number, (text, licence) in enumerate(
        (
            ("---\r\nlicense: mit\r\ndatasets: [a/b]\r\n---\r\n# Title\n---\nlicense: gpl\n---\n", "mit"),
            ("\ufeff---\nlicense: [mit, apache-2.0]\ndatasets: a/b\n---", "mit, apache-2.0"),
            ("---\n---\n", None),
            ("# Nothing\n\n---\nlicense: mit\n---\n", None),
            ("", None),
        )
    ):
        info = hf_lwmm.inspect(with_card(tmp_path / str(number), models[0], text))
        assert info.notes == () and info.license == licence, text


def test_a_card_on_the_hub_is_checked_alike(models: list[Path], tmp_path: Path, api: HfApi) -> None:
    repo = api.create_repo("local/odd-card").repo_id
    api.upload_folder(repo_id=repo, folder_path=with_card(tmp_path / "odd", models[0], "---\nlicense: 2.0\n---\n"))
    [note] = hf_lwmm.inspect(repo).notes
    assert "README.md: license is 2.0, not a text or a list of texts, and counts as not stated" in note


# Headers


@pytest.mark.parametrize(
    ("header", "fault"),
    [
        (
            b'{"__metadata__":[1],"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            "__metadata__ must hold texts",
        ),
        (b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', "surrogates"),
        (b'{"a":[]}', "corrupt safetensors header"),
        (b"[" * 100_000, "more than 100 levels"),
        (b"[]", "must hold names and values"),
    ],
)
def test_odd_headers_are_one_line(header: bytes, fault: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    for command in (("inspect", "x.safetensors"), ("merge", "x.safetensors", "x.safetensors", "--output", "out")):
        code, _, err = run(*command)
        assert code == 1 and err.startswith("Error: x.safetensors: corrupt") and fault in err and err.count("\n") == 1


# Recipes


@pytest.mark.parametrize(
    "text",
    [
        "max_shard_size: abc",
        "max_shard_size: .inf",
        "max_shard_size: [1]",
        "max_shard_size: 0",
        "format: 0",
        "statistics: 5",
        "measurements: 5",
        "output: [1]",
        "output: {a: 1}",
        "knobs: {ramp: null}",
        "knobs: {keep: [1]}",
        "knobs: {options: x}",
        "knobs: {branch: [student]}",
        "knobs: []",
        "hf_lwmm: 0.1.0\nknobs: x",
        "hf_lwmm: 0.1.0\nknobs: {options: 3}",
        "hf_lwmm: 0.1.0\ntuning: x",
        "hf_lwmm: 3",
        "anchor: [x]",
        "anchor: 7",
        "method: [x]",
        "method: 3",
        "method: {name: [x]}",
        "method: {1: 2}",
        "schema: true",
        "schema: '2'",
        "base: []",
        "base: {model: 3}",
        "system: 3",
        "bn_images: []",
        "bn_images: {data: 3}",
        "tuning: []",
        "tuning: {rows: 3}",
        "tuning: {rows: [{to: 1.0e+30, weights: [1, 0]}]}",
        "tuning: {rows: [{to: 1.0, weights: [1, 0]}]}",
        "tuning: {rows: [{to: true, weights: [1, 0]}]}",
        "tuning: {rows: [{to: '1', weights: [1, 0]}]}",
        "tuning: {rows: [{to: 1, weights: ['1', 0]}]}",
        "tuning: {rows: [{to: 1, weights: x}]}",
        "tuning: {rows: [{to: 1, weights: [1, 0]}], notes: x}",
        f"tuning: {{rows: [{{to: 1000000, weights: [{', '.join(['0'] * 999)}, 1]}}]}}",
        "anchor: " + "[" * 5000,
        "anchor: &x [1]\nbase: *x",
        "anchor: a\nanchor: b",
    ],
)
def test_recipes_with_a_fault_are_one_line(text: str, models: list[Path], tmp_path: Path, run: Run) -> None:
    (tmp_path / "r.yaml").write_text(f"models: ['{models[0]}', '{models[1]}']\n{text}\n")
    code, _, err = run("merge", "--recipe", "r.yaml", "--output", "out")
    assert code == 1 and err.startswith("Error: r.yaml") and err.count("\n") == 1 and len(err) < 500, err
    assert not Path("out").exists()


@pytest.mark.parametrize("entry", ["sha256: x", "sha256: [a]", "sha256: {a: 1}", "recorded: x", "recorded: [1]"])
def test_entries_of_models_have_their_types(entry: str, tmp_path: Path, run: Run) -> None:
    (tmp_path / "r.yaml").write_text(f"models: [{{model: a/b, {entry}}}, a/c]\n")
    code, _, err = run("merge", "--recipe", "r.yaml", "--output", "out")
    assert code == 1 and err.startswith("Error: r.yaml, a/b") and err.count("\n") == 1


def test_recipes_larger_than_any_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("models: [a/b, a/c]\n" + "# comment\n" * 200_000)
    with pytest.raises(PlanError, match=r"r\.yaml: is larger than 1,048,576 bytes"):
        hf_lwmm.load_recipe(tmp_path / "r.yaml")


def test_a_recipe_in_a_repository_is_read_alike(tmp_path: Path, run: Run) -> None:
    (tmp_path / "merged").mkdir()
    for content in (b"\xff", b"a: [", b"models: 3"):
        (tmp_path / "merged" / "hf_lwmm.yaml").write_bytes(content)
        code, _, err = run("reproduce", "merged")
        assert code == 1 and err.startswith("Error: merged, hf_lwmm.yaml: ") and err.count("\n") == 1


def test_equal_parts_of_a_recipe_are_written_out_again(models: list[Path], tmp_path: Path) -> None:
    knobs = hf_lwmm.Knobs(labels=(("a", "b"), ("a", "b")))
    hashes = {"model.safetensors": "0" * 64}
    recipe = hf_lwmm.Recipe(("a/b", "a/c"), "a/b", knobs, sha256=(hashes, hashes), output=hashes)
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    read = hf_lwmm.load_recipe(tmp_path / "r.yaml")
    assert (read.knobs, read.sha256, read.output) == (knobs, (hashes, hashes), hashes)


def test_a_damaged_record_of_the_measured_model_counts_as_none(models: list[Path], tmp_path: Path) -> None:
    for number, record in enumerate(("[", "[1]", '{"a": 1}', "[" * 5000)):
        path = tmp_path / f"{number}.safetensors"
        save_file({"a": np.zeros(1, np.float32)}, path, {"model": "org/a", "sha256": record})
        assert hf_lwmm.planning.provenance.measured_model(path) is None


# Label files and data sets


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'["a", 1]', "must hold names and values"),
        (b'{"0": "a", "2": "b"}', "has the ids 0, 2"),
        (b'{"id2label": {"x": "a"}}', "'x' is no id"),
        (b'{"id2label": {"0": ["a"]}}', r"the name of the id 0 is \['a'\]"),
        (b'{"0": "a", "0": "b"}', "occurs twice"),
        (b'{"0": "a", "00": "b"}', "has the id 0 twice, as '0' and '00'"),
        (b"[" * 5000, "more than 100 levels"),
        (b"[a\nb", "is not valid JSON"),
        (b"- a\n- [b]", "must hold names and values"),
        (b"\xff", "is not UTF-8"),
        (b"", "lists no classes"),
        (b"a\n" * 9_000_000, "is larger than"),
    ],
)
def test_label_files_with_a_fault_are_named(text: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(text)
    with pytest.raises(PlanError, match=rf"names.*{fault}"):
        read_label_set(tmp_path / "names")


def test_a_text_that_is_no_path_is_no_label_set() -> None:
    with pytest.raises(PlanError, match="is not a label set"):
        read_label_set("x" * 5000)


@pytest.mark.parametrize("content", [b"[1]", b"{", b'{"a": "road"}', b'{"0": 3}', b"\xff", b'{"0": "a", "0": "b"}'])
def test_names_of_ids_with_a_fault_are_named(content: bytes, models: list[Path], data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "id2label.json").write_bytes(content)
    with pytest.raises(DatasetError, match=r"id2label\.json"):
        hf_lwmm.evaluate([models[0]], tmp_path / "data")


def listed(folder: Path, content: Any) -> Path:
    """A data set of objects with one picture, and the list that says what is in it."""
    (folder / "val2017").mkdir(parents=True)
    (folder / "annotations").mkdir()
    scene(0)[0].save(folder / "val2017" / "0.png")
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "annotations" / "instances_val2017.json").write_bytes(text)
    return folder


IMAGE = {"id": 1, "file_name": "0.png"}
NAMED = {"categories": [{"id": 1, "name": "car"}], "annotations": []}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[" * 5000, "more than 100 levels"),
        (b"\xff", "is not UTF-8"),
        ([], "is not in COCO's format"),
        ({"images": [IMAGE]}, "is not in COCO's format"),
        ({**NAMED, "images": [IMAGE], "annotations": [3]}, "is not in COCO's format"),
        ({**NAMED, "images": [{**IMAGE, "file_name": "/etc/passwd"}]}, "'/etc/passwd' does not stay inside"),
        ({**NAMED, "images": [{**IMAGE, "file_name": "../../0.png"}]}, "does not stay inside"),
        ({**NAMED, "images": [{**IMAGE, "file_name": 3}]}, "does not stay inside"),
    ],
)
def test_lists_of_objects_with_a_fault_are_named(content: Any, fault: str, tmp_path: Path) -> None:
    folder = listed(tmp_path / "data", content)
    with pytest.raises(DatasetError, match=rf"instances_val2017\.json: .*{fault}"):
        hf_lwmm.data.loading.open_images(folder, task="detection")


def test_results_of_a_sweep_that_were_damaged_are_refused(models: list[Path], data: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "sweep.parquet"
    for number, meta in enumerate((b"[", b"[]", b'{"study": 3}', b'{"study": {}}')):
        table = pa.table({"a": [number]}).replace_schema_metadata({b"hf_lwmm.sweep": meta})
        pq.write_table(table, file)
        with pytest.raises(hf_lwmm.SweepError, match=r"sweep\.parquet: .*Choose another --output"):
            hf_lwmm.sweep(models[:2], data, file)
