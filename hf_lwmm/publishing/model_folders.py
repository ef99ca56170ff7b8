"""Find the place of a model's folder before any work is done for it, which replaces nothing but an earlier output."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.checkpoints.companions import COMPANIONS
from hf_lwmm.checkpoints.shard_index import INDEX_SUFFIX
from hf_lwmm.errors import HfLwmmError, MergeError, PlanError
from hf_lwmm.files.documents import read_text
from hf_lwmm.files.targets import Target, check_target
from hf_lwmm.publishing.superseded import by_products
from hf_lwmm.recipes.claims import other_files, recipe_beside
from hf_lwmm.recipes.recipe import CARRIED, FILE_NAME, read_recipe

# What every output may have. Files of other names are an output's only if its recipe records them.
_USUAL = {FILE_NAME, CARRIED, "README.md", *COMPANIONS}
_TAG = "hf-lwmm"  # which the cards of outputs have
_DELETES = "--overwrite would delete it. Move it away, or choose another output."
_NETWORKS = Path(__file__).parents[1] / "networks"  # whose code a converted model comes with
_WEIGHTS = re.compile(rf"model(-\d+-of-\d+)?\.safetensors|model\.safetensors{re.escape(INDEX_SUFFIX)}")


def check_model_folder(path: Path, overwrite: bool, inputs: Iterable[Path] = ()) -> Target:
    """Return the place for the folder of a merge or of a converted model, as `check_target` does.

    Raises:
        MergeError: also if it would take the place of a file, or of a folder with files that are no output's.
    """
    target = check_target(path, overwrite, inputs, folder=True)
    if target.before is not None and not path.is_symlink():
        known, names = _USUAL | _recorded(path), list(_files(path))
        for name in names:
            usual = name in known or _WEIGHTS.fullmatch(name) or (name.endswith(".py") and (_NETWORKS / name).is_file())
            if not usual and not any(by_products([name])):
                raise MergeError(
                    f"{path} holds {name}, which is no part of a model that was written there, and {_DELETES}"
                )
        if foreign := "" if all(map(_WEIGHTS.fullmatch, names)) else _foreign(path):  # weights alone may be converted
            raise MergeError(f"{path}: {foreign}, and {_DELETES}")
    return target


def _foreign(folder: Path) -> str:
    """Why the model in a folder is none that was written there, or no longer; empty if it still is."""
    source = hub.resolve(hub.ModelRef(path=folder))
    try:
        recipe = recipe_beside(source)
        if recipe is not None:
            return other_files(source, recipe)
    except PlanError:
        return f"its {FILE_NAME} is no recipe"
    tags = source.card.get("tags")
    return "" if isinstance(tags, list) and _TAG in tags else "hf-lwmm did not write this model"


def _files(folder: Path) -> Iterator[str]:
    """The files in a folder by their paths in it, and links to folders, which are not followed."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in sorted((*files, *links)))


def _recorded(folder: Path) -> set[str]:
    """The files that a recipe in the folder records, none if there is no recipe that can be read."""
    found: set[str] = set()
    for name in (FILE_NAME, CARRIED):
        try:
            recipe = read_recipe(read_text(folder / name, name), name)
        except (HfLwmmError, OSError):
            continue
        found |= {*recipe.weights, *(recipe.companions or {})}
    return found
