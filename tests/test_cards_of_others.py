"""Cards and terminals, with names that others chose: a card keeps its structure, and a terminal obeys none of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from test_text import ATTACKS, LINKED, bare_text, structure, texts

import hf_lwmm
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.report import report
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.hub import ModelRef, Source, is_repo_id
from hf_lwmm.planning.images import ImageProvenance
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.publishing.card import CardExtras, render_card
from hf_lwmm.publishing.licences import licence_of, merged_licence
from hf_lwmm.publishing.rendering import render
from hf_lwmm.recipes.recipe import recipe_of

FIELDS = ("class", "licence", "link", "data", "tensor", "note", "picture", "title", "images", "split", "code")


def made(folder: Path, tensor: str, classes: list[str], card: dict[str, Any], seed: int) -> Path:
    """A model of two layers with a tensor of its own."""
    folder.mkdir(exist_ok=True)
    draw = np.random.default_rng(seed)
    tensors = {name: draw.normal(size=(2, 2)).astype(np.float32) for name in ("a.weight", "b.weight", tensor)}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"id2label": dict(enumerate(classes))}))
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n", encoding="utf-8")
    return folder


def card_with(root: Path, names: dict[str, str]) -> str:
    """The card of a merge in which everything that has a name has one of these."""
    classes = [names["class"], "sky"]
    stated = {"license": "other", "license_name": names["licence"], "license_link": f"https://x.y/{names['link']}"}
    card = {**stated, "datasets": [names["data"]]}
    one = made(root / "one", f"x{names['tensor']}", classes, card, 1)
    two = made(root / "two", f"y{names['tensor']}", classes, {}, 2)
    plan = hf_lwmm.plan([one, two], knobs=hf_lwmm.Knobs(keep=(f"x{names['tensor']}",)))
    named = ModelRef(path=two, files=(names["code"],))
    sources = (plan.checkpoints[0], replace(plan.checkpoints[1], source=replace(plan.checkpoints[1].source, ref=named)))
    images = ImageProvenance(names["images"], names["split"], limit=3, commit="c" * 40)
    tuning = Tuning(plan.layer_weights, replace(images, local=True), (names["note"],))
    plan = replace(plan, checkpoints=sources, tuning=tuning)
    recipe = recipe_of(plan, ({}, {}), {"model.safetensors": "0" * 64}, bn_images=images, system="advent")
    counts = np.ones((2, 3, 2, 3), np.int64)
    scores = report(METRICS["semantic"], names["images"], classes, counts, ScoredClasses(tuple(classes), (0, 1)))
    extras = CardExtras(replace(scores, protocol=names["note"]), (names["picture"],), "plots/x.png", (names["code"],))
    licence = merged_licence([checkpoint.source for checkpoint in plan.checkpoints])
    return render_card(plan, recipe, licence, names["title"], None, extras)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cards")


@pytest.fixture(scope="module")
def harmless(root: Path) -> str:
    return card_with(root, dict.fromkeys(FIELDS, "word"))


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(names=st.fixed_dictionaries({field: texts.filter(lambda text: "\0" not in text) for field in FIELDS}))
def test_a_card_has_the_structure_that_it_has_with_harmless_names(
    names: dict[str, str], root: Path, harmless: str
) -> None:
    assume(not re.match(r"\w+:", names["code"]))  # behind "two:", of which no renderer makes a picture (:1:)
    card = card_with(root, names)
    parsed = ModelCard(card)
    assert structure(parsed.text) == structure(ModelCard(harmless).text)
    assert all(line.isprintable() for line in card.split("\n"))
    assert not [part for part in bare_text(parsed.text) if LINKED.search(part)]
    data = parsed.data.to_dict()
    assert data["license"] == "other" and data["license_name"] == names["licence"]
    named = dict.fromkeys((names["data"], names["images"]))  # by the parent, and as images for BatchNorm
    assert data.get("datasets", []) == [name for name in named if is_repo_id(name)]
    assert data["model-index"][0]["name"] == names["title"]
    assert data["model-index"][0]["results"][0]["metrics"][1]["name"] == f"IoU {names['class']}"


_CONVERTED = (
    *("title", "source", "architecture", "usage", "classes", "version", "command", "loader"),
    *("parents", "verdict", "recipe"),
)


@given(text=texts)
@example(text="_*")
def test_a_converted_card_has_the_structure_that_it_has_with_harmless_names(text: str) -> None:
    def card(word: str) -> str:
        values = dict.fromkeys(_CONVERTED, word)
        lists = {"notes": [word, word], "pictures": [word]}
        return render("converted", {"license_name": word}, **values, **lists, own_code=True, merged=True)

    assert structure(ModelCard(card(text)).text) == structure(ModelCard(card("word")).text)
    assert ModelCard(card(text)).data.license_name == text


HOSTILE = "|\n\n## Owned <b> ```\x1b]0;T\x07\x1b[31mR\x9b2J\u202e[red]x[/red][link=http://x]l[/link]\r{{ 7 * 7 }}"


def test_no_command_lets_names_act_on_the_terminal(run: Run, tmp_path: Path) -> None:
    card = {"license": "other", "license_name": HOSTILE, "license_link": "https://x.y/\x1b[31m"}
    one = made(tmp_path / "one", f"x{HOSTILE}", [HOSTILE, "sky"], card, 1)
    two = made(tmp_path / "two", f"y{HOSTILE}", [HOSTILE, "sky"], {}, 2)
    (one / f"{HOSTILE.replace('/', '')}.py").write_text("")
    for arguments in (
        ("inspect", one, "--json"),
        ("inspect", one),
        ("plan", one, two, "--full"),
        ("plan", one, two, "--json"),
        ("diff", one, two, "--full"),
        ("diff", one, two, "--headers", "--full"),
        ("merge", one, two, "--output", "out"),
        ("merge", one, two, "--keep", HOSTILE, "--output", "kept"),
        ("merge", one, f"{two}:{HOSTILE}"),
        ("merge", one, HOSTILE),
        ("merge", one, two, "--anchor", HOSTILE),
        ("reproduce", one),
    ):
        _, out, err = run(*arguments)
        assert out + err and all(line.isprintable() for line in (out + err).split("\n")), arguments
    assert "\\u001b]0;T\\u0007" in run("plan", one, two, "--full")[1]
    assert json.loads(run("inspect", one, "--json")[1])[0]["classes"] == [HOSTILE, "sky"]


def test_a_name_is_no_line_of_its_own(run: Run, tmp_path: Path) -> None:
    model = made(tmp_path / "one", "x", ["road\nError: all is lost", "sky"], {"license": "mit\nfiles none"}, 1)
    lines = run("inspect", model)[1].splitlines()
    assert len(lines) == 8 and not any(line.startswith("Error") for line in lines)


def test_formulas_and_markup_are_drawn_as_they_are(tmp_path: Path) -> None:
    names = [f"{attack} $\\frac{{$" for attack in ATTACKS]
    hf_lwmm.plot_class_scores(names, names[:2], np.full((2, len(names)), 0.5), tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_spaces_around_a_licence_are_no_part_of_it() -> None:
    sources = [Source(ModelRef(f"org/{n}"), "0" * 40, (), {"license": text}) for n, text in enumerate((" MIT ", "mit"))]
    found = merged_licence(sources)
    assert found.licence.id == "mit" and not found.warnings


@pytest.mark.parametrize("text", ["CC BY-NC 4.0", "MIT License", "other\n---\n# boo"])
def test_a_licence_that_is_no_id_is_the_name_of_another(text: str) -> None:
    found = licence_of(Source(ModelRef("org/a"), "0" * 40, (), {"license": text}))
    assert found.metadata == {"license": "other", "license_name": " ".join(text.split()), "license_link": None}
    assert merged_licence([Source(ModelRef("org/a"), "0" * 40, (), {"license": text})]).licence.id == "other"
