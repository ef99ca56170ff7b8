"""What the metrics refuse to score."""

from __future__ import annotations

from hf_lwmm.errors import HfLwmmError


class MetricError(HfLwmmError):
    """Truth and prediction cannot be compared."""
