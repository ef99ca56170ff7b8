"""Networks of the user's own code: built by a factory, filled from a checkpoint, and run like any other."""

from __future__ import annotations

import copy
import importlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from safetensors.numpy import load_file
from safetensors.torch import save_file
from tiny import NAMES, scene, tree
from torch import Tensor, nn

import hf_lwmm
from hf_lwmm.errors import HfLwmmError, LayoutError, PlanError

OUTPUTS = ("lane", "kerb", "sky", "car", "bonnet")
GROUPS = {"road": ["lane", "kerb"], "sky": ["sky"], "car": ["car"]}
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CODE = """
from torch import nn
import hf_lwmm

class Net(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width)
        self.top = nn.Conv2d(width, outputs, 1)

    def forward(self, pixels):
        return self.top(self.norm(self.stem(pixels)).relu())

def build(config, classes):
    return Net(config.get("width", 6), len(classes))

def wide(config, classes):
    return Net(12, len(classes))

def plain(config, classes):
    return Net(6, len(classes))

def bare(config, classes):
    return Net(6, len(classes))

def broken(config, classes):
    raise KeyError("depth")

def nothing(config, classes):
    return None

build.description = wide.description = broken.description = nothing.description = hf_lwmm.NetworkDescription(
    outputs=("lane", "kerb", "sky", "car", "bonnet"),
    groups={"road": ["lane", "kerb"], "sky": ["sky"], "car": ["car"]},
    image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.3, 0.4), channel_order="BGR",
)
"""


class Net(nn.Module):
    """The network that `CODE` has, written again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.top = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.Conv2d(6, len(OUTPUTS), 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.top(self.norm(self.stem(pixels)).relu())  # type: ignore[no-any-return]


def described(**changed: Any) -> Any:
    """A factory of `Net` with a description."""

    def factory(config: Any, classes: Any) -> nn.Module:
        return Net()

    given = {"outputs": OUTPUTS, "groups": GROUPS, "image_mean": MEAN, "image_std": STD, "channel_order": "BGR"}
    factory.description = hf_lwmm.NetworkDescription(**{**given, **changed})  # type: ignore[attr-defined]
    return factory


OWN = hf_lwmm.NetworkOptions(network=described())
NAMED = hf_lwmm.NetworkOptions(network="mine:build")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    paths = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        net = Net()
        net.norm.running_mean += 0.1 * seed  # type: ignore[operator]
        paths.append(tmp_path_factory.mktemp("own") / f"{'ab'[seed - 1]}.safetensors")
        save_file(net.state_dict(), paths[-1])
    return paths[0], paths[1]


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the module `mine`, and no other trace of it afterwards."""
    (tmp_path / "mine.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def iou_by_hand(model: Path, count: int) -> np.ndarray:
    """IoU of each class over scenes: softmax over all outputs but the bonnet, summed within groups."""
    net = Net().eval()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in _arrays(model).items()})
    hits, either = np.zeros(3), np.zeros(3)
    for seed in range(count):
        image, label = scene(seed)
        values = np.asarray(image, np.float64)[..., ::-1] / 255
        pixels = torch.from_numpy(((values - MEAN) / STD).transpose(2, 0, 1).copy()).float()[None]
        with torch.no_grad():
            shares = net(pixels).exp()
            logits = torch.stack([shares[:, 0] + shares[:, 1], shares[:, 2], shares[:, 3]], 1).log()
        guess = nn.functional.interpolate(logits, label.shape, mode="bilinear")[0].argmax(0).numpy()
        for c in range(3):
            hits[c] += ((guess == c) & (label == c)).sum()
            either[c] += (((guess == c) | (label == c)) & (label != 255)).sum()
    return hits / either


def _arrays(model: Path) -> dict[str, np.ndarray]:
    return load_file(model)


class MuteError(Exception):
    def __str__(self) -> str:
        return self.args[0]  # of which there are none


def test_a_network_of_ones_own_is_scored_as_counted_by_hand(models: tuple[Path, Path], tmp_path: Path) -> None:
    found = hf_lwmm.evaluate(models, tree(tmp_path / "data"), network=OWN)
    assert found is not None and found.classes == tuple(GROUPS)
    for path, scored in zip(models, found.models, strict=True):
        np.testing.assert_allclose(scored.by_class, iou_by_hand(path, 5), rtol=1e-12)


