"""Keep a sweep's results: the Parquet file, and the rows that a sweep leaves behind while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_lwmm.errors import DocumentError, HfLwmmError, MergeError, SweepError
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.documents import as_mapping, parse_json
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
    other's rows.

    Raises:
        SweepError: if the file, or what a killed sweep left, holds other results, or a sweep is writing it.
    """

    def __init__(self, path: Path, study: Mapping[str, Any]) -> None:
        self.path, self.study = path, dict(study)
        self._parts = path.parent / f".{path.name}.parts"
        self.rows: dict[str, Scored] = {}
        if path.is_dir():
            raise SweepError(f"{path}: is a folder. Choose a file for --output.")
        try:
            self._parts.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                files = [path, *sorted(self._parts.glob("*.parquet"))]
                for file in (file for file in files if file.is_file()):
                    self.rows |= {row.candidate.key: row for row in self._read(file)}
            except BaseException:
                self.__exit__()
                raise
        except OSError as error:
            raise SweepError(f"{path}: cannot be used: {error.strerror or error}.") from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *raised: object) -> None:
        with contextlib.suppress(OSError):  # rows that are not in the file yet stay
            self._parts.rmdir()
        os.close(self._lock)

    def _locked(self) -> int:
        lock = os.open(self._parts, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            message = f"{self.path}: another sweep is writing it. Wait for its end, or choose another --output."
            raise SweepError(message) from None
        except OSError:  # a file system without locks
            pass
        return lock

    def _read(self, file: Path) -> list[Scored]:
        try:
            table = pq.read_table(file, partitioning=None)
        except pa.ArrowInvalid:
            raise SweepError(f"{file}: not a Parquet file. Choose another --output.") from None
        raw, where = (table.schema.metadata or {}).get(_META, b"{}"), f"{file}, its metadata"
        try:
            study = as_mapping(as_mapping(parse_json(raw, where), where).get("study"), f"{where}, study")
        except DocumentError:
            raise SweepError(f"{file}: not the results of a sweep. Choose another --output.") from None
        for name, known in study.items():
            given = self.study.get(name)
            if None not in (known, given) and known != given:
                raise SweepError(
                    f"{self.path}: holds a sweep that differs in its {name}. Choose another --output, or delete it."
                )
        self.study = {name: study.get(name) if own is None else own for name, own in self.study.items()}
        try:
            counts = table.column("counts")
            rows = table.select([name for name in _RAW.names if name != "counts"]).to_pylist()
            return [_scored(row, counts[place].values.to_numpy()) for place, row in enumerate(rows)]
        except (HfLwmmError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise SweepError(f"{file}: its results cannot be used ({error}). Choose another --output.") from None

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
        _write(table, self.path, {"study": self.study, "skipped": reasons})
        shutil.rmtree(self._parts, ignore_errors=True)


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


def _scored(row: Mapping[str, Any], counts: Values) -> Scored:
    candidate = read_candidate(parse_json(row["definition"], "a candidate"))
    shaped = counts.reshape(row["counts_shape"])
    return Scored(candidate, shaped, row["seconds"], row["task"], tuple(row["classes"]), tuple(row["notes"]))


def _write(table: pa.Table, path: Path, meta: Mapping[str, Any]) -> None:
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), _META: json.dumps(meta).encode()})
    try:
        with atomic(path) as place:
            pq.write_table(table, place, compression="zstd")
    except MergeError as error:
        raise SweepError(str(error)) from None
