"""Read rows with `datasets`, from the Hub or a folder, by number; failures become errors of one line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from hf_lwmm.data.decoding import SUFFIXES, UNREAD_SUFFIXES
from hf_lwmm.data.folders import check_kinds
from hf_lwmm.errors import DatasetError, first_line
from hf_lwmm.files.nearest import or_nearest
from hf_lwmm.files.walking import files_below
from hf_lwmm.hub import is_inside
from hf_lwmm.hub.calls import client, transport_errors
from hf_lwmm.planning.images import check_place

_COMMIT = re.compile("[0-9a-f]{40}")  # by which datasets calls the folder of what it keeps of a repository
LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of datasets, which then reads what they name


@dataclass(frozen=True)
class Rows:
    """An opened split of a data set.

    `name` and `revision` are those of the Hub, or the folder and None. `shown` is what messages call it, and `table` is
    the Dataset of `datasets`, or the IterableDataset if it is streamed.
    """

    name: str
    revision: str | None
    split: str
    shown: str
    table: Any = field(repr=False)
    streaming: bool = False

    @property
    def features(self) -> Mapping[str, Any]:
        """The types of the columns, by their names."""
        return self.table.features or {}

    @property
    def commit(self) -> str | None:
        """The commit of the data set on the Hub; None for a folder, and for a stream without a connection."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        if Path(self.name).is_dir():
            return None
        kept = () if self.streaming else (Path(file["filename"]).parent.name for file in self.table.cache_files)
        if (found := next(filter(_COMMIT.fullmatch, kept), None)) is not None:
            return found
        with contextlib.suppress(HfHubHTTPError, OfflineModeIsEnabled, OSError, *transport_errors()):
            return client().dataset_info(self.name, revision=self.revision).sha
        return None

    @property
    def origins(self) -> Sequence[tuple[str, int]]:
        """The split and the number there of each row as the data set stores it; empty if its sizes are unknown.

        Splits may be slices of stored ones and sums of them, such as `train[:50]+validation`.
        """
        import datasets

        sizes = {name: info.num_examples for name, info in (self.table.info.splits or {}).items()}
        try:
            spec = "+".join(sizes) if self.split == "all" else self.split
            parts = datasets.ReadInstruction.from_spec(spec).to_absolute(sizes)
        except (ValueError, TypeError):  # a split that the card does not have, or states no size of
            return ()
        return [(part.splitname, row) for part in parts for row in range(part.from_, part.to)]

    @property
    def count(self) -> int:
        """The number of rows.

        Raises:
            DatasetError: for a stream, if the `dataset_info` of the card does not say.
        """
        if not self.streaming:
            return len(self.table)
        size = (self.table.info.splits or {}).get(self.split)
        if size is None or size.num_examples is None:
            unknown = f"its card does not say how many rows {self.split} has; do without streaming"
            raise DatasetError(f"{self.name}: {unknown}.")
        return int(size.num_examples)

    def reader(self, columns: Sequence[str], pictures: Sequence[str]) -> Callable[[int], Mapping[str, Any]]:
        """Return a function from the number of a row to its values in `columns`; those of `pictures` are not decoded.

        The function may be called by several threads. It raises DatasetError if the row cannot be read.
        """
        import datasets

        table = self.table.select_columns(list(columns))
        for column in pictures:
            table = table.cast_column(column, datasets.Image(decode=False))
        source, one_at_a_time = _Stream(table, self.count, self.shown) if self.streaming else table, Lock()

        def read(index: int) -> Mapping[str, Any]:
            try:
                with one_at_a_time:
                    row: Mapping[str, Any] = source[index]
            except DatasetError:
                raise
            except Exception as error:  # a connection that datasets has given up on, a damaged file
                where = f"{self.shown}, image {index}"
                raise DatasetError(f"{where}: cannot be read: {first_line(error)} Run it again to resume.") from None
            return row

        return read

    def stored(self, value: Mapping[str, Any] | None, where: str) -> bytes | Path:
        """Return what the column of an undecoded picture holds: the content of its file, or the file's path.

        Raises:
            DatasetError: if it holds nothing, or a data set of the Hub names a file that is not in the Hub's caches.
        """
        if value and value.get("bytes"):
            return bytes(value["bytes"])
        if not value or not value.get("path"):
            raise DatasetError(f"{where}: is missing.")
        path = Path(value["path"])
        if not Path(self.name).is_dir() and path.is_file() and not any(is_inside(each, path) for each in _caches()):
            raise DatasetError(
                f"{where}: names the file {str(path)!r} of this machine, which a data set of the Hub cannot mean. It "
                "was not read."
            )
        return path

    def values(self, column: str, count: int) -> list[Any]:
        """Return the first values of a column, in order; of a column of pictures, the names of their files.

        Raises:
            DatasetError: if they cannot be read.
        """
        import datasets

        table = self.table.select_columns([column])
        if pictures := isinstance(self.features[column], datasets.Image):
            table = table.cast_column(column, datasets.Image(decode=False))
        try:
            if self.streaming:
                found = [row[column] for row in table.take(count)]
            else:
                values = table.with_format("arrow")[:count].column(column)
                found = [{"path": path} for path in _paths(values)] if pictures else values.to_pylist()
        except Exception as error:  # a connection that datasets has given up on, a damaged file
            raise DatasetError(f"{self.shown}, column {column}: cannot be read: {first_line(error)}") from None
        if isinstance(self.features[column], datasets.ClassLabel):
            return [None if value == -1 else value for value in found]  # which is how `datasets` writes no class
        return [file_of(value) or str(place) for place, value in enumerate(found)] if pictures else found