def test_a_network_that_overwrites_its_pixels_leaves_them_to_the_next(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    given = list[Tensor]()

    class Overwriting(Net):
        def forward(self, pixels: Tensor) -> Tensor:
            given.append(pixels.clone())
            return super().forward(pixels.neg_())

    own: Any = lambda config, classes: Overwriting()  # noqa: E731
    own.description = described(channel_order="RGB").description
    hf_lwmm.evaluate(models, tree(tmp_path / "data", 1), network=hf_lwmm.NetworkOptions(network=own))
    assert len(given) == 2 and torch.equal(*given)


@pytest.mark.parametrize(
    "error", [KeyError("x"), TypeError("t"), AssertionError("not a multiple of 32"), MemoryError(), MuteError()]
)
def test_a_forward_pass_that_fails_is_told_in_one_line(
    error: Exception, models: tuple[Path, Path], tmp_path: Path
) -> None:
    class Failing(Net):
        def forward(self, pixels: Tensor) -> Tensor:
            raise error

    own: Any = lambda config, classes: Failing()  # noqa: E731
    own.description = described().description
    network, data = hf_lwmm.NetworkOptions(network=own), tree(tmp_path / "data", 1)
    name = type(error).__name__
    told = rf"its network fails on \d+ x \d+ pixels: {name}(?!: {name})"
    with pytest.raises(PlanError, match=told):
        hf_lwmm.evaluate(models, data, network=network)
    with pytest.raises(PlanError, match=told):
        knobs, inputs = hf_lwmm.Knobs(bn_stats="recalibrate"), hf_lwmm.MergeInputs(bn_images=data, network=network)
        hf_lwmm.merge(models, knobs=knobs, inputs=inputs, output=tmp_path / "merged")
    ((_, why),) = hf_lwmm.predict(models[0], [data / "images" / "0.png"], tmp_path / "out", network=network).failed
    assert re.search(told, why)


def test_a_compiled_module_is_refused(models: tuple[Path, Path]) -> None:
    own: Any = lambda config, classes: torch.jit.trace(Net(), torch.zeros(1, 3, 8, 8))  # noqa: E731
    own.description = described().description
    with pytest.raises(PlanError, match=r"must return the module itself, not one that torch\.jit has compiled"):
        hf_lwmm.load(models[0], hf_lwmm.NetworkOptions(network=own))


def test_a_copy_is_a_network_of_its_own_and_takes_pixels_by_name(models: tuple[Path, Path]) -> None:
    class Named(Net):
        def forward(self, pixel_values: Tensor) -> Tensor:
            return super().forward(pixel_values)

    own: Any = lambda config, classes: Named()  # noqa: E731
    own.description = described().description
    network = hf_lwmm.load(models[0], hf_lwmm.NetworkOptions(network=own)).model
    copied, pixels = copy.deepcopy(network), torch.zeros(1, 3, 8, 8)
    for parameter in copied.parameters():
        parameter.data.zero_()
    assert network(pixels).logits.abs().max() > 0
    assert torch.equal(network(pixel_values=pixels).logits, network(pixels).logits)
    assert copied(pixels).logits.unique().numel() == len(GROUPS) - 1  # log(2) for the class of two outputs, 0 else


def test_the_command_line_finds_the_code_in_the_working_directory(
    models: tuple[Path, Path], run: Run, code: Path
) -> None:
    tree(code / "data")
    status, out, err = run("evaluate", *models, "--data", "data", "--network", "mine:build", "--json")
    assert status == 0, err
    assert f'"mean": {iou_by_hand(models[0], 5).mean()}'[:14] in out
    status, _, err = run("predict", models[0], "data/images", "--output", "out", "--network", "mine:build")
    assert status == 0 and (code / "out" / "0_labels.png").exists(), err
    given = ("--data", "data", "--split", "all", "--network", "mine:build")
    status, _, err = run("measure", models[0], "--output", "a.safetensors", *given)
    assert status == 0 and (code / "a.safetensors").exists(), err


def test_an_output_that_has_logits_is_taken(models: tuple[Path, Path]) -> None:
    class Wrapped(Net):
        def forward(self, pixels: Tensor) -> Any:
            return type("Output", (), {"logits": super().forward(pixels)})

    given = described()
    wrapped: Any = lambda config, classes: Wrapped()  # noqa: E731
    wrapped.description = given.description
    pixels = torch.randn(1, 3, 16, 16)
    outputs = [hf_lwmm.load(models[0], hf_lwmm.NetworkOptions(network=each)).model(pixels) for each in (given, wrapped)]
    assert torch.equal(outputs[0].logits, outputs[1].logits) and outputs[0].logits.shape == (1, 3, 8, 8)


def test_weights_are_tuned_and_statistics_estimated_again(models: tuple[Path, Path], tmp_path: Path) -> None:
    data = hf_lwmm.ImageSource(str(tree(tmp_path / "data")), split="all")
    inputs = hf_lwmm.MergeInputs(tune_images=data, bn_images=data, eval_images=data, network=OWN)
    knobs = hf_lwmm.Knobs(method=hf_lwmm.Adaptive(images=2, passes=4), bn_stats="recalibrate", bn_mix=1.0)
    merged = hf_lwmm.merge(models, knobs=knobs, inputs=inputs, output=tmp_path / "merged")
    assert merged.evaluation is not None and len(merged.evaluation.models) == 3
    own, parents = _arrays(tmp_path / "merged" / "model.safetensors"), [_arrays(path) for path in models]
    expected = np.zeros(6)
    net = Net()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in own.items()})
    for seed in range(5):
        values = np.asarray(scene(seed)[0], np.float64)[..., ::-1] / 255
        pixels = torch.from_numpy(((values - MEAN) / STD).transpose(2, 0, 1).copy()).float()[None]
        expected += net.stem(pixels).mean((0, 2, 3)).detach().numpy() / 5
    np.testing.assert_allclose(own["norm.running_mean"], expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(own["norm.running_mean"], np.mean([each["norm.running_mean"] for each in parents], 0))


def test_a_sweep_runs_it_by_name(models: tuple[Path, Path], code: Path) -> None:
    data, axes = tree(code / "data"), hf_lwmm.SweepAxes(methods=("isotropic",))
    found = hf_lwmm.sweep(models, data, code / "sweep.parquet", axes=axes, network=NAMED)
    assert not any("--bn-stats anchor" in note for note in found.data.notes)
    kept = hf_lwmm.SweepAxes(methods=("isotropic",), bn_stats=("linear", "anchor"))
    warned = hf_lwmm.sweep(models, data, code / "kept.parquet", axes=kept, network=NAMED).data.notes
    assert any("--bn-stats anchor keeps the anchor's BatchNorm statistics, but" in note for note in warned)
    singles = {row.name: row.score for row in found.rows if len(row.candidate.models) == 1}
    assert sorted(singles.values()) == pytest.approx(sorted(iou_by_hand(path, 5).mean() for path in models))
    with pytest.raises(PlanError, match="for its other processes: network='module:function'"):
        hf_lwmm.sweep(models, data, code / "other.parquet", axes=axes, network=OWN)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("mine", "write module:factory, such as"),
        ("nowhere.mine:build", "there is no module nowhere in"),
        ("mine:bild", "mine has no bild. Did you mean build?"),
        ("mine:CODE", "mine has no CODE"),
        ("mine:hf_lwmm", "hf_lwmm is no function or class, but a module"),
        ("mine:wide", r"does not fit Net: \d have another shape \(stem.weight is \(6, 3, 3, 3\), not \(12, "),
        ("mine:plain", "nothing names the outputs of a.safetensors"),
        ("mine:broken", "the factory fails: KeyError: 'depth'"),
        ("mine:nothing", "must return a torch.nn.Module, not a NoneType"),
        ("unready:build", "unready needs the module absent_package, which is missing"),
        ("faulty:build", "importing faulty fails: ZeroDivisionError: division by zero"),
        ("leaving:build", "importing leaving fails: SystemExit: 3"),
    ],
)
def test_what_is_wrong_with_the_code_is_said(
    models: tuple[Path, Path], code: Path, given: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code / "unready.py").write_text("import absent_package\n")
    (code / "faulty.py").write_text("1 / 0\n")
    (code / "leaving.py").write_text("import sys; sys.exit(3)\n")
    with pytest.raises(HfLwmmError, match=message):
        hf_lwmm.load(models[0], hf_lwmm.NetworkOptions(network=given))


