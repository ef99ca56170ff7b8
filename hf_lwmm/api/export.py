"""Export a checkpoint of a training repository as a model repository that one line of transformers loads."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect
from hf_lwmm.api.destination import destination
from hf_lwmm.api.load import load
from hf_lwmm.api.push import files_in
from hf_lwmm.files.atomic import atomic
from hf_lwmm.hub import Pushed, PushOptions, Ref, Source, parse_ref
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.progress import Progress, silent
from hf_lwmm.publishing.converted_card import render_converted_card
from hf_lwmm.publishing.licences import check_licence, merged_licence
from hf_lwmm.publishing.lineage import Lineage, lineage_of
from hf_lwmm.publishing.model_folders import check_model_folder
from hf_lwmm.recipes.claims import other_beside
from hf_lwmm.recipes.recipe import CARRIED

if TYPE_CHECKING:
    from hf_lwmm.networks.loaded_model import LoadedModel


@dataclass(frozen=True)
class Export:
    """A network that was written: where it is, and what its user should know."""

    loaded: LoadedModel = field(repr=False)
    folder: Path | None
    pushed: Pushed | None
    notes: tuple[str, ...]


def export(
    model: Ref,
    output: str | Path | None = None,
    *,
    push: bool | str | PushOptions = False,
    license: str | None = None,
    overwrite: bool = False,
    network: NetworkOptions = NetworkOptions(),
    progress: Progress = silent,
) -> Export:
    """Write a model as a network with its configuration, image processor, code and card, and push it.

    Of a merge, also of one that was converted before, scores, pictures and the recipe come along if its files are those
    that the recipe records. The recipe becomes `merge.yaml` and gets the hashes of the files that are written here.

    Args:
        model: a reference, as for `merge`.
        output: the folder to write; the model's name if None and nothing is pushed.
        push: True for `<user>/<model's name>`, a repository id, or all options of a push.
        license: the license to state in place of the model's own.
        overwrite: replace an existing output.
        network: as for `load`; weights keep the type that they are stored in.

    Raises:
        HfLwmmError: a subclass; what was there before still is, and nothing half-written remains.
    """
    expect(network, NetworkOptions, "network")
    check_licence(license)
    ref = parse_ref(model)
    goal = destination(output, push, ref.name)
    target = check_model_folder(goal.path, overwrite, local_inputs(ref, network)) if goal.path is not None else None
    progress("Loading", 0, 2)
    loaded = load(ref, replace(network, compute_dtype="stored"))
    goal.check_apart([loaded.source])
    licence = merged_licence([loaded.source], license)
    message = f"Convert {loaded.source.label} with hf-lwmm"
    progress("Writing", 1, 2)
    with atomic(target) as folder:
        loaded.save(folder)
        lineage, other = _lineage(loaded)
        if lineage is not None:
            _carry(loaded.source, lineage, folder)
        card = render_converted_card(loaded, network, licence.licence, goal.title, goal.repo_id, lineage)
        (folder / "README.md").write_text(card, encoding="utf-8")
        pushed = goal.push(folder, message, progress) if goal.path is None else None
    if goal.path is not None:  # only now, so that a push that fails does not cost the finished folder
        pushed = goal.push(goal.path, message, progress)
    return Export(loaded, goal.path, pushed, (*loaded.notes, *other, *licence.warnings))


def _lineage(loaded: LoadedModel) -> tuple[Lineage | None, tuple[str, ...]]:
    """The lineage of a merge, None of another network, and a note if it is not the merge of the recipe beside it."""
    claim = loaded.claim
    if claim is None:
        return None, ()
    fault = claim.fault or (other_beside(loaded.source, claim.recipe) if claim.recipe else "")
    if claim.recipe is not None and not fault:
        return lineage_of(loaded.source, replace(claim.recipe, converted=None)), ()
    note = (
        f"{loaded.label}: {fault}, so nothing that is told of that merge was carried over: no parents, scores or recipe"
    )
    return None, (note,)


def _carry(source: Source, lineage: Lineage, folder: Path) -> None:
    """Copy what a merge says of itself beside the files of its network, and record these."""
    converted = hub.file_hashes({name: folder / name for name in files_in(folder)})
    for name in lineage.files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(hub.fetch(source, name).read_bytes())
    recipe = replace(lineage.recipe, converted=converted)
    (folder / CARRIED).write_text(recipe.to_yaml(), encoding="utf-8")
