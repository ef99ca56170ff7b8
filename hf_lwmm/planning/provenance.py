"""Record where layer weights and measurements came from."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.safetensors_file import read_header
from hf_lwmm.errors import DocumentError, PlanError
from hf_lwmm.files.byte_file import LocalFile
from hf_lwmm.files.documents import as_mapping, is_texts, parse_json, shortened
from hf_lwmm.labels import check_label_set
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.options import check_names
from hf_lwmm.planning.images import ImageProvenance, read_image_provenance
from hf_lwmm.planning.scoring import ScoringOptions

_POSITIONS = 1_000_000  # more than any network has tensors


@dataclass(frozen=True)
class Tuning:
    """Layer weights that a method decided on images: (positions, models) float64, each row summing to 1.

    `images` are those that were looked at, `scoring` says how merges were scored on them, and `notes` tell how the
    weights were found.
    """

    weights: LayerWeights = field(repr=False)
    images: ImageProvenance | None = None
    notes: tuple[str, ...] = ()
    scoring: ScoringOptions = ScoringOptions()

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe's entry; consecutive equal rows are stored once, and `to` is the last position."""
        rows: list[dict[str, Any]] = []
        for position, row in enumerate(self.weights.tolist(), 1):
            if rows and rows[-1]["weights"] == row:
                rows[-1]["to"] = position
            else:
                rows.append({"to": position, "weights": row})
        scoring = {name: value for name, value in self.scoring.to_dict().items() if name in self.scoring.changed()}
        return {
            **({"images": self.images.to_dict()} if self.images else {}),
            **({"scoring": scoring} if scoring else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            "rows": rows,
        }


def read_tuning(entry: Any, where: str) -> Tuning:
    """Return the tuning of a recipe's entry.

    Raises:
        PlanError: if its rows are no layer weights, or it has an unknown name.
    """
    if isinstance(entry, Mapping):
        check_names(entry, ["images", "scoring", "notes", "rows"], where)
    try:
        weights = _layer_weights(entry["rows"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise PlanError(
            f"{where}: needs `rows`, each with `to`, its last position, and `weights` that sum to 1."
        ) from None
    notes = entry.get("notes") or ()
    if not is_texts(notes):
        raise PlanError(f"{where}, notes: must be a list of texts, not {shortened(notes)}.")
    images = read_image_provenance(entry["images"], f"{where}, images") if entry.get("images") is not None else None
    scoring = ScoringOptions.read(entry.get("scoring") or {}, f"{where}, scoring")
    if scoring.protocol is not None and not scoring.protocol.startswith("["):
        check_label_set(scoring.protocol, f"{where}, scoring, protocol")
    return Tuning(weights, images, tuple(notes), scoring)


def _layer_weights(entries: Sequence[Mapping[str, Any]]) -> LayerWeights:
    """The weights in a recipe's rows. Raises KeyError, TypeError or ValueError if they are none."""
    rows: list[Sequence[float]] = []
    for row in entries:
        last, weights = row["to"], row["weights"]
        if type(last) is not int or not len(rows) < last <= _POSITIONS or last * len(weights) > 10 * _POSITIONS:
            raise ValueError
        if any(type(weight) not in (int, float) for weight in weights):
            raise ValueError
        rows += [weights] * (last - len(rows))
    found = np.array(rows, np.float64)
    if found.ndim != 2 or not np.allclose(found.sum(axis=1), 1, rtol=0, atol=1e-6) or found.min() < 0:
        raise ValueError
    return found


@dataclass(frozen=True)
class MeasuredModel:
    """The model that a file of measurements belongs to: its label, and the hashes of its weight files.

    `branch` is the one that was taken from files of several networks, None in a record of an older version.
    """

    model: str
    sha256: Mapping[str, str]
    branch: str | None = None

    def to_metadata(self) -> dict[str, str]:
        """Return the entries of the file's metadata."""
        branch = {} if self.branch is None else {"branch": self.branch}
        return {"model": self.model, "sha256": json.dumps(dict(sorted(self.sha256.items()))), **branch}


def measured_model(path: Path) -> MeasuredModel | None:
    """Return the record in a file of measurements, None if it has none.

    Raises:
        CheckpointError: if it is no safetensors file.
    """
    if path.suffix != ".safetensors":
        return None
    with contextlib.closing(LocalFile(path)) as file:
        metadata = read_header(file).metadata
    try:
        hashes = as_mapping(parse_json(metadata["sha256"], "sha256"), "sha256")
        if not is_texts([*hashes.values()]):
            return None
        return MeasuredModel(metadata["model"], dict(hashes), metadata.get("branch"))
    except (KeyError, DocumentError):
        return None


def check_measurements(measurements: Sequence[Checkpoint], models: Sequence[Checkpoint]) -> tuple[str, ...]:
    """Refuse measurements of another model or branch, and return warnings about those that do not name their model.

    Args:
        measurements: a file for each model, in the models' order; none where nothing was measured.
        models: the models, with files that are on this machine or of which the Hub records hashes.

    Raises:
        PlanError: naming both models, or both branches.
    """
    warnings = []
    for found, model in zip(measurements, models, strict=False):
        record = measured_model(*found.paths.values()) if len(found.paths) == 1 else None
        if record is None:
            warnings.append(f"{found.label} does not name the model that it was measured on; only shapes were checked.")
        elif sorted(record.sha256.values()) != sorted({**hub.file_hashes(model.paths), **model.recorded}.values()):
            raise PlanError(
                f"{found.label} was measured on {record.model}, not on {model.label}. Give one file for each model, in "
                "the models' order, or measure this one (`hf-lwmm measure`)."
            )
        elif record.branch not in (None, model.branch):
            raise PlanError(
                f"{found.label} was measured on the branch {shortened(record.branch)} of {record.model}, but the "
                f"branch {shortened(model.branch)} is merged. Merge and measure with the same --branch."
            )
    return tuple(warnings)