def test_names_that_do_not_fit_are_listed_on_both_sides(models: tuple[Path, Path], tmp_path: Path) -> None:
    renamed = {name.replace("top.", "head."): torch.from_numpy(value) for name, value in _arrays(models[0]).items()}
    save_file(renamed, tmp_path / "renamed.safetensors")
    with pytest.raises(LayoutError, match=r"2 slots are missing \(top.*\); 2 of its own are unknown there \(head"):
        hf_lwmm.load(tmp_path / "renamed.safetensors", OWN)


def test_outputs_of_another_number_or_kind_are_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    fewer = hf_lwmm.NetworkOptions(network=described(outputs=(*OUTPUTS, "more")))
    data = tree(tmp_path / "data")
    with pytest.raises(PlanError, match="returns 5 outputs, but 6 are named"):
        hf_lwmm.evaluate([models[0]], data, network=fewer)

    class Flat(Net):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels).mean((2, 3))

    flat: Any = lambda config, classes: Flat()  # noqa: E731
    flat.description = described().description
    with pytest.raises(PlanError, match=r"must return logits \(N, outputs, h, w\), or have .logits, not 2 dimensions"):
        hf_lwmm.evaluate([models[0]], data, network=hf_lwmm.NetworkOptions(network=flat))

    class Twice(Net):
        def forward(self, pixels: Tensor) -> Tensor:
            return super().forward(pixels.repeat(2, 1, 1, 1))

    twice: Any = lambda config, classes: Twice()  # noqa: E731
    twice.description = described().description
    with pytest.raises(PlanError, match=r"returns 2 rows of logits for 1 pictures"):
        hf_lwmm.evaluate([models[0]], tree(tmp_path / "one", 1), network=hf_lwmm.NetworkOptions(network=twice))


