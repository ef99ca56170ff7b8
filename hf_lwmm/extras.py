"""Name the extra to install where a part of the package needs more than `pip install hf-lwmm` brings."""

from __future__ import annotations

from importlib.util import find_spec

from hf_lwmm.errors import ExtraError


def require(extra: str, *modules: str, doing: str = "This") -> None:
    """Check that modules are installed, without importing them.

    Args:
        extra: the extra that brings them, such as "networks".
        modules: names of top-level modules, such as "torch".
        doing: the beginning of the message, such as "Reading latest.pth".

    Raises:
        ExtraError: naming the modules that are missing, and the command that installs them.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        what = f"{' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed"
        raise ExtraError(f"{doing} needs {what}. Run: pip install 'hf-lwmm[{extra}]'")
