"""Torch files of every version, changed in their bytes, in their pickles, and in the directories of their archives."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.changes import BYTES, EDGES, changed_bytes, number
from fuzz.harness import Target
from torch_files import (
    Made,
    Named,
    both,
    bytes_of,
    floats,
    legacy,
    module,
    opened,
    ordered,
    pickled,
    storage,
    tensor,
    zipped,
)

from hf_lwmm.checkpoints.inert_pickle import _STEPS

STEPS = b"".join(_STEPS)


def trees() -> dict[str, Any]:
    """The content of a file, small."""
    first, second = storage("0", 6), storage("1", 4)
    state = {
        "conv.weight": tensor(first, (2, 3)),
        "conv.turned": tensor(first, (3, 2), (1, 3)),
        "bn.scale": tensor(second, ()),
        "bn.wide": tensor(second, (2, 3), (1, 0), 1),
        "none": tensor(second, (0, 5)),
    }
    pairs = [[name, value] for name, value in state.items()]
    block = module({"weight": state["conv.weight"]}, buffers={"mean": state["bn.scale"]})
    named = {0: "road", 1: "sky"}
    return {
        "plain": ordered(state),
        "python 2": Made(Named("collections", "OrderedDict"), (pairs,)),
        "container": {
            "state_dict": ordered(state),
            "epoch": 3,
            "meta": {"CLASSES": ("road", "sky"), "time": "now"},
            "optimizer": {"state": {0: {"step": 1, "exp_avg": state["conv.weight"]}}, "param_groups": [{"lr": 0.1}]},
        },
        "module": {"model": module(None, {"a": block, "b": module(None, {"c": block})}, names=named), "ema": None},
    }


def directory(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Change a number of a zip directory, or of the end of it."""
    places = [m.start() for m in re.finditer(rb"PK[\1\3\5\6][\2\4\6\7]", content)]
    if not places:
        return number(content, draw, other)
    place, size = draw.choice(places) + draw.randrange(4, 46), draw.choice((2, 4, 4))
    old = int.from_bytes(content[place : place + size], "little")
    value = draw.choice((draw.choice(EDGES), old + draw.choice((-1, 1, 4, -64)), old * 2)) % (1 << 8 * size)
    content[place : place + size] = value.to_bytes(size, "little")
    return None


def step(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Put other steps of the pickle machine into it, or over its own."""
    for _ in range(draw.choice((1, 2, 4))):
        place = draw.randrange(len(content))
        content[place : place + draw.choice((0, 1))] = bytes([draw.choice(STEPS)])


def _packings() -> list[tuple[Callable[[Any], bytes], Callable[[bytes], bytes]]]:
    """How a tree becomes a pickle, and how the file around it is made, whose checksums are then right."""
    data = {"0": floats(1, 2, 3, 4, 5, 6), "1": floats(7, 8, 9, 10)}
    counted = {key: (len(each) // 4, each) for key, each in data.items()}
    makers: tuple[Callable[[bytes], bytes], ...] = (
        lambda changed: zipped(changed, data),
        lambda changed: legacy(changed, counted),
    )
    return [(lambda tree, p=p: pickled(tree, p), make) for p in (2, 3, 4, 5) for make in makers]  # type: ignore[misc]


def torch_file(folder: Path) -> Target:
    """Whatever is read has the values that torch reads, where it reads the file too."""
    import torch

    packings = _packings()
    inner = [(pack(tree), make) for tree in trees().values() for pack, make in packings]
    data = {"0": floats(1, 2, 3, 4, 5, 6), "1": floats(7, 8, 9, 10)}
    whole = [
        both(t, data, packed, protocol) for t in trees().values() for packed in (1, 0) for protocol in (2, 3, 4, 5)
    ]

    def change(content: bytes, draw: random.Random, other: bytes) -> bytes:
        if draw.random() < 0.5:
            return changed_bytes(content, draw, other, (*BYTES, directory, directory))
        pickle, make = draw.choice(inner)
        return make(changed_bytes(pickle, draw, draw.choice(inner)[0], (*BYTES, step, step, step)))

    def check(content: bytes) -> str:
        ours = bytes_of(opened(content))
        try:
            theirs = torch.load(io.BytesIO(content), weights_only=True)
        except Exception:  # torch refuses modules, and damage that touches no tensor
            return "read"
        if _unlike(ours, theirs):  # of entries with damaged headers torch gives memory that nobody has written
            theirs = torch.load(io.BytesIO(_packed_anew(content)), weights_only=True)
        assert not (names := _unlike(ours, theirs)), f"{names[0]} has other values than torch reads"
        return "read"

    return Target(whole, change, check)


def _unlike(ours: Mapping[str, bytes], theirs: Any) -> list[str]:
    """The names of tensors that both have, with different values."""
    values = {name: np.ascontiguousarray(each.detach().contiguous().numpy()) for name, each in _flat(theirs).items()}
    return [name for name, each in values.items() if name in ours and ours[name] != each.tobytes()]


def _packed_anew(content: bytes) -> bytes:
    """A torch file with the entries that Python's zipfile reads of another, whose sums it checks."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as damaged, zipfile.ZipFile(result, "w") as whole:
        for name in damaged.namelist():
            whole.writestr(name, damaged.read(name))
    return result.getvalue()


def _flat(content: Any) -> dict[str, Any]:
    """The tensors of a state dict, or of the one in a container."""
    import torch

    if not isinstance(content, dict):
        return {}
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        return {}
    return {
        name: each for name, each in state.items() if isinstance(each, torch.Tensor) and each.dtype == torch.float32
    }
