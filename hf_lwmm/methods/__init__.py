"""Merge methods, one in each file, whose class the decorator `register` makes known.

README.md in this folder defines the paper's method and those that the paper compares it with.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from hf_lwmm.methods.base import METHODS, Method, Slot, Values, make_method, uniform

__all__ = ["METHODS", "Method", "Slot", "Values", "make_method", "uniform"]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

# The paper's method first, then its baseline, then the others by name.
_ORDER = ("layerwise", "isotropic", *sorted(METHODS))
for _name in dict.fromkeys(_ORDER):
    METHODS[_name] = METHODS.pop(_name)
