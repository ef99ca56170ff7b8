"""The registry of merge methods: one file each, one interface (`base.Method`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hf_lwmm.errors import PlanError
from hf_lwmm.methods.adaptive import Adaptive
from hf_lwmm.methods.base import Method, Slot, Values, uniform
from hf_lwmm.methods.breadcrumbs import Breadcrumbs
from hf_lwmm.methods.dare import Dare
from hf_lwmm.methods.fisher import Fisher
from hf_lwmm.methods.greedy_soup import GreedySoup
from hf_lwmm.methods.isotropic import Isotropic
from hf_lwmm.methods.layerwise import Layerwise
from hf_lwmm.methods.lines import Lines
from hf_lwmm.methods.model_stock import ModelStock
from hf_lwmm.methods.permutation import Permutation
from hf_lwmm.methods.regmean import RegMean
from hf_lwmm.methods.slerp import Slerp
from hf_lwmm.methods.task_arithmetic import TaskArithmetic
from hf_lwmm.methods.ties import Ties

__all__ = ["METHODS", "Method", "Slot", "Values", "make_method", "uniform"]

METHODS: Mapping[str, type[Method]] = {
    method.name: method
    for method in (
        Layerwise, Isotropic, Fisher, TaskArithmetic, Ties, Dare, Breadcrumbs, Slerp, ModelStock, Lines, RegMean,
        Permutation, GreedySoup, Adaptive,
    )
}  # fmt: skip

_FRACTIONS = ("density", "outliers", "t", "shrink")
_WHOLE = {"images": 1, "passes": 1, "crop": 1, "seed": 0}  # and the least that they may be
_NOT_NEGATIVE = ("penalty", "balance", "floor")


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """The method of this name, with these options instead of its defaults.

    Raises:
        PlanError: for an unknown method or option, or a value that has no meaning.
    """
    if name not in METHODS:
        raise PlanError(f"--method {name} is none of {', '.join(METHODS)}.")
    known = {field.name: field for field in fields(METHODS[name])}  # type: ignore[arg-type]
    if unknown := set(options) - set(known):
        have = ", ".join(known) or "none"
        raise PlanError(f"The method {name} has no option {min(unknown)!r}; its options: {have}.")
    for key, value in options.items():
        if key != "ramp" and value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise PlanError(f"The option {key} of {name} must be a number, not {value!r}.")
        if (key in _FRACTIONS and not 0 <= value <= 1) or (key == "density" and value == 0):
            raise PlanError(f"The option {key} of {name} must be a fraction between 0 and 1, not {value}.")
        if key in _WHOLE and (value < _WHOLE[key] or not isinstance(value, int)):
            raise PlanError(f"The option {key} of {name} must be a whole number, at least {_WHOLE[key]}, not {value}.")
        if key in _NOT_NEGATIVE and value < 0:
            raise PlanError(f"The option {key} of {name} must not be negative, as {value} is.")
    return METHODS[name](**options)
