"""Tell local models of one name apart: `a/best` and `b/best`."""

from __future__ import annotations

from collections.abc import Sequence

from hf_lwmm.hub.refs import ModelRef


def telling_names(refs: Sequence[ModelRef]) -> tuple[str, ...]:
    """Return a name for each local model that has the name of another one, and an empty text for all others.

    It has no more of the path than it takes: the folders that hold two of them are in no name, unless one of the models
    lies inside the other.
    """
    return tuple(_telling(ref, [other for other in refs if other.is_local]) for ref in refs)


def _telling(ref: ModelRef, others: Sequence[ModelRef]) -> str:
    if ref.path is None:
        return ""
    own = ref.path.resolve()
    alike = {other.path.resolve() for other in others if other.path is not None and other.shown == ref.shown} - {own}
    if not alike:
        return ""
    count = next(n for n in range(2, len(own.parts) + 1) if all(own.parts[-n:] != each.parts[-n:] for each in alike))
    folders = "/".join(own.parts[-count:-1]).lstrip("/")
    return f"{folders}/{ref.shown}"
