"""Torch files that were made to exhaust whoever reads them, and what the reader is to say of each."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from torch_files import Made, Named, floats, legacy, module, pickled, storage, tensor, zipped

MANY = 60_000_000  # bytes of a pickle that is nearly as long as any may be
FACE = "\N{GRINNING FACE}"  # one such letter makes a text take four bytes for each of its letters
PRIME = (1 << 61) - 1  # multiples of it have one hash


def flood(step: bytes, start: bytes = b"", end: bytes = b".", size: int = 4_000_000) -> bytes:
    """A pickle that takes one step, or a few, again and again."""
    return zipped(b"\x80\x02" + start + step * (size // len(step)) + end, {})


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def deep(inner: bytes, count: int = 1_000_000) -> bytes:
    return zipped(b"\x80\x02" + inner.replace(b"@", b"N" + b"\x85" * count) + b".", {})


def shared(levels: int = 90) -> bytes:
    """Steps that make a tuple of two tuples that are one tuple of two ...: few objects, and a text without end."""
    return b"N" + b"2\x86" * levels


def doubled(levels: int = 60) -> Any:
    """The value that the steps of `shared` make."""
    found: Any = (None,)
    for _ in range(levels):
        found = (found, found)
    return found


def chained(make: Callable[[Any], Made], levels: int) -> bytes:
    """A chain of modules, each of which is made from the next."""
    found = module({"weight": tensor(storage("0", 1), (1,))})
    for _ in range(levels):
        found = make(found)
    return zipped(found, {"0": floats(1)})


def own_module() -> bytes:
    inner = module({"weight": tensor(storage("0", 1), (1,))})
    inner.state["_modules"].entries["again"] = inner
    return zipped(inner, {"0": floats(1)})


def wide_module(python2: bool) -> bytes:
    """A module with 3,000 children that are one module of 3,000 parameters."""
    weight = tensor(storage("0", 1), (1,))
    inner = module({str(i): weight for i in range(3000)})
    if python2:
        pairs = [[0, None]] * 300_000 + [["weight", weight]]
        inner.state["_parameters"] = Made(Named("collections", "OrderedDict"), (pairs,))
    return zipped(module(None, {str(i): inner for i in range(3000)}), {"0": floats(1)})


def unsaved_buffers() -> bytes:
    weight, names = tensor(storage("0", 1), (1,)), [f"b{i}" for i in range(40_000)]
    hidden = Made(Named("builtins", "set"), (names[::-1],))
    inner = module({"a": weight}, buffers=dict.fromkeys(names, weight), _non_persistent_buffers_set=hidden)
    return zipped(inner, {"0": floats(1)})


def far(shape: tuple[int, ...]) -> bytes:
    return zipped({"a": tensor(storage("0", 1), shape, (0,) * len(shape))}, {"0": floats(1)})


def directory(count: int) -> bytes:
    """An archive whose directory has entries for records that it does not have."""
    entry = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0)[:-4]
    listed = b"".join(
        entry + struct.pack("<I", 4 + i) + bytes((33 + i % 90, 33 + i // 90 % 90, 33 + i // 8100 % 90))
        for i in range(count)
    )
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(listed), 4, 0)
    return b"PK\3\4" + listed + end


def short_legacy(tree: Any, **more: Any) -> bytes:
    return legacy(tree, {"0": (1, floats(1))}, **more)


MEMORY, STEPS = "makes more than", "takes more than"
ONE = tensor(storage("0", 1), (1,))
REBUILD_3 = Named("torch._utils", "_rebuild_tensor_v3")

# By name: how to make the file, and a part of what is said of it.
HOSTILE: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "dictionaries": (lambda: flood(b"}", size=MANY), MEMORY),
    "lists": (lambda: flood(b"]"), MEMORY),
    "empty tuples": (lambda: flood(b")"), STEPS),
    "tuples": (lambda: flood(b"N\x85"), MEMORY),
    "records": (lambda: flood(b"(i\n\n"), MEMORY),
    "names": (lambda: flood(b"cab\nab\n"), MEMORY),
    "long numbers": (lambda: flood(b"\x8a\xff" + b"\1" * 255, size=40_000_000), "values are left over"),
    "one long number": (lambda: flood(b"\1", b"\x8b" + struct.pack("<i", MANY), size=MANY), "holds a"),
    "digits": (lambda: flood(b"1", b"L", b"L\n."), "has no end"),
    "memo": (lambda: flood(b"\x94", b"N"), MEMORY),
    "memo of one hash": (lambda: flood(b"p%d\n" % (PRIME * 5), b"N"), "place of no meaning"),
    "far memo": (lambda: flood(b"r\xf0\xff\xff\xff", b"N", size=100), "holds a NoneType"),
    "doubled list": (lambda: flood(b"(h\0h\0h\0h\0e", b"]q\0", size=6_000_000), STEPS),
    "dropped keys": (lambda: flood(b"N\x85N", b"}(", b"u.", 2_500_000), "found no state dict|makes more"),
    "keys of one hash": (
        lambda: zipped(b"\x80\x02}(%su." % b"".join(pickled(PRIME * i, 2)[2:-1] + b"N" for i in range(1, 300_000)), {}),
        "found no state dict",
    ),
    "marks": (lambda: flood(b"("), STEPS),
    "persistent ids": (
        lambda: flood(b"2Q0", pickled(("storage", Named("torch", "FloatStorage"), "0", "cpu", 1))[2:-1]), MEMORY
    ),
    "wide letters": (lambda: flood(text("a" * 60_000 + FACE), size=30_000_000), MEMORY),
    "escaped letters": (lambda: flood(b"V" + b"a" * 60_000 + b"\\U0001F600\n", size=30_000_000), MEMORY),
    "one long text": (lambda: zipped(b"\x80\x02" + text("a" * MANY + FACE) + b".", {}), "holds a"),
    "a text that claims all": (lambda: zipped(b"\x80\x02\x8d" + b"\xff" * 8 + b".", {}), "ends too early"),
    "bytes that claim all": (lambda: zipped(b"\x80\x02\x96" + b"\xff" * 7 + b"\x7f.", {}), "ends too early"),
    "deep tuples": (lambda: deep(b"@"), "holds a tuple"),
    "deep key": (lambda: deep(b"}@Ns"), "found no state dict"),
    "deep value": (lambda: deep(b"}" + text("state_dict") + b"@s"), "found no state dict"),
    "deep lists": (lambda: flood(b"](", b"", b"e" * 300_000 + b".", 600_000), "holds a list"),
    "deep records": (lambda: flood(b"\x85NR", b"N", size=900_000), "holds a Record"),
    "shared class": (lambda: zipped(b"\x80\x02" + shared() + b")R.", {}), "holds a Record"),
    "shared protocol": (
        lambda: pickled(0x1950A86A20F9469CFC6C) + b"\x80\x02" + shared() + b"." + b"\x80\x02}." * 3, "protocol tuple"
    ),
    "shared element type": (
        lambda: zipped({"a": Made(REBUILD_3, (*ONE.arguments, doubled()))}, {"0": floats(1)}), "is tuple: not supported"
    ),
    "a storage key that has none": (lambda: short_legacy({"a": ONE}, keys=b"\x80\x02](]]e."), "list of storages"),
    "a deep storage key": (
        lambda: short_legacy({"a": ONE}, keys=b"\x80\x02](N" + b"\x85" * 900 + b"e."), "list of storages"
    ),
    "its own module": (own_module, "contain themselves"),
    "doubling modules": (
        lambda: chained(lambda each: module(None, {"a": each, "b": each}), 40), "contain themselves"
    ),
    "doubling modules of long names": (
        lambda: chained(lambda each: module(None, {"a" * 9000: each, "b" * 9000: each}), 100), "contain themselves"
    ),
    "many modules deep": (lambda: chained(lambda each: module(None, {"a": each}), 210), "contain themselves"),
    "wide modules": (lambda: wide_module(False), "contain themselves"),
    "wide modules of Python 2": (lambda: wide_module(True), "read"),
    "unsaved buffers": (unsaved_buffers, "read"),
    "many tensors": (
        lambda: zipped(b"\x80\x02}(" + pickled(ONE)[2:-1] + b"q\x7f0" + b"".join(
            b"U\5%05dh\x7f" % i for i in range(99_999)) + b"U\1ah\x7fU\1bh\x7fu.", {"0": floats(1)}),
        "100,001 tensors",
    ),
    "elements that share memory": (lambda: far((1 << 30,)), "claims 4,294,967,296 bytes"),
    "many dimensions": (lambda: far((1 << 40,) * 60), "does not lie within"),
    "endless dimensions": (lambda: far((1 << 2000,) * 60), "does not lie within"),
    "an endless epoch": (
        lambda: zipped({"state_dict": {"a": ONE}, "epoch": 1 << 50_000, 1 << 50_000: 1}, {"0": floats(1)}), "read"
    ),
    "a long pickle": (lambda: zipped(b"\0" * ((1 << 26) + 1), {}), "67,108,865 bytes"),
    "a large directory": (lambda: directory(170_000), "no data.pkl"),
    "a larger directory": (lambda: directory(700_000), "directory claims"),
}  # fmt: skip
