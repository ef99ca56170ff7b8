"""Keep a sweep's results: the Parquet file, and the rows that a sweep leaves behind while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_lwmm.errors import DocumentError, MergeError, SweepError
from hf_lwmm.files.atomic import DisplacedError, atomic
from hf_lwmm.files.damaged import set_aside
from hf_lwmm.files.documents import parse_json
from hf_lwmm.files.names import fitted
from hf_lwmm.files.targets import Target, check_target
from hf_lwmm.metrics.ratios import Values
from hf_lwmm.sweeping.grid import Skipped, read_candidate
from hf_lwmm.sweeping.scorer import Scored

_META = b"hf_lwmm.sweep"
_RAW = pa.schema(
    [
        ("definition", pa.string()),
        ("task", pa.string()),
        ("classes", pa.list_(pa.string())),
        ("notes", pa.list_(pa.string())),
        ("seconds", pa.float64()),
        ("counts", pa.list_(pa.float64())),
        ("counts_shape", pa.list_(pa.int64())),
    ]
)


class Store:
    """The results of one sweep. Use it as a context.

    `study` identifies what was swept: a file with the results of another study is refused. Entries of a study that are
    None, such as a base that no method needed, are not compared.

    While the sweep runs, every row is a file of its own in a hidden folder beside the Parquet file, so that a killed
    sweep loses only the candidates that were being scored. The folder is locked: two sweeps at once would lose each
    other's rows. A damaged row is set aside, and scored again.

    Raises:
        SweepError: if the file, or what a killed sweep left, holds other results, or a sweep is writing it.
    """

    def __init__(self, path: Path, study: Mapping[str, Any]) -> None:
        self.path, self.study = path, dict(study)
        self._parts = path.parent / fitted(f".{path.name}", ".parts")
        self.rows: dict[str, Scored] = {}
        if path.is_dir():
            raise SweepError(f"{path}: is a folder. Choose a file for --output.")
        try:
            self._lock = self._locked()
            try:
                self._target = check_target(path, overwrite=True)
                if path.is_file():
                    self._take(self._read(path))
                for file in sorted(self._parts.glob("*.parquet")):
                    self._take(self._read_part(file))
            except BaseException:
                self.__exit__()
                raise
        except OSError as error:
            raise SweepError(f"{path}: cannot be used: {error.strerror or error}.") from None
        except MergeError as error:
            raise SweepError(str(error)) from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            with contextlib.suppress(OSError):  # rows that are not in the file yet stay
                self._parts.rmdir()
        finally:
            os.close(self._lock)

    def _locked(self) -> int:
        """Make and lock the folder of single rows; return the descriptor that holds the lock."""
        self._parts.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._parts, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            message = f"{self.path}: another sweep is writing it. Wait for its end, or choose another --output."
            raise SweepError(message) from None
        except OSError:  # a file system without locks
            pass
        if not self._parts.exists() or self._parts.stat().st_ino != os.fstat(lock).st_ino:
            os.close(lock)  # a sweep that ended meanwhile removed it
            return self._locked()
        return lock

    def _take(self, rows: Iterable[Scored]) -> None:
        self.rows |= {row.candidate.key: row for row in rows}

    def _read_part(self, file: Path) -> list[Scored]:
        """Return the row of a file that a killed sweep left; none if it is damaged."""
        try:
            return self._read(file)
        except _DamagedError:
            set_aside(file, self.path.with_name(fitted(self.path.stem, f".{file.stem[:8]}.damaged.parquet")))
            return []

    def _read(self, file: Path) -> list[Scored]:
        try:
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowException, OSError):
            raise _DamagedError(f"{file}: not a Parquet file. Choose another --output.") from None
        try:
            meta = parse_json((table.schema.metadata or {}).get(_META, b""), str(file))
            study, rows = dict(meta["study"]), _rows(table, str(file))
        except (DocumentError, ValueError, LookupError, TypeError, AttributeError):
            raise _DamagedError(f"{file}: not the results of a sweep. Choose another --output.") from None
        for name, known in study.items():
            given = self.study.get(name)
            if None not in (known, given) and known != given:
                raise SweepError(
                    f"{self.path}: holds a sweep that differs in its {name}. Choose another --output, or delete it."
                )
        self.study = {name: study.get(name) if own is None else own for name, own in self.study.items()}
        return rows

    def keep(self, row: Scored) -> None:
        """Keep a row that was just scored.

        Raises:
            SweepError: if the disk is full, or the folder may not be written.
        """
        self.rows[row.candidate.key] = row
        name = hashlib.sha256(row.candidate.key.encode()).hexdigest()[:24] + ".parquet"
        _write(pa.Table.from_pylist([_plain(row)], _RAW), self._parts / name, {"study": self.study})

    def finish(self, columns: Mapping[str, pa.Array], order: Sequence[str], skipped: Sequence[Skipped]) -> None:
        """Write all rows as the Parquet file.

        Args:
            columns: further columns, which stand before those of the rows.
            order: the rows' keys in the order of the file.
            skipped: what was left out, for the file's metadata.

        Raises:
            SweepError: if it cannot be written; the single rows are then still there.
        """
        raw = pa.Table.from_pylist([_plain(self.rows[key]) for key in order], _RAW)
        table = pa.table({**columns, **dict(zip(raw.column_names, raw.columns, strict=True))})
        reasons = [{"candidate": each.candidate.to_dict(), "reason": each.reason} for each in skipped]
        try:
            _write(table, self._target, {"study": self.study, "skipped": reasons})
        except _DisplacedError:
            shutil.rmtree(self._parts, ignore_errors=True)  # all rows are in the file beside it
            raise
        shutil.rmtree(self._parts, ignore_errors=True)


class _DisplacedError(SweepError):
    """The whole file was written, but has another name."""


class _DamagedError(SweepError):
    """A file is not, or not any more, what a sweep writes."""


def _rows(table: pa.Table, where: str) -> list[Scored]:
    counts = table.column("counts")
    rows = table.select([name for name in _RAW.names if name != "counts"]).to_pylist()
    return [_scored(row, counts[place].values.to_numpy(), where) for place, row in enumerate(rows)]


def _plain(row: Scored) -> dict[str, Any]:
    return {
        "definition": json.dumps(row.candidate.to_dict()),
        "task": row.task,
        "classes": list(row.classes),
        "notes": list(row.notes),
        "seconds": row.seconds,
        "counts": row.counts.reshape(-1),
        "counts_shape": list(row.counts.shape),
    }


def _scored(row: Mapping[str, Any], counts: Values, where: str) -> Scored:
    candidate, shaped = read_candidate(parse_json(row["definition"], where)), counts.reshape(row["counts_shape"])
    return Scored(candidate, shaped, row["seconds"], row["task"], tuple(row["classes"]), tuple(row["notes"]))


def _write(table: pa.Table, target: Target | Path, meta: Mapping[str, Any]) -> None:
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _META: json.dumps(meta).encode()})
    try:
        with atomic(target) as place:
            pq.write_table(table, place, compression="zstd")
    except DisplacedError as error:
        raise _DisplacedError(str(error)) from None
    except MergeError as error:
        raise SweepError(str(error)) from None


def columns(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the columns that the Parquet file has beside the raw counts: the records, column by column."""
    rows = [dict(record) for record in records]
    kinds = dict.fromkeys(rows[0], pa.float64())
    kinds |= dict.fromkeys(("rank", "trial"), pa.int64())
    kinds |= dict.fromkeys(("candidate", "kind", "anchor", "method", "ramp", "bn_stats", "metric"), pa.string())
    kinds |= {"models": pa.list_(pa.string()), "by_class": pa.list_(pa.float64())}
    kinds["options"] = pa.map_(pa.string(), pa.float64())
    for row in rows:
        row["options"] = None if row["options"] is None else list(row["options"].items())
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