def _paths(pictures: Any) -> list[str | None]:
    """The paths in a column of pictures, of which no byte is read."""
    import pyarrow.compute as pc

    return [path for chunk in pictures.chunks for path in pc.struct_field(chunk, "path").to_pylist()]


def _caches() -> tuple[Path, ...]:
    """Where files of data sets on the Hub are kept on this machine."""
    from datasets.config import DOWNLOADED_DATASETS_PATH, HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_DATASETS_CACHE), Path(DOWNLOADED_DATASETS_PATH), Path(HF_HUB_CACHE)


def open_rows(
    data: str,
    split: str,
    config: str | None = None,
    streaming: bool = False,
    unopened: Callable[[str], str] | None = None,
) -> Rows:
    """Open a split of a data set.

    Args:
        data: `org/name[@revision]` on the Hub, or a folder.
        split: the name of the split.
        config: the configuration, for data sets with several.
        streaming: read rows as they are needed, and keep nothing on disk.
        unopened: a function from the reason why the data set cannot be opened to the error's message.

    Raises:
        DatasetError: if there is no such data set or split, it is gated, or it is a folder in which there are pictures
            of kinds that are not read.
    """
    import datasets

    folder = Path(data).is_dir()
    name, _, revision = (data, "", "") if folder else data.partition("@")
    check_place(data)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision or None, streaming=streaming)
    except Exception as error:  # datasets raises errors of many kinds, each with a text of its own
        if any(words in str(error) for words in ("a gated dataset", "gated repo")):  # names have no blanks
            message = f"{data}: is gated; ask for access on its page, then log in with `hf auth login`."
        elif "available configs: " in str(error):
            names = str(error).partition("available configs: ")[2].splitlines()[0]
            message = f"{data}: has several configurations; choose one with --config: {names}."
        elif unopened is not None:
            message = unopened(first_line(error))
        else:
            near = "" if folder else or_nearest(data)
            message = f"{data}, split {split}: cannot be opened: {first_line(error)}{near}"
        raise DatasetError(message) from None
    if folder and table.info.builder_name == "imagefolder":
        _check_pictures(Path(data))
    shown = f"{Path(data).resolve().name if folder else data}, split {split}"
    return Rows(name, revision or None, split, shown, table, streaming)


def _check_pictures(folder: Path) -> None:
    """Refuse a folder in which `datasets` passes over pictures, unless a list in it names those that count."""
    from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder

    if not any(path.name in LISTS for path in files_below(folder)):
        check_kinds(folder, {*SUFFIXES, *UNREAD_SUFFIXES} - {*ImageFolder.EXTENSIONS})


def file_of(value: Mapping[str, Any] | None) -> str:
    """Return the name of an undecoded picture's file, empty if it has none."""
    return Path(value["path"]).name if value and value.get("path") else ""


class _Stream:
    """The rows of a stream by number, which are read quickly in ascending order, as processes read their parts."""

    def __init__(self, rows: Any, count: int, shown: str) -> None:
        self._rows, self._count, self._shown = rows, count, shown
        self._next: Iterator[Any] = iter(())
        self._place = count

    def __getitem__(self, index: int) -> Any:
        if index < self._place:
            self._next, self._place = iter(self._rows.skip(index)), index
        place, self._place = self._place, self._count  # after an error the stream is opened again
        for row in self._next:
            place += 1
            if place > index:
                self._place = place
                return row
        raise DatasetError(f"{self._shown}: ends after {place} rows, though its card says {self._count}.")
