"""Every error a user can meet: what was wrong, where, and what to do next."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

_FLAG = re.compile(r"(?<![\w-])--(?:option )?([a-z][a-z\d]*(?:-[a-z\d]+)*)")


class HfLwmmError(Exception):
    """Base of all errors that hf-lwmm raises on purpose; the CLI prints its text and exits with 1.

    Its arguments are the lines of the text: the first says what was wrong, and others may give examples. They name
    options as the command line has them; a note says what these are in Python, and tracebacks and notebooks show it
    below the text, from Python 3.11 on.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        if names := dict.fromkeys(_FLAG.findall(" ".join(self.lines))):
            fields = ", ".join(_IN_PYTHON.get(name, name.replace("-", "_")) for name in names)
            self.__notes__ = [f"Arguments or fields in Python: {fields}"]

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the text. Names within them, which are other people's, may have line ends of their own."""
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        return "\n".join(self.lines)


# Options of the command line that are called otherwise in Python.
_IN_PYTHON = {
    "overwrite": "overwrite=True",
    "data": "images",
    **{f"{purpose}-data": f"{purpose}_images" for purpose in ("eval", "tune", "bn")},
}


class RefError(HfLwmmError):
    """A model reference cannot be read."""


class HubError(HfLwmmError):
    """The Hub does not have something, or does not give it to this user."""


class CheckpointError(HfLwmmError):
    """A checkpoint file is missing, damaged, ambiguous or unsafe."""


class DocumentError(HfLwmmError):
    """A text file beside the weights, such as a configuration, an index or a recipe, cannot be used as it is."""


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


class OutputError(HfLwmmError):
    """A network computes what is not finite, so that nothing can be said by it."""


class CardError(HfLwmmError):
    """A model card cannot be written from what is known."""


class MetricError(HfLwmmError):
    """Maps that cannot be scored: other sizes, ids outside the classes."""


class DatasetError(HfLwmmError):
    """A data set cannot be found, read, or matched with a model's classes."""


class ExtraError(HfLwmmError, ImportError):
    """A package that only some commands need is not installed; the message names the extra that brings it."""


@contextlib.contextmanager
def keeping(what: str) -> Iterator[None]:
    """Return a context in which Ctrl-C costs no work: the interruption carries a note that says what is kept.

    `what` goes on after "Interrupted; ". The command line prints it, and so do tracebacks, from Python 3.11 on.
    """
    _held.append(what)
    try:
        yield
    except KeyboardInterrupt as stopped:
        setattr(stopped, "__notes__", [*kept(stopped), what])  # noqa: B010  (Python 3.10 has no add_note)
        raise
    finally:
        _held.remove(what)


_held: list[str] = []


def held() -> tuple[str, ...]:
    """Return what would be kept if all ended now, in the words of the contexts of `keeping` that are open."""
    return tuple(_held)


def kept(stopped: BaseException) -> list[str]:
    """Return what is kept after an interruption, in the words of `keeping`."""
    return list(getattr(stopped, "__notes__", ()))


@contextlib.contextmanager
def noting(what: str, notes: list[str]) -> Iterator[None]:
    """Return a context in which a failure costs nothing but a note, which begins with `what` and is added to `notes`.

    It is for by-products, such as pictures, which must not cost the work that they show. Of errors of the disk the note
    has the reason alone: they name files that nobody will find.
    """
    try:
        yield
    except Exception as error:  # whatever a drawing library raises
        disk = error.__cause__ if isinstance(error, MergeError) else error
        if isinstance(disk, OSError) and disk.strerror:
            why = disk.strerror
        else:
            why = str(error) if isinstance(error, HfLwmmError) else f"{type(error).__name__}: {error}"
        notes.append(f"{what}: {' '.join(why.split())}")


def reason(error: BaseException) -> str:
    """Return the kind of an error of a user's code and the first line of its text, with a full stop."""
    kind, text = type(error).__name__, first_line(error)
    return text if text == f"{kind}." else f"{kind}: {text}"


def first_line(error: BaseException) -> str:
    """Return the first line of the text of an error of other code, or else its kind, with a full stop."""
    try:
        lines = str(error).splitlines()
    except Exception:  # an error of a user's own class, whose text fails itself
        lines = []
    text = next((line.strip() for line in lines if line.strip()), type(error).__name__)
    return text if text.endswith(".") else text + "."


# Packages by the name under which they are imported, and the extra of pyproject.toml that brings each.
EXTRAS = {
    "PIL": "eval",
    "accelerate": "eval",
    "datasets": "eval",
    "kornia_rs": "eval",
    "markdown_it": "hub",
    "matplotlib": "plots",
    "nh3": "hub",
    "numba": "eval",
    "optuna": "optuna",
    "pandas": "eval",
    "pyarrow": "eval",
    "pycocotools": "eval",
    "pydantic": "hub",
    "ray": "ray",
    "safetensors": "networks",
    "scipy": "permute",
    "segmentation_models_pytorch": "smp",
    "starlette": "hub",
    "timm": "networks",
    "torch": "networks",
    "torchvision": "networks",
    "transformers": "networks",
    "uvicorn": "hub",
}


@contextlib.contextmanager
def naming_extras(doing: str = "This", *, images: bool = False) -> Iterator[None]:
    """Return a context, or a decorator, in which a missing package is an error that names its extra.

    `doing` begins the message, such as "Loading a network". With `images` it is something that reads images, too, which
    the extra `networks` would not be enough for.

    Raises:
        ExtraError: if an import inside it fails because a package of `EXTRAS` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = "eval" if images and EXTRAS[package] == "networks" else EXTRAS[package]
        raise ExtraError(
            f"{doing} needs {package}, which is not installed: pip install 'hf-lwmm[{extra}]', "
            "or 'hf-lwmm[all]' for everything."
        ) from error
