"""Where a model goes that is written: into a folder, into a repository, or into both."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.api.push import push_or_keep
from hf_lwmm.hub import Pushed, PushOptions, Source
from hf_lwmm.progress import Progress


@dataclass(frozen=True)
class Destination:
    """The folder to write, None for a model that is only pushed, and the repository to push to, None for none."""

    path: Path | None
    repo_id: str | None
    options: PushOptions = PushOptions()

    @property
    def title(self) -> str:
        """The name by which the card calls the model."""
        return self.repo_id or (self.path.name if self.path is not None else "")

    def check_apart(self, inputs: Iterable[Source]) -> None:
        """Refuse a push in the place of a model that is read. Raises HubError."""
        if self.repo_id is not None:
            hub.check_apart(self.repo_id, self.options, inputs)

    def push(self, folder: Path, message: str, progress: Progress) -> Pushed | None:
        """Push what was written into a folder, which is a temporary one where none was to be kept.

        Raises:
            HfLwmmError: as `push_or_keep`.
        """
        if self.repo_id is None:
            return None
        progress("Pushing", 0, 1)
        return push_or_keep(folder, self.repo_id, self.options, message=message, temporary=self.path is None)


def destination(output: str | Path | None, push: bool | str | PushOptions, name: str) -> Destination:
    """Return where a model goes, after a check that this user may push there.

    Args:
        output: the folder to write, as for `merge`.
        push: whether and where to push, as for `merge`.
        name: the name of folder and repository where none is given.

    Raises:
        RefError: if the repository is no repository id.
        HubError: as `hub.check_push`.
    """
    options = PushOptions.of(push)
    if options is None:
        return Destination(Path(output or name), None)
    repo_id = hub.check_push(hub.target_repo(options, name), options)
    return Destination(None if output is None else Path(output or name), repo_id, options)
