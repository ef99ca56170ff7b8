"""Tell which files of a repository an earlier merge wrote, so that the next one takes their place as a whole.

A merge that was converted counts as one here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from pathlib import PurePosixPath
from typing import Any

from hf_lwmm import hub
from hf_lwmm.checkpoints.companions import ADAPTER_CONFIG, COMPANIONS, CONFIG, PROCESSORS, beside, loaded_beside
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.checkpoints.weight_files import first_file, is_weights, weights_in
from hf_lwmm.errors import DocumentError, HfLwmmError, HubError
from hf_lwmm.files.documents import as_mapping, read_json
from hf_lwmm.hub import Replacement, Source, parse_hub_ref
from hf_lwmm.publishing.eval_results import eval_results_name
from hf_lwmm.recipes.claims import recipe_beside
from hf_lwmm.recipes.recipe import Recipe

EVALUATION = "evaluation.json"
LAYER_PLOT, SCORE_PLOT = "plots/layer_weights.png", "plots/scores.png"
_PICTURE = re.compile(r"plots/(layer_weights|scores|\d\d_[^/]*)\.png")  # the last kind are examples
_EVAL_RESULTS = re.compile(r"\.eval_results/[^/]+\.yaml")
_REMEDY = "Delete what is not wanted there, or push to another repository."


def by_products(files: Iterable[str]) -> Iterator[str]:
    """Return the names among files that are those of a merge's scores and pictures."""
    return (each for each in files if each == EVALUATION or _PICTURE.fullmatch(each) or _EVAL_RESULTS.fullmatch(each))


def superseded(
    remote: Source, hashes: Mapping[str, str], files: Collection[str], changed: Collection[str]
) -> Replacement:
    """Return what of a repository an earlier merge wrote and a new push leaves out, and warnings about the rest.

    Such a repository has the recipe of a merge. Of a merge are the recipe, the scores and the pictures, by their names;
    weights, and copies of the anchor's configuration, image processor and code, with the hashes that the recipe
    records. Of copies older recipes record no hashes: they are those of the names that the anchor has at its recorded
    commit. All else was put there by somebody else, and stays.

    Args:
        remote: the repository at its last commit.
        hashes: by file, the SHA-256 of its content, or git's name for the content of a small one.
        files: what the push adds.
        changed: those of them that the repository does not hold already.

    Raises:
        HubError: if a file that stays would be loaded in place of what the push adds, or as its configuration.
    """
    recipe = _earlier(remote)
    own = set(_written(remote, hashes, recipe, files)) if recipe is not None else set()
    stays = set(remote.files) - own - set(files)
    _check_loaded(remote, stays, files)
    return Replacement(own - set(files), tuple(_warnings(remote, own, stays, files, changed)))


def _earlier(remote: Source) -> Recipe | None:
    """The recipe of the merge in a repository, None if it has none that can be read."""
    try:
        return recipe_beside(remote)
    except HubError:
        raise
    except HfLwmmError:
        return None


def _written(remote: Source, hashes: Mapping[str, str], recipe: Recipe, files: Collection[str]) -> Iterator[str]:
    yield recipe.file_name
    recorded = {name: digest for name, digest in recipe.weights.items() if is_weights(name)}
    copies = {n: digest for n, digest in (recipe.companions or {}).items() if _may_be_copy(n) and n not in files}
    for name, digest in {**copies, **recorded}.items():
        if name in remote.files and _sha256(remote, name, hashes[name]) == digest:
            yield name
    yield from filter(_PICTURE.fullmatch, remote.files)
    if EVALUATION in remote.files:
        yield EVALUATION
        name = eval_results_name(str(scores_of(remote).get("dataset")))  # the same in the Hub's format
        if name in remote.files:
            yield name
    left = {name for name in remote.files if name not in files and _may_be_copy(name) and "/" not in name}
    if left and recipe.companions is None:
        yield from left & _anchor_files(recipe)


def _sha256(remote: Source, name: str, digest: str) -> str:
    return digest if len(digest) == 64 else hub.sha256(hub.fetch(remote, name))


def scores_of(source: Source) -> Mapping[str, Any]:
    """Return the scores that a merge has of itself; nothing if it has none that can be read. Raises HubError."""
    if EVALUATION not in source.files:
        return {}
    try:
        return as_mapping(read_json(hub.fetch(source, EVALUATION), EVALUATION), EVALUATION)
    except DocumentError:
        return {}


def _may_be_copy(name: str) -> bool:
    return PurePosixPath(name).name in COMPANIONS or name.endswith(".py")


def _anchor_files(recipe: Recipe) -> set[str]:
    """The names of the anchor's files; none if it was local or cannot be found any more."""
    if recipe.anchor in recipe.local:
        return set()
    try:
        return set(hub.resolve(parse_hub_ref(recipe.anchor)).files)
    except HfLwmmError:
        return set()


def _check_loaded(remote: Source, stays: Set[str], files: Collection[str]) -> None:
    """Refuse a push after which another network would be loaded than the one that it adds."""
    wanted, loaded = first_file(files), first_file(sorted({*stays, *files}))
    if wanted is None:
        return  # a merge of several files without an index is named when it is loaded
    if wanted != loaded:
        raise HubError(
            f"{remote.ref.repo_id}: has {loaded or 'files of weights'} that no merge wrote, and that would be loaded "
            f"in place of {wanted} or beside it. {_REMEDY}"
        )
    folder = _folder(wanted)
    first, second = (beside(folder, name) for name in PROCESSORS)
    decisive = [beside(folder, CONFIG), beside(folder, ADAPTER_CONFIG), *([first] if second in files else [])]
    if found := [name for name in decisive if name in stays]:
        raise HubError(
            f"{remote.ref.repo_id}: has {found[0]} that no merge wrote, and that would be loaded together with "
            f"{wanted}, which it does not belong to. {_REMEDY}"
        )


def _warnings(
    remote: Source, own: Set[str], stays: Set[str], files: Collection[str], changed: Collection[str]
) -> Iterator[str]:
    where = remote.ref.repo_id
    if EVALUATION in own - set(files):
        gone = ", ".join(sorted(by_products(own - set(files))))
        yield (
            f"{where}: the scores of the earlier merge are removed, since this one has none: {gone}. Merge with "
            "--eval-data to publish scores with it."
        )
    if wanted := first_file(files):
        folder = _folder(wanted)
        indexes = (name for name in sorted(stays) if name.endswith(INDEX_SUFFIX) and _folder(name) == folder)
        kept = (*weights_in(sorted(stays), folder), *indexes, *loaded_beside(stays, folder))
        if kept:
            yield (
                f"{where}: left what no merge wrote beside {wanted}: {', '.join(kept)}. Libraries may load it; delete "
                "there what does not belong to the merge."
            )
    replaced = [name for name in changed if name in remote.files and name not in own and is_weights(name)]
    if replaced:
        yield (
            f"{where}: replaced {', '.join(replaced)}, which no merge wrote. What was there is in the history, at "
            f"commit {str(remote.sha)[:12]}."
        )


def _folder(name: str) -> str:
    parent = PurePosixPath(name).parent.as_posix()
    return "" if parent == "." else parent
