"""Read what a merge says of itself, which it keeps when it is converted: parents, recipe, scores and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_lwmm import hub
from hf_lwmm.hub import ModelRef, Source
from hf_lwmm.hub.card import README, read_card
from hf_lwmm.publishing.superseded import EVALUATION, by_products, scores_of
from hf_lwmm.recipes.claims import recipe_beside
from hf_lwmm.recipes.recipe import Recipe


@dataclass(frozen=True)
class FinishedMerge:
    """A merge in a folder, as `push` takes it: its recipe, and whether its scores are there."""

    recipe: Recipe = field(repr=False)
    is_scored: bool


@dataclass(frozen=True)
class Lineage:
    """The history of a merge, as its own files tell it.

    `parents` are those of the Hub. `files` are names of scores and pictures beside its weights. `verdict` is the
    sentence on its scores, empty if it has none. `model_index` and `metrics` are those of its card, None if it has none
    that the Hub reads.
    """

    recipe: Recipe = field(repr=False)
    parents: tuple[str, ...]
    files: tuple[str, ...]
    verdict: str = ""
    model_index: list[Any] | None = field(default=None, repr=False)
    metrics: list[str] | None = None


def finished_merge(folder: Path) -> FinishedMerge | None:
    """Return the merge in a folder, None if no recipe there tells of one. Raises PlanError if one cannot be read."""
    source = hub.resolve(ModelRef(path=folder))
    recipe = recipe_beside(source)
    return FinishedMerge(recipe, EVALUATION in source.files) if recipe is not None else None


def lineage_of(source: Source, recipe: Recipe) -> Lineage:
    """Return what a merge says of itself.

    Args:
        source: its repository or folder.
        recipe: the one beside its weights, which they were found to be of.

    Raises:
        HubError: if the Hub cannot be reached.
    """
    parents = (hub.parse_hub_ref(model).repo_id for model in recipe.models if model not in recipe.local)
    card = read_card(hub.fetch(source, README), source.label).content if README in source.files else {}
    index, metrics = card.get("model-index"), card.get("metrics")
    return Lineage(
        recipe,
        tuple(dict.fromkeys(parent for parent in parents if parent)),
        tuple(by_products(source.files)),
        _verdict(source),
        index if _is_index(index) else None,
        [metric for metric in metrics if isinstance(metric, str)] if isinstance(metrics, list) else None,
    )


def _verdict(source: Source) -> str:
    verdict = scores_of(source).get("verdict")
    sentence = verdict.get("sentence") if isinstance(verdict, Mapping) else None
    return sentence if isinstance(sentence, str) else ""


def _is_index(content: Any) -> bool:
    """True for results that the Hub's own client reads."""
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        return bool(model_index_to_eval_results(content)[1])
    except Exception:  # of others' content, on which the client may fail anywhere
        return False
