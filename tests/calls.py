"""Short calls of the command line, and of the public functions with options by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from click.testing import CliRunner, Result

import hf_lwmm
from hf_lwmm.cli import app

_METHODS = {method.name: method for method in hf_lwmm.list_methods()}


def knobs(options: dict[str, Any]) -> hf_lwmm.Knobs:
    """Take the knobs out of options. `method` is a name or a method, `option` the method's options."""
    method, own = options.pop("method", "layerwise"), options.pop("option", {})
    if method in _METHODS:
        layerwise = {each.name: options.pop(each.name) for each in fields(hf_lwmm.Layerwise) if each.name in options}
        method = _METHODS[method].read({**layerwise, **own}, f"--method {method}")
    return hf_lwmm.Knobs(method=method, **_taken(hf_lwmm.Knobs, options))


def merge(models: Any, anchor: Any = None, **options: Any) -> hf_lwmm.MergeResult:
    """Call `hf_lwmm.merge`, whose knobs, inputs and ways of writing are options here."""
    own = knobs(options)
    return hf_lwmm.merge(
        models,
        anchor,
        knobs=own,
        inputs=hf_lwmm.MergeInputs(**_taken(hf_lwmm.MergeInputs, options)),
        writing=hf_lwmm.WriteOptions(**_taken(hf_lwmm.WriteOptions, options)),
        **options,
    )


def plan(models: Any, anchor: Any = None, **options: Any) -> hf_lwmm.PlanReport:
    """Call `hf_lwmm.plan`, whose knobs and inputs are options here."""
    own = knobs(options)
    inputs = hf_lwmm.MergeInputs(**_taken(hf_lwmm.MergeInputs, options))
    return hf_lwmm.plan(models, anchor, knobs=own, inputs=inputs, **options)


def lwmm(*arguments: object) -> Result:
    """Call the command line; `exit_code`, `exception`, `stdout` and `stderr` are in what is returned."""
    return CliRunner().invoke(app, [*map(str, arguments)])


def _taken(cls: type[Any], options: dict[str, Any]) -> Mapping[str, Any]:
    return {each.name: options.pop(each.name) for each in fields(cls) if each.name in options}
