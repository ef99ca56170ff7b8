"""How far two models are apart against the formulas written out, and the verdict on networks whose past is known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import calls
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from manifests import Arrays, stored, to_slots, write
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.cli import main
from hf_lwmm.errors import AlignmentError, CheckpointError, PlanError
from hf_lwmm.hub.refs import parse_ref
from hf_lwmm.planning import discrepancy
from hf_lwmm.planning.discrepancy import Discrepancy, compare
from hf_lwmm.planning.knobs import Knobs
from hf_lwmm.planning.permutation import Matching, axes_of, match_units, permuted_checkpoint
from hf_lwmm.planning.plan import make_plan
from hf_lwmm.planning.pretraining import pretraining_warnings, same_pretraining

MODELS = Path(__file__).parents[1] / "hf_lwmm" / "demo" / "models"
GTA, NIGHT = MODELS / "streets-gta", MODELS / "streets-night"
KINDS = {"weight": "weights", "bias": "biases", "running_mean": "bn_stats", "running_var": "bn_stats"}

vectors = arrays(np.float32, 6, elements=st.floats(-10, 10, width=32, allow_subnormal=False))


def opened(path: Path | str) -> Checkpoint:
    return open_checkpoint(hub.resolve(parse_ref(path)))


def model(folder: Path, name: str, tensors: Arrays) -> Checkpoint:
    return opened(write(folder / f"{name}.safetensors", tensors))


def network(seed: int, *, size: int = 40) -> Arrays:
    draw = np.random.default_rng(seed)
    shapes = {"block.0.conv.weight": (size, 16, 3, 3), "block.1.fc.weight": (size, size), "block.1.fc.bias": (size,)}
    return {name: draw.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_every_figure_is_its_formula(tmp_path: Path) -> None:
    first, second = network(0), {name: value + network(1)[name] / 9 for name, value in network(0).items()}
    report = hf_lwmm.diff(
        write(tmp_path / "a.safetensors", first), write(tmp_path / "b.safetensors", second), taus=[8, 9.5]
    )
    assert report.models == ("a.safetensors", "b.safetensors")
    for tensor in report.tensors:
        a, b = (tensors[tensor.slot].astype(np.float64).reshape(-1) for tensors in (first, second))
        ratio = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert tensor.relative == pytest.approx(ratio)
        assert tensor.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert (tensor.count, tensor.kind) == (a.size, KINDS[tensor.slot.rpartition(".")[2]])
        assert [tensor.changed(tau) for tau in report.taus] == [ratio >= 1 / 8, ratio >= 1 / 9.5]
    assert len(repr(report)) < 200 and repr(report).startswith("<DiffReport: a.safetensors and b.safetensors; 3 slots")
    table = report.to_pandas().set_index("slot")
    assert list(table["relative"]) == [tensor.relative for tensor in report.tensors]
    assert list(table["changed (tau 9.5)"]) == [tensor.changed(9.5) for tensor in report.tensors]


@settings(max_examples=60, deadline=None)
@given(vectors, vectors, st.floats(0.1, 1000))
def test_a_tensor_changed_if_it_moved_by_its_norm_over_tau(
    tmp_path_factory: pytest.TempPathFactory, a: np.ndarray, b: np.ndarray, tau: float
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    checkpoints = [model(folder, name, {"layer.weight": values}) for name, values in (("a", a), ("b", b))]
    (found,) = compare(*checkpoints, taus=[tau]).tensors
    wide, other = a.astype(np.float64), b.astype(np.float64)
    distance, norm = np.linalg.norm(wide - other), np.linalg.norm(wide)
    if abs(distance * tau - norm) > 1e-6 * norm:
        assert found.changed(tau) == bool(distance > 0 and distance >= norm / tau)
    assert found.relative == (0 if distance == 0 else pytest.approx(distance / norm) if norm else None)
    if norm and np.linalg.norm(other):
        assert found.cosine == pytest.approx(wide @ other / norm / np.linalg.norm(other), abs=1e-9)
    else:
        assert found.cosine is None


def test_a_tensor_larger_than_a_chunk_is_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compare(model(tmp_path, "a", network(0)), model(tmp_path, "b", network(1)))
    monkeypatch.setattr(discrepancy, "CHUNK", 1000)
    sizes = []

    class Watched:
        def __init__(self, checkpoint: Checkpoint) -> None:
            self.reader = checkpoint.reader

        def read(self, name: str, start: int, buffer: memoryview) -> None:
            sizes.append(len(buffer))
            assert self.reader is not None
            self.reader.read(name, start, buffer)

        def close(self) -> None: ...

    pair = [opened(tmp_path / f"{name}.safetensors") for name in ("a", "b")]
    parts = compare(*(replace(each, reader=Watched(each)) for each in pair))
    for one, other in zip(whole.tensors, parts.tensors, strict=True):
        assert one.relative == pytest.approx(other.relative)
        assert one.cosine == pytest.approx(other.cosine)
    assert max(sizes) <= 4 * 4096  # of the verdict's sample; the comparison itself reads 4000 bytes at a time
    assert sizes.count(4000) > 2 * 5


LAYOUTS = ("nvlabs_segformer_b0", "mmseg1x_segformer_b0", "transformers_segformer_b0_hub_legacy")


@pytest.mark.parametrize("system", LAYOUTS[1:])
def test_layouts_make_no_difference(system: str, tmp_path: Path) -> None:
    first = model(tmp_path, "first", stored(LAYOUTS[0], 1))
    alike, other = (model(tmp_path, name, stored(name, 2)) for name in (LAYOUTS[0], system))
    expected = {t.slot: t for t in compare(first, alike).tensors if t.backbone}
    found = {t.slot: t for t in compare(first, other).tensors if t.backbone}
    assert found == expected and len(found) > 100
    assert same_pretraining(first, other).cosine == same_pretraining(first, alike).cosine


def test_layers_are_their_tensors_together(tmp_path: Path) -> None:
    tensors = [stored(LAYOUTS[0], seed) for seed in (1, 2)]
    pair = [model(tmp_path, str(seed), arrays) for seed, arrays in enumerate(tensors)]
    slots = [to_slots(arrays) for arrays in tensors]
    for granularity, block in (("block", "mit.stage1.block0"), ("stage", "mit.stage1")):
        report = compare(*pair, granularity=granularity)
        assert [layer.position for layer in report.layers] == list(range(1, len(report.layers) + 1))
        assert sum(sum(layer.tensors.values()) for layer in report.layers) == len(report.tensors)
        (layer,) = (layer for layer in report.layers if layer.name == block)
        a, b = (
            np.concatenate([v.reshape(-1) for s, v in each.items() if s.startswith(block + ".")]).astype(np.float64)
            for each in slots
        )
        assert layer.parameters == a.size
        assert layer.relative == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
        assert layer.cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert layer.changed["weights"] == (layer.tensors["weights"],)
        assert all(layer.backbone == (layer.position <= report.boundary) for layer in report.layers)
        assert 0 < report.boundary < len(report.layers)


def test_modules_and_their_bn_stats_have_a_layer_each(tmp_path: Path) -> None:
    pair = [model(tmp_path, str(seed), stored("timm_resnet101", seed, shrink=16)) for seed in (1, 2)]
    layers = {layer.name: layer for layer in compare(*pair).layers}
    assert layers["resnet.stage1.block0.bn1"].tensors == {"weights": 1, "biases": 1, "bn_stats": 2}
    assert layers["resnet.stage1.block0.conv1"].tensors == {"weights": 1, "biases": 0, "bn_stats": 0}


def test_float16_and_float32_are_compared(tmp_path: Path) -> None:
    halves = {name: value.astype(np.float16) for name, value in network(0).items()}
    wide = {name: value.astype(np.float32) for name, value in halves.items()}
    report = compare(model(tmp_path, "half", halves), model(tmp_path, "wide", wide))
    assert all(tensor.distance == 0 and not tensor.changed(1e9) for tensor in report.tensors)


def test_other_heads_are_listed_as_not_compared(tmp_path: Path) -> None:
    first = model(tmp_path, "segformer", stored("nvlabs_segformer_b0", 1))
    second = model(tmp_path, "fpn", stored("smp_fpn_mit_b0", 2))
    report = compare(first, second)
    assert all(tensor.backbone for tensor in report.tensors) and report.boundary == len(report.layers)
    reasons = {slot: (name, reason) for slot, name, reason in report.uncompared}
    slot = next(slot for slot in second.slot_map.slots if slot.endswith("weight") and slot in reasons)
    assert reasons[slot] == ("fpn.safetensors", "segformer.safetensors has no such slot")
    assert reasons["segformer.proj0.weight"][0] == "segformer.safetensors"
    assert sum(map(len, report.reasons.values())) == len(report.uncompared)


def test_a_tie_is_compared_under_the_name_that_both_models_have(tmp_path: Path) -> None:
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in network(0).items()}
    torch.save({**tensors, "head.weight": tensors["block.1.fc.weight"]}, tmp_path / "tied.pth")
    plain = write(tmp_path / "plain.safetensors", network(1))
    for models in ((tmp_path / "tied.pth", plain), (plain, tmp_path / "tied.pth")):
        report = hf_lwmm.diff(*models)
        assert {tensor.slot for tensor in report.tensors} == network(1).keys()
        assert report.uncompared == (("head.weight", "tied.pth", "plain.safetensors has no such slot"),)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    broken = network(1)
    broken["block.1.fc.weight"][3, 3] = np.inf
    write(tmp_path / "a.safetensors", network(0))
    write(tmp_path / "broken.safetensors", broken)
    write(tmp_path / "other.safetensors", {"body.weight": np.ones((9, 9), np.float32)})
    paths = [tmp_path / f"{name}.safetensors" for name in ("a", "broken", "other")]
    with pytest.raises(CheckpointError, match=r"block\.1\.fc\.weight: .*not finite"):
        hf_lwmm.diff(paths[0], paths[1])
    with pytest.raises(AlignmentError):
        hf_lwmm.diff(paths[0], paths[2])
    for taus in ([], [0.0], [-1.0], [float("nan")]):
        with pytest.raises(PlanError, match="--tau"):
            hf_lwmm.diff(paths[0], paths[0], taus=taus)
    with pytest.raises(PlanError, match="--granularity parameter"):
        hf_lwmm.diff(paths[0], paths[0], granularity="parameter")


def test_fine_tunings_of_one_pretraining_are_told() -> None:
    verdict = same_pretraining(opened(GTA), opened(NIGHT))
    assert verdict.answer == "same" and verdict.cosine is not None and verdict.cosine > 0.9
    assert "look like they come from the same pre-training" in verdict.message


def test_a_permuted_copy_is_different_until_its_units_are_matched() -> None:
    checkpoint = opened(GTA)
    slots, draw = checkpoint.slot_map.slots, np.random.default_rng(0)
    sizes = {where.rows: slots[slot].shape[0] for slot, where in axes_of(checkpoint).items() if where.rows}
    orders = {group: draw.permutation(size) for group, size in sizes.items()}
    other = permuted_checkpoint(checkpoint, Matching(orders))
    verdict = same_pretraining(checkpoint, other)
    assert verdict.answer == "different" and "--permute" in verdict.message
    matched = permuted_checkpoint(other, match_units(checkpoint, other, list(slots)))
    assert same_pretraining(checkpoint, matched).answer == "same"


def test_networks_that_were_drawn_apart_are_different(tmp_path: Path) -> None:
    drawn = {}
    for name, values in load_file(GTA / "model.safetensors").items():
        scale = values.astype(np.float32).std() if values.size > 1 else 0
        shift = values.astype(np.float32).mean()
        noise = np.random.default_rng(len(name)).standard_normal(values.shape)
        drawn[name] = np.asarray(shift + scale * noise, values.dtype)
    verdict = same_pretraining(opened(GTA), model(tmp_path, "drawn", drawn))
    assert verdict.answer == "different" and verdict.cosine is not None and abs(verdict.cosine) < 0.1


def test_what_all_units_have_in_common_tells_nothing(tmp_path: Path) -> None:
    pair = [{name: value + 5 for name, value in network(seed).items()} for seed in (1, 2)]
    report = compare(model(tmp_path, "a", pair[0]), model(tmp_path, "b", pair[1]))
    assert all(tensor.cosine > 0.9 for tensor in report.tensors)
    assert report.pretraining.answer == "different"


def test_in_between_nothing_is_claimed(tmp_path: Path) -> None:
    start, end = network(1), network(2)
    halfway = {name: 0.4 * start[name] + 0.9 * end[name] for name in start}
    verdict = same_pretraining(model(tmp_path, "start", start), model(tmp_path, "halfway", halfway))
    assert verdict.answer == "unclear" and "not clear" in verdict.message
    small = {"fc.weight": np.ones((3, 3), np.float32)}
    broken = {"fc.weight": np.full((40, 40), np.nan, np.float32)}
    for tensors in (small, broken):
        verdict = same_pretraining(model(tmp_path, "a", tensors), model(tmp_path, "b", tensors))
        assert (verdict.answer, verdict.cosine, verdict.slots) == ("unclear", None, 0)
    assert "no weights that show" in verdict.message


def test_a_merge_is_warned_of_models_with_another_past(tmp_path: Path) -> None:
    tensors = network(0)
    close = {name: value + 0.1 * network(5)[name] for name, value in tensors.items()}
    checkpoints = [model(tmp_path, name, t) for name, t in (("a", tensors), ("b", close), ("c", network(9)))]
    (warning,) = pretraining_warnings(make_plan(checkpoints, 0, Knobs()))
    assert warning.startswith("a.safetensors and c.safetensors do not look like")
    checkpoints = [opened(GTA), opened(NIGHT)]
    assert pretraining_warnings(make_plan(checkpoints, 0, Knobs(permute=True))) == ()
    merged = calls.merge([tmp_path / "a.safetensors", tmp_path / "c.safetensors"], output=tmp_path / "merged")
    assert "a.safetensors and c.safetensors do not look like" in " ".join(merged.warnings)


def test_a_report_is_plain_data_and_shows_itself() -> None:
    report = hf_lwmm.diff(GTA, NIGHT, taus=(3, 30), granularity="stage")
    assert isinstance(report, Discrepancy) and isinstance(report, hf_lwmm.DiffReport)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["models"] == ["streets-gta", "streets-night"] and data["taus"] == [3, 30]
    assert len(data["tensors"]) == len(report.tensors) and len(data["layers"]) == len(report.layers)
    assert data["pretraining"]["answer"] == "same"
    table = report.to_markdown()
    for text in ("backbone, weights", "head, bn_stats", "changed (tau 3)", "changed (tau 30)", "same pre-training"):
        assert text in table
    rows = [line.count("|") for line in table.splitlines() if line.startswith("|")]
    assert len(set(rows)) == 1
    html = report._repr_html_()
    assert "data:image/png;base64," in html and "<td>backbone, biases</td>" in html


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / str(seed) / "model.safetensors", network(seed)) for seed in (1, 2)]
    assert hf_lwmm.diff(*paths).models == ("1/model.safetensors", "2/model.safetensors")


def test_an_alignment_shows_why_slots_are_not_shared(tmp_path: Path) -> None:
    checkpoints = [model(tmp_path, name, stored(name, 1)) for name in ("nvlabs_segformer_b0", "smp_fpn_mit_b0")]
    shown = make_plan(checkpoints, 0, Knobs()).alignment._repr_markdown_()
    assert "smp_fpn_mit_b0.safetensors has no such slot" in shown and "the anchor does not have it" in shown


def test_the_command_prints_draws_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*options: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-lwmm", "diff", str(GTA), str(NIGHT), *map(str, options)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0), *capsys.readouterr()

    picture = tmp_path / "diff.svg"
    code, out, err = run("--granularity", "block", "--tau", 3, "--tau", 30, "--plot", picture)
    assert code == 0, err
    assert "mit.stage3.block0" in out and "segformer.classifier" in out
    assert "Not compared: 1: streets-gta: not a float weight (I64)" in out
    assert picture.stat().st_size > 10_000 and str(picture) in err
    out = run()[1]
    assert "14 more (--full)" in out and "mit.stage2.block0.attn.q " not in out
    assert json.loads(run("--json")[1])["granularity"] == "module"
    code, out, err = run("--plot", tmp_path / "diff.gif")
    assert code == 1 and err.startswith("Error: ") and not out


def test_comparing_safetensors_needs_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, hf_lwmm; print(hf_lwmm.diff(sys.argv[1], sys.argv[2]).pretraining.answer);"
        "print([name for name in ('torch', 'matplotlib', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(GTA), str(NIGHT)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "same\n[]\n"
