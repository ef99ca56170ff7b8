"""Describe a network of one's own: how it sees pictures, and what its outputs mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from hf_lwmm.errors import PlanError
from hf_lwmm.files.documents import shortened

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkDescription:
    """The form in which a network of one's own takes pictures, and the meaning of its outputs.

    `outputs` are the names of the network's outputs, row by row; those that the checkpoint names, or `labels`, if there
    are none. `groups` are classes made of outputs: the logit of a class is the logarithm of the summed exponentials of
    its outputs' (logsumexp), so that probabilities add up, and an output of no group is left out. Without groups every
    output is a class.

    `size` is the height and width to which pictures are resized, bilinearly; None leaves them as large as they are.
    `image_mean` and `image_std` are those of values from 0 to 1, in the order of `channel_order`, which is "RGB" or
    "BGR". `align_corners` is how logits are resized to the picture.

    Raises:
        PlanError: for groups of unknown outputs, an output in two groups, or values that no picture can have.
    """

    outputs: Sequence[str] = ()
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    size: Sequence[int] | None = None
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_std: Sequence[float] = IMAGENET_STD
    channel_order: str = "RGB"
    align_corners: bool = False

    def __post_init__(self) -> None:
        names = _listed(self.outputs, str)
        if names is None or len({*names}) < len(names):
            raise PlanError(f"A network's description: outputs must be different texts, not {shortened(self.outputs)}.")
        if not isinstance(self.channel_order, str) or self.channel_order not in ("RGB", "BGR"):
            raise PlanError(
                f"A network's description: channel_order is RGB or BGR, not {shortened(self.channel_order)}."
            )
        if not isinstance(self.align_corners, bool):
            raise PlanError(
                f"A network's description: align_corners is True or False, not {shortened(self.align_corners)}."
            )
        if self.size is not None and [side > 0 for side in _listed(self.size, int) or ()] != [True] * 2:
            raise PlanError(f"A network's description: size is (height, width), not {shortened(self.size)}.")
        mean, std = (_listed(values, Real) or () for values in (self.image_mean, self.image_std))
        if (len(mean), len(std)) != (3, 3) or not all(map(_is_finite, (*mean, *std))) or min(std) <= 0:
            raise PlanError("A network's description: image_mean and image_std are 3 numbers each, image_std above 0.")
        self._check_groups(names)

    def _check_groups(self, names: Sequence[str]) -> None:
        if not isinstance(self.groups, Mapping) or _listed([*self.groups], str) is None:
            raise PlanError(
                f"A network's description: groups are lists of outputs by names, not {shortened(self.groups)}."
            )
        if self.groups and not names:
            raise PlanError("A network's description: groups are of outputs, and outputs has no names.")
        seen: dict[str, str] = {}
        for name, members in self.groups.items():
            listed = _listed(members, str)
            if not listed:
                raise PlanError(f"A network's description: the group {name!r} must be a list of outputs.")
            if len({*listed}) < len(listed):
                raise PlanError(f"A network's description: the group {name!r} has an output twice.")
            for member in listed:
                if member not in names:
                    raise PlanError(f"A network's description: {member!r} in the group {name!r} is no output of it.")
                if seen.setdefault(member, name) != name:
                    both = f"{seen[member]!r} and {name!r}"
                    raise PlanError(f"A network's description: the output {member!r} is in two groups, {both}.")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes: the groups, or the outputs if there are none."""
        return tuple(self.groups or self.outputs)

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The rows of each group's outputs; () if there are no groups."""
        places = {name: row for row, name in enumerate(self.outputs)}
        return tuple(tuple(places[member] for member in members) for members in self.groups.values())


def _listed(values: Any, kind: type) -> list[Any] | None:
    """The values as a list; None if they are a text or no series with an order, or one is of another kind.

    What can be gone through once alone would be used up, and a set has an order by chance.
    """
    unordered = isinstance(values, str | set | frozenset | Mapping | Iterator)
    found = list(values) if isinstance(values, Iterable) and not unordered else [None]
    return found if all(isinstance(each, kind) and not isinstance(each, bool) for each in found) else None


def _is_finite(value: Any) -> bool:
    """True for a number that is finite in double precision."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
