"""Declare an option once: its type, default, range and help text stand in one dataclass field.

Command line, recipe and card all follow from such declarations. A class of options is a frozen dataclass that
derives from `Options` and whose fields are made with `option`:

    @dataclass(frozen=True)
    class Layerwise(Options):
        start: float = option(0.0, "Fraction of the depth that keeps the first layer's weights.", minimum=0, below=1)
"""

from __future__ import annotations

from hf_lwmm.options.arguments import argument, option_arguments
from hf_lwmm.options.declaration import Declaration, declarations, option, option_name
from hf_lwmm.options.environment import check_environment
from hf_lwmm.options.names import check_names, did_you_mean, naming_with_prefix, with_prefix
from hf_lwmm.options.options import Options
from hf_lwmm.options.values import parse_size, parsed

__all__ = [
    "Declaration",
    "Options",
    "argument",
    "check_environment",
    "check_names",
    "declarations",
    "did_you_mean",
    "naming_with_prefix",
    "option",
    "option_arguments",
    "option_name",
    "parse_size",
    "parsed",
    "with_prefix",
]
