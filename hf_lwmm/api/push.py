"""Push a merged folder to the Hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect
from hf_lwmm.checkpoints.weight_files import first_file
from hf_lwmm.errors import HfLwmmError, HubError, keeping
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import check_target
from hf_lwmm.hub import ModelRef, Pushed, PushOptions, Source, parse_hub_ref
from hf_lwmm.hub.card import README
from hf_lwmm.hub.local_folder import file_of, files_of, no_files_of
from hf_lwmm.options import option_arguments
from hf_lwmm.publishing.renamed_card import renamed_card
from hf_lwmm.publishing.superseded import superseded
from hf_lwmm.recipes.claims import other_content, recipe_beside
from hf_lwmm.recipes.recipe import CARRIED, FILE_NAME, Recipe
from hf_lwmm.recipes.recorded import added_beside
from hf_lwmm.text import shell_line


def push(folder: str | Path, repo_id: str, options: PushOptions = PushOptions()) -> Pushed:
    """Push a folder that `merge` wrote, or that `convert` wrote of a merge, as one commit.

    It takes the place of an earlier merge in the repository. Files that no merge wrote stay. The card may be edited
    before; the weights, and what is loaded with them, may not.

    Raises:
        HubError: if the folder is no merged model, or not the one of its recipe, if this user may not write there, or
            if it would take the place of a model that it was made of.
    """
    expect(options, PushOptions, "options")
    folder = Path(folder)
    recipe = recipe_beside(hub.resolve(ModelRef(path=folder))) if folder.is_dir() else None
    if recipe is None:
        raise HubError(
            f"{folder}: has no {FILE_NAME}, so it is not a merged model. Push what `merge` wrote, or what `convert` "
            "wrote of a merge."
        )
    wanted = hub.check_push(hub.target_repo(replace(options, repo=repo_id), ""), options)
    refs = [parse_hub_ref(ref) for ref in recipe.references if ref not in recipe.local]
    hub.check_apart(wanted, options, [Source(ref, ref.revision, ()) for ref in refs])
    contents = _contents(folder)
    _check_whole(folder, recipe, contents)
    if _name_card(folder / README, folder.resolve().name, wanted):
        contents[README] = hub.content_names(folder / README)
    return _push(folder, contents, wanted, options, message="Upload a model merged with hf-lwmm")


def _name_card(path: Path, old: str, new: str) -> bool:
    """Have a folder's card name the repository, from which its examples load; return True if that changes it."""
    text = path.read_bytes().decode(errors="surrogateescape") if path.is_file() else ""
    if (named := renamed_card(text, old, new)) == text:
        return False
    with atomic(check_target(path, overwrite=True)) as place:
        place.write_bytes(named.encode(errors="surrogateescape"))
    return True


def _check_whole(folder: Path, recipe: Recipe, contents: Mapping[str, tuple[str, str]]) -> None:
    """Refuse a folder whose weights, or what is loaded with them, are not what its recipe records. Raises HubError."""
    loaded = first_file(contents)
    problem = other_content(recipe, {name: sha256 for name, (sha256, _) in contents.items()})
    if not problem and loaded is not None and loaded not in recipe.weights:
        problem = f"{loaded} would be loaded, which its {recipe.file_name} does not record"
    if not problem:
        problem = added_beside(contents, [loaded] if loaded else [], recipe)
    if not problem:
        return
    if recipe.converted is not None:
        remedy = "Convert the merge again, with the command on its card, and push that."
    else:
        again = shell_line(["hf-lwmm", "merge", "--recipe", str(folder / FILE_NAME), "--output", "NEW"])
        remedy = f"Make the model again, and push that: {again}"
    raise HubError(f"{folder}: {problem}, so it was not pushed. {remedy}")


def files_in(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted. Raises CheckpointError if a link leads out of it."""
    names = files_of(folder)
    for name in names:
        file_of(folder, name)
    return list(names)


def push_files(folder: Path, repo_id: str, options: PushOptions, *, message: str) -> Pushed:
    """Push the files of a folder, as one commit, in place of what an earlier merge wrote into the repository.

    Hidden files, which may hold what nobody else should see, are left out with a warning.

    Raises:
        HubError: as `hub.push_folder` and `superseded`.
    """
    return _push(folder, _contents(folder), repo_id, options, message=message)


def _contents(folder: Path) -> dict[str, tuple[str, str]]:
    """The names of the files of a folder, and of each the names of its content. Raises CheckpointError."""
    return {name: hub.content_names(folder / name) for name in files_in(folder)}


def _push(
    folder: Path, contents: Mapping[str, tuple[str, str]], repo_id: str, options: PushOptions, *, message: str
) -> Pushed:
    """Push files of a folder, without hidden ones. Raises HubError."""
    hidden = [name for name in contents if any(part.startswith(".") for part in Path(name).parts) and not _is_own(name)]
    files = {name: content for name, content in contents.items() if name not in hidden}
    pushed = hub.push_folder(
        folder,
        files,
        repo_id,
        options,
        message=message,
        superseded=lambda remote, hashes, changed: superseded(remote, hashes, files, changed),
    )
    left_out = [f"{folder}: hidden files were not pushed: {', '.join(hidden[:5])}."] if hidden else []
    if others := no_files_of(folder):
        left_out.append(f"{folder}: links to folders, and what is no file, were not pushed: {', '.join(others[:5])}.")
    return replace(pushed, warnings=(*pushed.warnings, *left_out))


def _is_own(name: str) -> bool:
    """True for hidden files that mean something to the Hub."""
    return name == ".gitattributes" or Path(name).parent.name == ".eval_results"


def push_or_keep(folder: Path, repo_id: str, options: PushOptions, *, message: str, temporary: bool) -> Pushed:
    """Push a folder as `push_files`; if that fails, the error says where the folder is and how it is pushed.

    A temporary folder, which would vanish, is moved to a place of its own, from which it vanishes when it is pushed.

    Raises:
        HfLwmmError: as `push_files`.
    """
    place = _kept(folder, repo_id.rpartition("/")[2]) if temporary else folder
    if place is None:
        return push_files(folder, repo_id, options, message=message)
    command = _command(place, repo_id, options)
    try:
        with keeping(f"what was to be pushed is in {place}; to push it: {command}"):
            pushed = push_files(place, repo_id, options, message=message)
    except HfLwmmError as error:
        raise type(error)(f"{error} What was to be pushed is whole, in {place}. To push it: {command}") from error
    if temporary:
        shutil.rmtree(place.parent, ignore_errors=True)
    return pushed


def _kept(folder: Path, name: str) -> Path | None:
    """Move a temporary folder to a place where it stays whatever happens to this process; None if the disk is full."""
    try:
        place = Path(tempfile.mkdtemp(prefix="hf-lwmm-kept-")) / name
        folder.rename(place)
    except OSError:
        return None
    return place


def _command(folder: Path, repo_id: str, options: PushOptions) -> str:
    """The command line that pushes a folder; of one that is no merge, that of the stock client."""
    words = ["hf-lwmm", "push", str(folder), repo_id]
    if not any((folder / name).is_file() for name in (FILE_NAME, CARRIED)):
        words = ["hf", "upload", repo_id, str(folder), "."]
    return shell_line([*words, *option_arguments(replace(options, repo=""))])
