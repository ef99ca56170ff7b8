"""Push a merged folder to the Hub."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect
from hf_lwmm.errors import HfLwmmError, HubError, keeping
from hf_lwmm.hub import Pushed, PushOptions, Source, parse_hub_ref
from hf_lwmm.hub.local_folder import file_of, files_of
from hf_lwmm.planning.recipe import FILE_NAME, load_recipe
from hf_lwmm.publishing.command import option_arguments
from hf_lwmm.publishing.superseded import superseded


def push(folder: str | Path, repo_id: str, options: PushOptions = PushOptions()) -> Pushed:
    """Push a folder that `merge` wrote, as one commit.

    It takes the place of an earlier merge in the repository. Files that no merge wrote stay.

    Raises:
        HubError: if the folder is no merged model, this user may not write there, or it would take the place of a model
            that was merged.
    """
    expect(options, PushOptions, "options")
    folder = Path(folder)
    if not (folder / FILE_NAME).is_file():
        raise HubError(f"{folder}: has no {FILE_NAME}, so it is not a merged model. Push only what `merge` wrote.")
    wanted = hub.check_push(hub.target_repo(replace(options, repo=repo_id), ""), options)
    recipe = load_recipe(folder / FILE_NAME)
    refs = [parse_hub_ref(model) for model in recipe.models if model not in recipe.local]
    hub.check_apart(wanted, options, [Source(ref, ref.revision, ()) for ref in refs])
    return push_files(folder, wanted, options, message="Upload a model merged with hf-lwmm")


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
    every = files_in(folder)
    hidden = [name for name in every if any(part.startswith(".") for part in Path(name).parts) and not _is_own(name)]
    files = [name for name in every if name not in hidden]
    pushed = hub.push_folder(
        folder,
        files,
        repo_id,
        options,
        message=message,
        superseded=lambda remote, hashes, changed: superseded(remote, hashes, files, changed),
    )
    left_out = (f"{folder}: hidden files were not pushed: {', '.join(hidden[:5])}.",) if hidden else ()
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
    """The command line that pushes a folder; of one that no merge wrote, that of the stock client."""
    words = ["hf-lwmm", "push", str(folder), repo_id]
    if not (folder / FILE_NAME).is_file():
        words = ["hf", "upload", repo_id, str(folder), "."]
    return shlex.join([*words, *option_arguments(replace(options, repo=""))])
