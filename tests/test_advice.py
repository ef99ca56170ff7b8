"""Advice on how to merge: a function of what is known, printed in one line, and taken by `--method auto`."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from calls import lwmm
from manifests import stored, write

import hf_lwmm
from hf_lwmm import Knobs, MergeInputs
from hf_lwmm.checkpoints.checkpoint import open_checkpoint
from hf_lwmm.errors import PlanError
from hf_lwmm.hub import parse_ref, resolve
from hf_lwmm.methods import METHODS
from hf_lwmm.planning.advice import TARGETS, Advice, Known, advise
from hf_lwmm.planning.knobs import BN_STATS
from hf_lwmm.planning.plan import make_plan

GTA, SYNTHIA, NONE = frozenset({"org/gta"}), frozenset({"org/synthia"}), frozenset[str]()
BN_MEAN = "decode_head.linear_fuse.bn.running_mean"


def model(folder: Path, seed: int, card: dict[str, Any] | None = None, frozen: bool = False) -> Path:
    """A small model with a card; a frozen one has the running statistics of all others."""
    arrays = stored("nvlabs_segformer_b0", seed, shrink=8)
    if frozen:
        arrays |= {name: stored("nvlabs_segformer_b0", 0, shrink=8)[name] for name in arrays if "running" in name}
    write(folder / "model.safetensors", arrays)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n" if card else "")
    return folder


@pytest.mark.parametrize(
    ("known", "method", "why"),
    [
        (Known(), "layerwise", "the paper's choice"),
        (Known(target="anchor", data=(GTA, SYNTHIA)), "layerwise", "the anchor's own domain"),
        (Known(target="new", data=(GTA, SYNTHIA)), "isotropic", "where the plain average of models that saw"),
        (
            Known(target="mixed", data=(GTA, SYNTHIA)),
            "isotropic",
            "a mixture of domains, where the plain average of models that saw different data can gain most; score it",
        ),
        (Known(target="mixed", data=(GTA, GTA)), "layerwise", "the models saw the same data"),
        (Known(target="new", data=(GTA, NONE)), "isotropic", "of which their cards say nothing"),
        (Known(target="new", data=(GTA, SYNTHIA), starts=(GTA, SYNTHIA)), "layerwise", "different base models"),
        (Known(target="new", data=(GTA, SYNTHIA), starts=(GTA, GTA)), "isotropic", ""),
        (Known(target="new", data=(GTA, GTA), starts=(GTA, SYNTHIA)), "layerwise", "different base models"),
        (Known(target="new", has_base=True), "wise", "--method isotropic without it gained more"),
        (Known(target="new", has_base=True, data=(GTA, GTA)), "wise", "keeps more of what all models can do"),
        (Known(has_bn_stats=True, bn_distance=0.009), "layerwise", "(they are the same in all models)"),
        (Known(has_bn_stats=True, bn_distance=0.011), "layerwise", "(they differ by 0.011)"),
        (Known(has_base=True), "wise", "a base is given"),
    ],
)
def test_advice_follows_from_what_is_known(known: Known, method: str, why: str) -> None:
    found = advise(known)
    assert found.method == method and why in found.why
    assert ("--method isotropic without it" in found.why) == (
        known.has_base and known.target == "new" and not known.data
    )


def test_all_advice_is_one_line_and_can_be_taken() -> None:
    seen = [(), (GTA, GTA), (GTA, SYNTHIA), (GTA, NONE)]
    choices = itertools.product((None, *TARGETS), (True, False), seen, seen, (True, False), (None, 0.0, 0.3))
    for target, base, data, starts, bn_stats, distance in choices:
        known = Known(target, base, data, starts, bn_stats, distance)
        found = advise(known)
        assert found == advise(known) and found.method in METHODS and found.bn_stats in BN_STATS
        assert "\n" not in found.line and found.line.startswith(f"Advice: --method {found.method} --bn-stats ")
        assert ("running statistics" in found.why) == bn_stats


def test_auto_takes_the_advice_of_the_cards_and_the_recipe_records_what_it_took(tmp_path: Path) -> None:
    one = model(tmp_path / "one", 1, {"datasets": ["org/gta"]})
    two = model(tmp_path / "two", 2, {"datasets": "org/synthia"})
    again = model(tmp_path / "again", 3, {"datasets": ["org/gta"]})
    auto = Knobs(method="auto")
    new = MergeInputs(target="new")
    assert hf_lwmm.plan([one, two], knobs=auto, inputs=new).method == hf_lwmm.Isotropic()
    assert hf_lwmm.plan([one, again], knobs=auto, inputs=new).method == hf_lwmm.Layerwise()
    assert hf_lwmm.plan([one, two], knobs=auto).method == hf_lwmm.Layerwise()
    based = hf_lwmm.plan([one, two], knobs=auto, inputs=MergeInputs(base=again))
    assert based.method == hf_lwmm.Wise() and hf_lwmm.plan([one], knobs=auto, inputs=MergeInputs(base=two)).advice
    taken = lwmm("merge", one, two, "--method", "auto", "--target", "new", "--output", tmp_path / "out")
    assert taken.exit_code == 0 and "Advice: --method isotropic --bn-stats linear: the target is new" in taken.stderr
    recipe = yaml.safe_load((tmp_path / "out" / "hf_lwmm.yaml").read_text())
    assert recipe["method"] == {"name": "isotropic"} and "target" not in str(recipe)
    by_name = lwmm("merge", one, two, "--method", "isotropic", "--output", tmp_path / "same")
    assert by_name.exit_code == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("out", "same"))
    assert first == second
    card = (tmp_path / "out" / "README.md").read_text()
    assert "--method isotropic" in card and "The method was advised, since the target is new to all models" in card


@pytest.mark.parametrize(
    ("entry", "one", "other", "same"),
    [
        ("datasets", ["org/GTA"], "org/gta ", True),
        ("datasets", "Caf\u00e9", ["Cafe\u0301"], True),
        ("datasets", ["org/gta", "org/gta"], ["org/gta"], True),
        ("datasets", [""], [""], None),
        ("datasets", ["org/gta"], ["org/gta", "org/synthia"], False),
        ("base_model", [None], ["org/base"], None),
        ("base_model", {"name": "org/base"}, ["org/base"], None),
        ("base_model", "Org/Base", "org/base", True),
    ],
)
def test_names_in_cards_are_compared_as_the_hub_does(
    entry: str, one: Any, other: Any, same: bool | None, tmp_path: Path
) -> None:
    models = [model(tmp_path / str(place), place, {entry: stated}) for place, stated in enumerate((one, other))]
    advice = hf_lwmm.plan(models, inputs=MergeInputs(target="new")).advice
    assert advice is not None
    assert (advice.known.same_data if entry == "datasets" else advice.known.same_start) is same


def test_the_commands_advise_in_one_line(tmp_path: Path) -> None:
    one, two = (model(tmp_path / str(seed), seed) for seed in (1, 2))
    planned = lwmm("plan", one, two, "--target", "mixed")
    assert [line for line in planned.stderr.splitlines() if line.startswith("Advice: --method isotropic")]
    data = json.loads(lwmm("plan", one, two, "--target", "mixed", "--json").stdout)
    assert data["advice"]["method"] == "isotropic" and data["advice"]["target"] == "mixed"
    for command in ("plan", "merge"):
        refused = lwmm(command, one, two, "--target", "new", "--base", one)
        assert refused.exit_code == 1 and "take --method wise, which is advised where" in str(refused.exception)
    compared = lwmm("diff", one, two, "--target", "new", "--base", one)
    assert compared.stdout.splitlines()[-1].startswith("Advice: --method wise --bn-stats linear: ")
    assert json.loads(lwmm("diff", one, two, "--json").stdout)["advice"]["method"] == "layerwise"


def test_a_wrong_target_is_refused(tmp_path: Path) -> None:
    one, two = (model(tmp_path / str(seed), seed) for seed in (1, 2))
    for command in ("plan", "diff", "merge"):
        done = lwmm(command, one, two, "--target", "nw")
        assert done.exit_code == 1 and "--target nw is not one of anchor, mixed, new" in str(done.exception)
    with pytest.raises(PlanError, match="--method auto stands for the advised method"):
        opened = [open_checkpoint(resolve(parse_ref(each))) for each in (one, two)]
        make_plan(opened, 0, Knobs(method="auto"))
    (tmp_path / "recipe.yaml").write_text(f"models: [{one}, {two}]\nmethod: auto\n")
    done = lwmm("merge", "--recipe", tmp_path / "recipe.yaml")
    assert done.exit_code == 1 and "--method auto is not one of layerwise" in str(done.exception)


def test_keeping_the_anchors_statistics_is_warned_of_only_where_they_differ(tmp_path: Path) -> None:
    def warned(*models: Path, bn_stats: str = "anchor") -> str:
        output = tmp_path / "-".join([bn_stats, *(each.name for each in models)])
        merged = hf_lwmm.merge(models, knobs=Knobs(bn_stats=bn_stats), output=output).warnings
        before = hf_lwmm.plan(models, knobs=Knobs(bn_stats=bn_stats)).warnings
        assert set(before) <= set(merged)
        return " ".join(before)

    apart = [model(tmp_path / f"apart{seed}", seed) for seed in (1, 2)]
    frozen = [model(tmp_path / f"frozen{seed}", seed, frozen=True) for seed in (1, 2)]
    assert "--bn-stats anchor keeps the anchor's BatchNorm statistics" in warned(*apart)
    assert "--bn-stats anchor keeps" in lwmm("merge", *apart, "--bn-stats", "anchor", "--dry-run").stderr
    planned = json.loads(lwmm("plan", *apart, "--bn-stats", "anchor", "--json").stdout)
    assert planned["warnings"] == [*hf_lwmm.plan(apart, knobs=Knobs(bn_stats="anchor")).warnings] != []
    assert "BatchNorm" not in warned(*frozen) and "BatchNorm" not in warned(*apart, bn_stats="linear")
    same, other = hf_lwmm.diff(*frozen).advice, hf_lwmm.diff(*apart).advice
    assert same is not None and "best merged with the weights (they are the same in all models)" in same.why
    distances = []
    for leaf in ("running_mean", "running_var"):
        a, b = (stored("nvlabs_segformer_b0", seed, shrink=8)[BN_MEAN.replace("running_mean", leaf)] for seed in (1, 2))
        distances.append(np.linalg.norm(a - b) / np.linalg.norm(a))
    assert other is not None and other.known.bn_distance == pytest.approx(np.mean(distances))
    among = hf_lwmm.plan([*frozen, apart[0]]).advice  # of several models it is the one farthest away that counts
    assert among is not None and (among.known.bn_distance or 0) > 0.1


def test_digits_tell_near_models_apart(tmp_path: Path) -> None:
    start = stored("nvlabs_segformer_b0", 1, shrink=8)
    other = stored("nvlabs_segformer_b0", 2, shrink=8)
    near = {name: np.asarray(array + 0.01 * other[name], array.dtype) for name, array in start.items()}
    one, two = (write(tmp_path / f"{n}.safetensors", arrays) for n, arrays in (("one", start), ("two", near)))
    report = hf_lwmm.diff(one, two)
    assert report.whole is not None and report.whole.relative == pytest.approx(0.01, rel=0.1)
    assert report.whole.cosine is not None and 0.9999 < report.whole.cosine < 0.99999
    text = lwmm("diff", one, two).stdout
    assert "relative L2 distance 0.01" in text and "cosine 0.9999" in text and "cosine 1." not in text
    assert report.pretraining.relative == pytest.approx(0.01, rel=0.2)
    assert json.loads(json.dumps(report.to_dict()))["relative"] == report.whole.relative


def test_advice_is_said_only_where_it_was_asked_for_or_differs_from_what_nobody_chose(tmp_path: Path) -> None:
    one, two = (model(tmp_path / str(seed), seed) for seed in (1, 2))

    def said(*arguments: object) -> bool:
        done = lwmm("plan", one, two, *arguments)
        assert done.exit_code == 0, done.exception
        return "Advice: " in done.stderr

    assert not said() and not said("--start", 0.5) and not said("--method", "isotropic")
    assert said("--target", "new") and said("--method", "auto")
    assert "* stands for weights that slerp does not have." in lwmm("plan", one, two, "--method", "slerp").stdout
    assert "* stands" not in lwmm("plan", one, two).stdout
    plan = hf_lwmm.plan([one, two], knobs=Knobs(method="isotropic"))
    assert plan.advice is not None and "Advice" not in plan._repr_markdown_()
    based = Advice("wise", "linear", "a base is given")
    assert based.line_for(hf_lwmm.Layerwise()) and not based.line_for(hf_lwmm.Layerwise(start=0.5))


def test_a_plan_and_a_comparison_give_the_same_advice(tmp_path: Path) -> None:
    one, two = (model(tmp_path / str(seed), seed) for seed in (1, 2))
    planned, compared = hf_lwmm.plan([one, two]).advice, hf_lwmm.diff(one, two).advice
    assert planned is not None and compared is not None and planned.why == compared.why
    assert " (they differ by " in planned.why
