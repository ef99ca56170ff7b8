"""Push a merged folder to the Hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.arguments import expect
from hf_lwmm.errors import HubError
from hf_lwmm.hub import Pushed, PushOptions
from hf_lwmm.hub.local_folder import file_of, files_of
from hf_lwmm.planning.recipe import FILE_NAME
from hf_lwmm.publishing.superseded import superseded


def push(folder: str | Path, repo_id: str, options: PushOptions = PushOptions()) -> Pushed:
    """Push a folder that `merge` wrote, as one commit.

    It takes the place of an earlier merge in the repository. Files that no merge wrote stay.

    Raises:
        HubError: if the folder is no merged model, or this user may not write there.
    """
    expect(options, PushOptions, "options")
    folder = Path(folder)
    if not (folder / FILE_NAME).is_file():
        raise HubError(f"{folder}: has no {FILE_NAME}, so it is not a merged model. Push only what `merge` wrote.")
    wanted = hub.target_repo(replace(options, repo=repo_id), "")
    hub.check_push(wanted, options)
    return push_files(folder, wanted, options, message="Upload a model merged with hf-lwmm")


def files_in(folder: Path) -> list[str]:
    """Return the names of all files below a folder, sorted. Raises CheckpointError if a link leads out of it."""
    names = files_of(folder)
    for name in names:
        file_of(folder, name)
    return list(names)


def push_files(folder: Path, repo_id: str, options: PushOptions, *, message: str) -> Pushed:
    """Push all files of a folder, as one commit, in place of what an earlier merge wrote into the repository.

    Raises:
        HubError: as `hub.push_folder` and `superseded`.
    """
    files = files_in(folder)
    return hub.push_folder(
        folder,
        files,
        repo_id,
        options,
        message=message,
        superseded=lambda remote, hashes, changed: superseded(remote, hashes, files, changed),
    )
