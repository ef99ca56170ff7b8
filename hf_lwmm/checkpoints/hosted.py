"""Tell from a config.json how the class that it names calls the tensors of its network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hf_lwmm.layouts import named_parts

_OWN = re.compile(r"(For[A-Z]\w*|Model|Backbone)")  # how names of transformers' classes end, after that of the type
# What transformers calls a network without its head, if not by its type, and one of another type within it.
_BODIES = {"model", "backbone"}


@dataclass(frozen=True)
class Hosted:
    """A class that reads tensors by the names in their files; `kind` is its type if it is one of transformers' own."""

    kind: str = ""

    def parts(self, names: Iterable[str]) -> int:
        """Count the parts of a network that are called as transformers calls them; 0 for other classes."""
        if not self.kind:
            return 0
        names = tuple(names)
        firsts = {name.partition(".")[0] for name in names}
        has_body = len(firsts) > 1 and not firsts.isdisjoint({*_BODIES, self.kind})
        return named_parts(names, "transformers") + has_body


def hosted_by(config: Mapping[str, Any]) -> Hosted | None:
    """Return the class that reads a model's tensors, None if the content of its config.json names none."""
    if not (names := config.get("architectures")):
        return None
    kind = str(config.get("model_type", "")).replace("-", "_")
    spelt = kind.replace("_", "").lower()
    own = kind and names[0].lower().startswith(spelt) and _OWN.fullmatch(names[0][len(spelt) :])
    return Hosted(kind if own and "auto_map" not in config else "")
