"""Tell which files of a repository an earlier merge wrote, so that the next one takes their place as a whole."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set

from hf_lwmm import hub
from hf_lwmm.checkpoints.companions import COMPANIONS
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.checkpoints.weight_files import first_file
from hf_lwmm.errors import HfLwmmError, HubError
from hf_lwmm.files.documents import as_mapping, read_json, read_text
from hf_lwmm.hub import Source, parse_hub_ref
from hf_lwmm.planning.recipe import FILE_NAME, Recipe, read_recipe
from hf_lwmm.publishing.eval_results import eval_results_name

EVALUATION = "evaluation.json"
LAYER_PLOT = "plots/layer_weights.png"
_PICTURE = re.compile(r"plots/(layer_weights|\d\d_[^/]*)\.png")  # the second kind are examples


def superseded(remote: Source, hashes: Mapping[str, str], files: Collection[str]) -> Set[str]:
    """Return the files of a repository that an earlier merge wrote and that a new push replaces or leaves out.

    Such a repository has the recipe of a merge. Of a merge are the recipe, the scores and the pictures, by their names;
    files of weights with the hash that the recipe records; and copies of the anchor's configuration and code, if the
    anchor has files of these names at the recorded commit. All else was put there by somebody else, and stays.

    Args:
        remote: the repository at its last commit.
        hashes: by file, the SHA-256 of its content, or git's name for the content of a small one.
        files: what the push adds.

    Raises:
        HubError: if a file that stays would be loaded in place of the new weights, or beside them.
    """
    recipe = _earlier(remote)
    found = set(_written(remote, hashes, recipe, files)) if recipe is not None else set()
    _check_loaded(remote, sorted({*remote.files, *files} - (found - set(files))), files)
    return found


def _earlier(remote: Source) -> Recipe | None:
    """The recipe of the merge in a repository, None if it has none that can be read."""
    if FILE_NAME not in remote.files:
        return None
    try:
        return read_recipe(read_text(hub.fetch(remote, FILE_NAME), FILE_NAME), FILE_NAME)
    except HubError:
        raise
    except HfLwmmError:
        return None


def _written(remote: Source, hashes: Mapping[str, str], recipe: Recipe, files: Collection[str]) -> Iterator[str]:
    yield FILE_NAME
    for name, digest in recipe.output.items():
        ours = name in remote.files and name.endswith((*WEIGHT_SUFFIXES, INDEX_SUFFIX))
        if ours and _sha256(remote, name, hashes[name]) == digest:
            yield name
    yield from filter(_PICTURE.fullmatch, remote.files)
    if EVALUATION in remote.files:
        yield EVALUATION
        name = _eval_results(remote)
        if name in remote.files:
            yield name
    left = {name for name in remote.files if name not in files and _may_be_copy(name)}
    if left:
        yield from left & _anchor_files(recipe)


def _sha256(remote: Source, name: str, digest: str) -> str:
    return digest if len(digest) == 64 else hub.sha256(hub.fetch(remote, name))


def _eval_results(remote: Source) -> str:
    """The name of the file with the scores of evaluation.json in the Hub's format, empty if there is none."""
    try:
        content = as_mapping(read_json(hub.fetch(remote, EVALUATION), EVALUATION), EVALUATION)
        return eval_results_name(str(content.get("dataset")))
    except HubError:
        raise
    except HfLwmmError:
        return ""


def _may_be_copy(name: str) -> bool:
    return name in COMPANIONS or (name.endswith(".py") and "/" not in name)


def _anchor_files(recipe: Recipe) -> set[str]:
    """The names of the anchor's files; none if it was local or cannot be found any more."""
    if recipe.anchor in recipe.local:
        return set()
    try:
        return set(hub.resolve(parse_hub_ref(recipe.anchor)).files)
    except HfLwmmError:
        return set()


def _check_loaded(remote: Source, after: Collection[str], files: Collection[str]) -> None:
    """Refuse a push after which other weights would be loaded than those that it adds."""
    wanted, loaded = first_file(files), first_file(after)
    if wanted not in (None, loaded):  # a merge of several files without an index is named when it is loaded
        raise HubError(
            f"{remote.ref.repo_id}: has {loaded or 'files of weights'} that no merge wrote, and that would be loaded "
            f"in place of {wanted} or beside it. Delete what is not wanted there, or push to another repository."
        )
