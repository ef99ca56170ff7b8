"""Name the images of one purpose, and record the images that were read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.files.documents import shortened
from hf_lwmm.files.nearest import or_nearest
from hf_lwmm.hub.refs import data_set_name, is_repo_id
from hf_lwmm.labels import id_schemes
from hf_lwmm.options import Options, check_names, naming_with_prefix, option, with_prefix


@dataclass(frozen=True)
class ImageSource(Options):
    """Images for one purpose: a data set on the Hub or in a folder, a split of it, and how its rows are read.

    `split` None is the split that the purpose calls for: validation to score, train to learn from.
    """

    data: str = option("", "org/name[@revision], or a folder.", metavar="DATASET")
    split: str | None = option(None, "Split of the data set.")
    config: str | None = option(None, "Configuration of the data set, where it has several.")
    limit: int | None = option(None, "Use at most this many images.", minimum=1)
    image_column: str | None = option(None, "Column of the images.")
    label_column: str | None = option(None, "Column of the labels.")
    ids: str | None = option(None, "Ids in label files: gta, from-0, from-1, binary, ...", known=id_schemes)
    ignore_index: int | None = option(None, "Id in label files, beside 255, of pixels of no class.", minimum=0)
    streaming: bool = option(False, "Read rows of the Hub as they are needed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.data:
            raise self.error(f"{self.flag('data')} is missing: org/name on the Hub, or a folder of images.")
        object.__setattr__(self, "data", data_set_name(self.data))
        try:
            Path(self.data).is_dir()
        except OSError as error:  # a name that is too long, or a folder that this user may not look into
            raise self.error(f"{self.flag('data')} {shortened(self.data)}: {error.strerror}.") from None

    def __str__(self) -> str:
        return self.data + (f", split {self.split}" if self.split else "")


def check_place(data: str) -> None:
    """Refuse what names neither a folder of this machine nor a data set of the Hub.

    Raises:
        DatasetError: saying what a data set is named by.
    """
    if not Path(data).is_dir() and data.partition("@")[0].count("/") != 1:
        raise DatasetError(f"{data}: neither a folder here nor org/name[@revision].{or_nearest(data)}")


def naming_options(purpose: str) -> AbstractContextManager[None]:
    """Return a context in which errors name the options of images as `merge` has them: `--eval-ids` for `--ids`."""
    return naming_with_prefix(ImageSource.flags(), f"{purpose}-")


def for_purpose(text: str, purpose: str) -> str:
    """Return a text with the options of images as `merge` has them for a purpose: "eval", "tune" or "bn"."""
    return with_prefix(text, ImageSource.flags(), f"{purpose}-")


def as_images(images: ImageSource | str | Path) -> ImageSource:
    """Return an image source for what names one. Raises PlanError for anything else."""
    if not isinstance(images, ImageSource | str | Path):
        raise PlanError(f"Name images by a data set, a folder or hf_lwmm.ImageSource(...), not {images!r}.")
    return images if isinstance(images, ImageSource) else ImageSource(str(images))


@dataclass(frozen=True)
class ImageProvenance(ImageSource):
    """Images that were looked at, as a recipe records them: `split` and `limit` are those that were used.

    `data` is org/name without a revision, and `commit` the data set's; of a folder it is only the last part, never a
    path, and `local` is True.
    """

    commit: str | None = None
    local: bool = False

    def __post_init__(self) -> None:
        Options.__post_init__(self)  # its name is no address, whatever it looks like

    @property
    def ref(self) -> str:
        """The data set as an option takes it: org/name@commit."""
        return f"{self.data}@{self.commit}" if self.commit else self.data

    @property
    def source(self) -> ImageSource:
        """The source that reads the same images in the same way."""
        own = {each.name: getattr(self, each.name) for each in fields(ImageSource)}
        return ImageSource(**{**own, "data": self.ref})

    def __str__(self) -> str:
        return f"{self.data}, split {self.split} ({self.limit} images)"

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe's entry."""
        entry = {"local": self.data} if self.local else {"data": self.ref}
        skipped = ("data", "commit", "local", "streaming")
        return entry | {name: value for name, value in self.changed().items() if name not in skipped}


def image_provenance(source: ImageSource, split: str, count: int, commit: str | None) -> ImageProvenance:
    """Return the record of the first `count` images of a source, opened at a commit."""
    local = Path(source.data).is_dir()
    name = Path(source.data).resolve().name if local else source.data.partition("@")[0]
    own = {each.name: getattr(source, each.name) for each in fields(ImageSource)}
    return ImageProvenance(**{**own, "data": name, "split": split, "limit": count}, commit=commit, local=local)


def read_image_provenance(entry: Any, where: str) -> ImageProvenance:
    """Return the images of a recipe's entry.

    Raises:
        PlanError: if it names none, or has an unknown or unfit value.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("data", entry.get("local")), str):
        raise PlanError(f"{where}: needs at least `data`, such as org/name, or `local`.")
    check_names(entry, ["local", *(each.name for each in fields(ImageSource))], where)
    rest = {name: value for name, value in entry.items() if name not in ("data", "local")}
    if "local" in entry:
        return ImageProvenance.read({"data": entry["local"], **rest, "local": True}, where)
    name, _, commit = entry["data"].partition("@")
    if not is_repo_id(name):
        raise PlanError(f"{where}, data: a recipe names a data set of the Hub, such as org/name, not {name!r}.")
    return ImageProvenance.read({"data": name, **rest, "commit": commit or None}, where)
