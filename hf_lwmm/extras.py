"""Name the extra to install where a package that hf-lwmm does not always bring is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec

from hf_lwmm.errors import MissingExtraError

# Packages by the name under which they are imported, and the extra of pyproject.toml that brings each.
EXTRAS = {
    "PIL": "eval",
    "accelerate": "eval",
    "datasets": "eval",
    "kornia_rs": "eval",
    "matplotlib": "plots",
    "numba": "eval",
    "optuna": "optuna",
    "pyarrow": "eval",
    "pycocotools": "eval",
    "ray": "ray",
    "safetensors": "networks",
    "scipy": "permute",
    "starlette": "hub",
    "timm": "networks",
    "torch": "networks",
    "torchvision": "networks",
    "transformers": "networks",
    "uvicorn": "hub",
}


def installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    return find_spec(package) is not None


@contextlib.contextmanager
def naming_extras() -> Iterator[None]:
    """Return a context, or a decorator, in which a missing package is an error that names its extra.

    Raises:
        MissingExtraError: if an import inside it fails because a package of `EXTRAS` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtraError(
            f"This needs {package}, which is not installed: pip install 'hf-lwmm[{EXTRAS[package]}]', "
            "or 'hf-lwmm[all]' for everything."
        ) from error
