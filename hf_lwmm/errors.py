"""Every error a user can meet: what was wrong, where, and what to do next."""

from __future__ import annotations


class HfLwmmError(Exception):
    """Base of all errors that hf-lwmm raises on purpose; the CLI prints its text and exits with 1."""


class RefError(HfLwmmError):
    """A model reference cannot be read."""


class HubError(HfLwmmError):
    """The Hub does not have something, or does not give it to this user."""


class CheckpointError(HfLwmmError):
    """A checkpoint file is missing, damaged, ambiguous or unsafe."""


class LayoutError(HfLwmmError):
    """A layout cannot hold a tensor, or a table of names contradicts itself."""


class AlignmentError(HfLwmmError):
    """The models do not share enough weights to be merged."""


class PlanError(HfLwmmError):
    """A merge was asked for that has no meaning: a bad knob, anchor or recipe."""


class MergeError(HfLwmmError):
    """Carrying a plan out failed; nothing was left under the final name."""


class SweepError(HfLwmmError):
    """A sweep cannot go on: its workers are lost, or its file holds other results or cannot be written."""


class CardError(HfLwmmError):
    """A model card cannot be written from what is known."""


class MetricError(HfLwmmError):
    """Maps that cannot be scored: other sizes, ids outside the classes."""


class DatasetError(HfLwmmError):
    """A data set cannot be found, read, or matched with a model's classes."""


class ExtraError(HfLwmmError, ImportError):
    """A part of the package is asked for whose requirements are not installed; the message names the extra."""
