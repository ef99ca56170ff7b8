"""Find the local models of a recipe on this machine, by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from hf_lwmm import hub
from hf_lwmm.checkpoints.weight_files import choose_files
from hf_lwmm.errors import PlanError
from hf_lwmm.hub import ModelRef, Ref, parse_ref
from hf_lwmm.recipes.recipe import Recipe


def local_models(recipe: Recipe, given: Sequence[ModelRef], label: str) -> Mapping[str, ModelRef]:
    """Return where each local model of a recipe is, by its name there; one file may be several models.

    Args:
        recipe: a recipe with hashes.
        given: files and folders that may hold them.
        label: what messages call the recipe's repository.

    Raises:
        PlanError: if one is not among them, or one of them is none of the recipe's.
        CheckpointError: if one of them has no weights.
    """
    wanted, contents = _wanted(recipe), _contents(given)
    found = _found(wanted, contents)
    if missing := [name for name in dict.fromkeys(recipe.local) if name not in found]:
        one = len(missing) == 1
        what = "was a local file or folder" if one else "were local files or folders"
        it, is_known = ("it", "it is known by its") if one else ("them", "they are known by their")
        raise PlanError(
            f"{label}: cannot be made again from here: {', '.join(missing)} {what}. If you have {it}, name {it}: "
            f"--models PATH, once for each; {is_known} SHA-256."
        )
    if others := [ref for ref, content in contents.items() if content not in wanted.values()]:
        raise PlanError(f"{label}: {others[0].shown} is none of its models: no local one has this SHA-256.")
    return found


def known_local_models(recipe: Recipe, given: Sequence[Ref]) -> Mapping[str, ModelRef]:
    """Return where those local models of a recipe are, by their names there, that are among the given models.

    Raises:
        HfLwmmError: a subclass, if one of the local models that are given has no weights or cannot be read.
    """
    local = [ref for ref in map(parse_ref, given) if ref.is_local]
    return _found(_wanted(recipe), _contents(local))


def _wanted(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The content of each local model, by its name."""
    named = zip(recipe.references, recipe.sha256, strict=False)
    return {name: _content(each) for name, each in named if name in recipe.local}


def _contents(given: Sequence[ModelRef]) -> dict[ModelRef, tuple[str, ...]]:
    return {ref: _content(_hashes(ref)) for ref in given}


def _found(wanted: Mapping[str, tuple[str, ...]], contents: Mapping[ModelRef, tuple[str, ...]]) -> dict[str, ModelRef]:
    return {
        name: _as_recorded(name, ref)
        for name, own in wanted.items()
        for ref, content in contents.items()
        if own and content == own
    }


def _as_recorded(name: str, ref: ModelRef) -> ModelRef:
    """The reference in the form of its name: `folder:file` reads the config.json beside the file, `file` does not."""
    assert ref.path is not None
    if ":" in name and ref.path.is_file():
        return ModelRef(path=ref.path.parent, files=(ref.path.name,))
    if ":" not in name and len(ref.files) == 1 and PurePath(name).name == PurePath(ref.files[0]).name:
        return ModelRef(path=ref.path / ref.files[0])
    return ref


def _hashes(ref: ModelRef) -> Mapping[str, str]:
    source = hub.resolve(ref)
    return hub.file_hashes({name: hub.fetch(source, name) for name in choose_files(source).names})


def _content(hashes: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(hashes.values()))
