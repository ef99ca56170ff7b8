"""Make a merge again from its recipe, and compare the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.local_models import local_models
from hf_lwmm.api.merge import merge
from hf_lwmm.checkpoints.companions import other_weights, read_config
from hf_lwmm.checkpoints.weight_files import choose_files
from hf_lwmm.engine.write_options import WriteOptions
from hf_lwmm.errors import CheckpointError, PlanError, RefError
from hf_lwmm.files.scratch import scratch_folder
from hf_lwmm.hub import ModelRef, Ref, Source, parse_hub_ref, parse_ref
from hf_lwmm.progress import Progress, silent
from hf_lwmm.recipes.claims import other_files, recipe_beside
from hf_lwmm.recipes.recipe import FILE_NAME, Recipe
from hf_lwmm.recipes.recorded import added_beside
from hf_lwmm.text import shell_line


@dataclass(frozen=True)
class Reproduction:
    """The outcome of merging again: `same` is True if the bytes are the recorded ones, and what would be loaded.

    The mappings go from file name to SHA-256, of the weights and of what the merge has beside them, if its recipe says.
    `loaded` are the files of weights that a loader of the repository would take, and `why` says what is wrong with
    them, or with what is loaded together with them, if anything is.
    """

    repo: str
    same: bool
    recorded: Mapping[str, str]
    stored: Mapping[str, str]
    merged: Mapping[str, str]
    loaded: tuple[str, ...]
    why: str = ""


def reproduce(repo: Ref, models: Sequence[Ref] = (), *, progress: Progress = silent) -> Reproduction:
    """Merge again what a merged repository records, at the same commits, and compare the bytes.

    Nothing on this machine is read that the recipe names: models, measurements and images are the Hub's. What was local
    is looked for, by its content, among `models`, which are files and folders of this machine.

    Layer weights that were decided on images are taken from the recipe. BatchNorm's statistics that were estimated on
    images are estimated again, with floating-point sums that may end in other bits on another machine.

    Raises:
        PlanError: if it has no recipe, or was converted, or a parent was a local file that is not among `models`, or
            one of these none.
        RefError: if the recipe names a path, or a file is named in `repo`.
        HubError: if a parent is gone.
    """
    ref = parse_ref(repo)
    if ref.files:
        raise RefError(f"{ref}: name the repository or folder alone; its recipe says which files are made again.")
    if ref.path is not None and ref.path.is_file():
        raise RefError(f"{ref}: a file. Name the folder that it is in: {ref.path.parent}")
    source = hub.resolve(ref)
    recipe = recipe_beside(source)
    if recipe is None:
        raise PlanError(f"{source.label}: has no {FILE_NAME}, so it was not made by hf-lwmm.")
    if recipe.converted is not None:
        raise PlanError(_of_converted(source, recipe))
    local = local_models(recipe, [parse_ref(model) for model in models], source.label)
    if recipe.bn_images is not None and recipe.bn_images.local:
        raise PlanError(
            f"{source.label}: cannot be made again from here: BatchNorm's statistics were estimated on the images of "
            f"{recipe.bn_images.data}, which was a local folder."
        )
    if recipe.bn_images is not None and Path(recipe.bn_images.data).is_dir():
        raise PlanError(
            f"{source.label}: the folder {recipe.bn_images.data} has the name of a data set of its recipe. Run this in "
            "another folder."
        )

    def found(name: str) -> ModelRef:
        return local[name] if name in local else parse_hub_ref(name)

    inputs = replace(
        recipe.inputs,
        base=found(recipe.base) if recipe.base else None,
        measurements=tuple(map(found, recipe.measurements)),
    )
    recorded = recipe.files_beside
    stored = hub.file_hashes({name: hub.fetch(source, name) for name in recorded if name in source.files})
    with scratch_folder() as folder:
        again = merge(
            [found(model) for model in recipe.models],
            found(recipe.anchor),
            knobs=recipe.knobs,
            inputs=inputs,
            output=folder / "again",
            writing=WriteOptions(recipe.files.format, recipe.files.max_shard_size, allow_nonfinite=True),
            progress=progress,
        )
    merged = {**again.recipe.output, **((again.recipe.beside or {}) if recipe.beside is not None else {})}
    loaded, why = _loaded(source, sorted(recipe.output))
    if not why and (added := added_beside(source.files, loaded, again.recipe)):
        why = f"{added}."
    same = merged == recorded == stored and not why
    return Reproduction(source.label, same, recorded, stored, merged, loaded, why)


def _of_converted(source: Source, recipe: Recipe) -> str:
    """The sentences on a merge that was converted, and on making it again."""
    name = recipe.file_name
    here = other_files(source, recipe) or f"its files are those that its {name} records"
    place, fetching = str(source.ref.path / name if source.ref.path is not None else name), ""
    if source.ref.repo_id is not None:
        revision = ["--revision", source.sha] if source.sha else []
        fetching = (
            shell_line(["hf", "download", source.ref.repo_id, name, *revision, "--local-dir", "."]) + " and then "
        )
    again = fetching + shell_line(["hf-lwmm", "merge", "--recipe", place, "--output", "NEW"])
    return (
        f"{source.label}: a merge that was converted, which its recipe alone does not make again; {here}. To make the "
        f"merge itself again, by {name}: {again}"
    )


def _loaded(source: Source, output: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The files that would be loaded, and what is wrong with them if they are not those of a merge's output."""
    try:
        chosen = choose_files(source)
    except CheckpointError as error:
        try:
            choose_files(replace(source, files=tuple(output)))
        except CheckpointError:
            return (), ""  # a merge of several files without an index, which are named when they are loaded
        return (), str(error)
    loaded = (*chosen.names, *([chosen.index.name] if chosen.index else []))
    if (named := other_weights(read_config(source, chosen.folder).content, loaded, chosen.folder)) is not None:
        return (named,), f"{named} would be loaded, which its config.json names."
    if others := sorted(set(loaded) - set(output)):
        return loaded, f"{', '.join(others)} would be loaded, which the recipe does not make."
    return loaded, ""