def test_names_of_outputs_come_from_labels_where_nothing_else_has_them(models: tuple[Path, Path]) -> None:
    bare: Any = lambda config, classes: Net()  # noqa: E731
    loaded = hf_lwmm.load(models[0], hf_lwmm.NetworkOptions(network=bare, labels=(OUTPUTS,)))
    assert loaded.classes == OUTPUTS and any("normalised as ImageNet's" in note for note in loaded.notes)


def test_a_merge_takes_names_of_outputs_from_labels_that_its_recipe_does_not_need(tmp_path: Path) -> None:
    for name in "ab":
        save_file(nn.Conv2d(3, 3, 1).state_dict(), tmp_path / f"{name}.safetensors")
    data = hf_lwmm.ImageSource(str(tree(tmp_path / "data", 1)), split="all")
    bare: Any = lambda config, classes: nn.Conv2d(3, 3, 1)  # noqa: E731
    inputs = hf_lwmm.MergeInputs(eval_images=data, network=hf_lwmm.NetworkOptions(network=bare))
    models, knobs = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"], hf_lwmm.Knobs(labels=(NAMES,))
    merged = hf_lwmm.merge(models, knobs=knobs, inputs=inputs, output=tmp_path / "merged")
    assert merged.evaluation is not None and merged.recipe.knobs.labels == ()
    assert hf_lwmm.reproduce(tmp_path / "merged", models).same
    with pytest.raises(PlanError, match="fits no model"):
        hf_lwmm.merge(models, knobs=knobs, output=tmp_path / "again")


def test_labels_name_the_outputs_wherever_a_merge_runs_the_network(
    models: tuple[Path, Path], run: Run, code: Path
) -> None:
    data = tree(code / "data")
    options = ["--network", "mine:bare", "--labels", ",".join(OUTPUTS)]
    for name, extra in {
        "recalibrated": ["--bn-stats", "recalibrate", "--bn-data", data, "--bn-split", "all"],
        "tuned": ["--method", "adaptive", "--tune-data", data, "--tune-split", "all", "--option", "passes=1"],
        "traced": ["--order", "traced"],
    }.items():
        assert run("merge", *models, *options, *extra, "--output", code / name)[0] == 0, name
    assert run("plan", *models, *options, "--order", "traced")[0] == 0


def test_it_is_neither_exported_nor_permuted(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="a network of your own code"):
        hf_lwmm.export(models[0], tmp_path / "out", network=OWN)
    with pytest.raises(PlanError, match=r"permuting knows MiT and ResNet, not unknown network. Merge it without"):
        hf_lwmm.plan(models, knobs=hf_lwmm.Knobs(method=hf_lwmm.Permutation()))


def test_partial_results_are_of_this_code_alone(models: tuple[Path, Path], code: Path) -> None:
    texts = []
    for source in (CODE, CODE.replace(".relu()", ".tanh()")):
        (code / "mine.py").write_text(source)
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        texts.append(hf_lwmm.load(models[0], NAMED).own_code)
    assert texts[0] != texts[1]


def test_results_are_of_the_code_of_the_modules_too(models: tuple[Path, Path], code: Path) -> None:
    data, axes = tree(code / "data"), hf_lwmm.SweepAxes(methods=("isotropic",))
    head, factories = CODE.split("def build")
    (code / "mine.py").write_text(f"import hf_lwmm\nfrom parts import Net\n\ndef build{factories}")
    texts = []
    for source in (head, head.replace(".relu()", ".tanh()")):
        (code / "parts.py").write_text(source)
        for name in ("mine", "parts"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        texts.append(hf_lwmm.load(models[0], NAMED).own_code)
        if len(texts) == 1:
            hf_lwmm.sweep(models, data, code / "sweep.parquet", axes=axes, network=NAMED)
    assert texts[0] != texts[1]
    with pytest.raises(HfLwmmError, match="way of loading"):
        hf_lwmm.sweep(models, data, code / "sweep.parquet", axes=axes, network=NAMED)
    sys.modules.pop("parts")
