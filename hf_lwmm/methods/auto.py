"""The method that is advised, once the models are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_lwmm.methods.base import Method


@dataclass(frozen=True)
class Auto(Method):
    """A stand-in for the advised method (`hf_lwmm.planning.advice`) until the models' headers are read.

    It merges nothing and is not among `METHODS`: plans and recipes hold the method that took its place.
    """

    name: ClassVar[str] = "auto"
    summary: ClassVar[str] = "the method that is advised for the models and their target"
    reference: ClassVar[str] = "this package"
