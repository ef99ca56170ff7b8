"""Read pickles as data: nothing is imported and nothing is run, whatever a pickle asks for.

A pickle is a program for a small stack machine. Its plain values (numbers, texts, lists, dictionaries) are made here as
they are; a class or function that it names stays its name (`Name`), and an object that it would make is a `Record` of
what it would be made from.
"""

from __future__ import annotations

import codecs
import gc
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

from hf_lwmm.errors import CheckpointError

# A training checkpoint of 10,000 tensors, with Adam's state, takes half of these steps and of this memory.
MAX_STEPS = 3_000_000
MAX_MEMORY = 100 << 20  # bytes, estimated, of what a pickle makes
MAX_BLOCK = 1 << 16  # bytes of a text that is kept: names are shorter, and the arrays of log books longer


class PickleError(CheckpointError):
    """A pickle is damaged, or larger than any checkpoint's."""


@dataclass(frozen=True, slots=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """An object that a pickle would make: by calling `cls` with `arguments`, and with what it would be given then.

    `state` is its attributes, None if it has none; `entries` are its items if it is a dictionary of some kind, and
    `elements` those of a list or set.
    """

    __slots__ = ("arguments", "cls", "elements", "entries", "state")

    def __init__(self, cls: Any, arguments: Any) -> None:
        self.cls = cls
        self.arguments = arguments
        self.state: Any = None
        self.entries: Mapping[Any, Any] = _NO_ENTRIES
        self.elements: Sequence[Any] = ()

    def __repr__(self) -> str:  # its parts may hold it
        return f"Record({self.cls if isinstance(self.cls, Name) else '...'})"


class _Mark:
    """A value of no meaning: the mark below the values of one list or dictionary, or what is dropped."""

    __slots__ = ()


# What is counted for an object, and for an entry of a dictionary or of the memo.
_OBJECT, _ENTRY = 88, 80
_BYTE, _SHORT, _INT, _LENGTH, _FAR = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q"))
_MARK, _DROPPED = _Mark(), _Mark()
_NO_ENTRIES: Mapping[Any, Any] = MappingProxyType({})


def shown(value: Any) -> str:
    """Return a short text for a value of a pickle, whose own may be of any length."""
    if isinstance(value, str | Name):
        text = str(value)[:81]
        text = text if text.isprintable() else ascii(text)[1:-1]
        return text if len(text) <= 80 else f"{text[:77]}..."
    if isinstance(value, Record) and isinstance(value.cls, Name):
        return shown(value.cls)
    plain = value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 64)
    return repr(value) if plain else "..." if isinstance(value, _Mark) else type(value).__name__


def _no_outside(id: Any) -> Any:
    raise PickleError("it names something outside of it")


def read_pickle(file: BinaryIO, resolve: Callable[[Any], Any] = _no_outside, steps: int = MAX_STEPS) -> Any:
    """Read the next pickle of a file, up to its end and no further.

    `resolve` returns what a persistent id stands for: a value that is kept outside the pickle, such as a storage.

    Raises:
        PickleError: if it is truncated or damaged, or takes more than `steps` steps or `MAX_MEMORY`.
    """
    collects = gc.isenabled()
    gc.disable()  # it would look through the growing tree again and again, for half of the time
    try:
        return _Machine(file, resolve).run(steps)
    finally:
        if collects:
            gc.enable()


class _Machine:
    """The stack machine, whose calls leave records."""

    def __init__(self, file: BinaryIO, resolve: Callable[[Any], Any]) -> None:
        self.resolve = resolve
        self.read_some = file.read
        self.readline = file.readline
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.left = MAX_MEMORY

    def run(self, most: int) -> Any:
        stack, read_some, steps = self.stack, self.read_some, _STEPS
        try:
            for _ in range(most):
                code = read_some(1)
                if code == b".":
                    value = stack.pop()
                    if value is _MARK or stack:
                        raise PickleError("values are left over at its end")
                    return value
                step = steps.get(code)
                if step is None:
                    raise PickleError(f"has no such step: {code!r}" if code else "it ends too early")
                step(self)
        except (IndexError, KeyError, ValueError, TypeError, AttributeError, struct.error, OverflowError) as error:
            raise PickleError(f"damaged ({type(error).__name__}: {str(error)[:100]})") from None
        raise PickleError(f"takes more than {most:,} steps")

    # what it reads

    def read(self, count: int) -> bytes:
        if count < 0:
            raise PickleError(f"a value in it claims {count:,} bytes")
        found = self.read_some(count)
        if len(found) != count:
            raise PickleError("it ends too early")
        return found

    def number(self, form: struct.Struct) -> Any:
        return form.unpack(self.read(form.size))[0]

    def line(self) -> bytes:
        found = self.readline(MAX_BLOCK)
        if not found.endswith(b"\n"):
            raise PickleError("it ends too early" if len(found) < MAX_BLOCK else "a line in it has no end")
        return found[:-1]

    def block(self, form: struct.Struct) -> bytes | None:
        """The bytes of a text or an array; None of one that is too long to matter, which is passed over."""
        count = self.number(form)
        if count <= MAX_BLOCK:
            return self.read(count)
        while count:
            count -= len(self.read(min(count, MAX_BLOCK)))
        return None

    # what it keeps

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def spend(self, size: int) -> None:
        """Count bytes that are about to be kept."""
        self.left -= size
        if self.left < 0:
            raise PickleError(f"makes more than {MAX_MEMORY:,} bytes")

    def keep(self, value: Any, size: int = 0) -> None:
        """Push a new value, of its own size if none is given."""
        self.spend(size or sys.getsizeof(value))
        self.stack.append(value)

    def text(self, form: struct.Struct, encoding: str = "utf-8") -> None:
        found = self.block(form)
        self.push(_DROPPED) if found is None else self.keep(found.decode(encoding, "surrogatepass"))

    def data(self, form: struct.Struct) -> None:
        found = self.block(form)
        self.push(_DROPPED) if found is None else self.keep(found)

    def marked(self) -> list[Any]:
        """Take the values above the last mark, and the mark."""
        stack = self.stack
        for place in range(len(stack) - 1, -1, -1):
            if stack[place] is _MARK:
                values = stack[place + 1 :]
                del stack[place:]
                return values
        raise PickleError("a mark is missing")

    def remember(self, place: int) -> None:
        if not 0 <= place < 1 << 32:
            raise PickleError("its memo has a place of no meaning")
        self.spend(_ENTRY)
        self.memo[place] = self.stack[-1]

    def call(self, arguments: Any, cls: Any) -> None:
        self.keep(Record(cls, arguments), _OBJECT)

    # what it does

    def long(self, form: struct.Struct) -> None:
        found = self.block(form)
        short = found is not None and len(found) < 256
        self.keep(int.from_bytes(found or b"", "little", signed=True) if short else _DROPPED)

    def text_number(self) -> None:
        digits = self.line()
        self.keep({b"00": False, b"01": True}[digits] if digits in (b"00", b"01") else _whole(digits))

    def text_long(self) -> None:
        self.keep(_whole(self.line().rstrip(b"L")))

    def old_text(self) -> None:
        quoted = self.line()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in b"'\"":
            raise PickleError("a text in it has no quotes")
        self.keep(codecs.escape_decode(quoted[1:-1])[0].decode("latin-1"))

    def tuple_of(self, count: int) -> None:
        stack = self.stack
        values = tuple(stack[len(stack) - count :])
        if len(values) != count or _MARK in values:
            raise PickleError("a value of a tuple is missing")
        del stack[-count:]
        self.keep(values, _OBJECT)

    def name(self) -> None:
        self.push(self.named())

    def named(self) -> Name:
        module, name = self.line(), self.line()
        self.spend(3 * _OBJECT + 4 * (len(module) + len(name)))
        return Name(module.decode(), name.decode())

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("a name in it is no text")
        self.keep(Name(module, name), _OBJECT)

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.call(arguments, self.stack.pop())

    def new_with_names(self) -> None:
        self.stack.pop()
        self.reduce()

    def instance(self) -> None:
        name = self.named()
        self.call(tuple(self.marked()), name)

    def object(self) -> None:
        cls, *arguments = self.marked()
        self.call(tuple(arguments), cls)

    def build(self) -> None:
        state = self.stack.pop()
        if isinstance(made := self.stack[-1], Record):
            made.state = state

    def append(self) -> None:
        value = self.stack.pop()
        self.extend([value])

    def extend(self, values: list[Any]) -> None:
        made = self.stack[-1]
        if isinstance(made, Record):
            made.elements = elements = made.elements or []
            made = elements
        self.spend(_OBJECT + 9 * len(values))
        made.extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, values: list[Any]) -> None:
        made = self.stack[-1]
        if isinstance(made, Record):
            made.entries = entries = made.entries or {}
            made = entries
        if not isinstance(made, dict) or len(values) % 2:
            raise PickleError("a dictionary in it is none")
        keys = [key if type(key) is str or _is_key(key) else _Mark() for key in values[::2]]
        self.spend(_OBJECT + _ENTRY * len(keys))
        made.update(zip(keys, values[1::2], strict=True))

    def dictionary(self) -> None:
        values = self.marked()
        self.keep({}, _OBJECT)
        self.set_items(values)


def _is_key(value: Any) -> bool:
    """True for keys that are kept. To hash or compare others may never end: deep tuples, integers of one hash."""
    return value is None or type(value) in (bool, float, bytes) or (type(value) is int and abs(value) < 1 << 60)


def _whole(digits: bytes) -> int:
    if not 0 < len(digits) <= 1000:
        raise PickleError("a number in it has no end")
    return int(digits)


def _number(form: struct.Struct) -> Callable[[_Machine], None]:
    return lambda machine: machine.keep(machine.number(form), 32)


def _no_extensions(machine: _Machine) -> None:
    raise PickleError("it uses the extension registry of the Python that wrote it")


def _no_buffers(machine: _Machine) -> None:
    raise PickleError("its data lies in buffers outside of it")


# Each step by its code; pickletools of the standard library describes them all.
_STEPS: Mapping[bytes, Callable[[_Machine], Any]] = {
    b"\x80": lambda m: m.read(1),
    b"\x95": lambda m: m.read(8),
    b"(": lambda m: m.push(_MARK),
    b"0": lambda m: m.stack.pop(),
    b"1": lambda m: m.marked(),
    b"2": lambda m: m.push(m.stack[-1]),
    # plain values
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.text_number,
    b"J": _number(_INT),
    b"K": lambda m: m.push(m.read(1)[0]),
    b"M": _number(_SHORT),
    b"L": _Machine.text_long,
    b"\x8a": lambda m: m.long(_BYTE),
    b"\x8b": lambda m: m.long(_INT),
    b"F": lambda m: m.keep(float(m.line())),
    b"G": _number(struct.Struct(">d")),
    b"S": _Machine.old_text,
    b"T": lambda m: m.text(_INT, "latin-1"),
    b"U": lambda m: m.text(_BYTE, "latin-1"),
    b"V": lambda m: m.keep(m.line().decode("raw-unicode-escape")),
    b"X": lambda m: m.text(_LENGTH),
    b"\x8c": lambda m: m.text(_BYTE),
    b"\x8d": lambda m: m.text(_FAR),
    b"B": lambda m: m.data(_LENGTH),
    b"C": lambda m: m.data(_BYTE),
    b"\x8e": lambda m: m.data(_FAR),
    b"\x96": lambda m: m.data(_FAR),
    # lists, tuples, dictionaries; a set is a list here
    b"]": lambda m: m.keep([], _OBJECT),
    b"l": lambda m: m.keep(m.marked()),
    b"a": _Machine.append,
    b"e": lambda m: m.extend(m.marked()),
    b"\x8f": lambda m: m.keep([], _OBJECT),
    b"\x90": lambda m: m.extend(m.marked()),
    b"\x91": lambda m: m.keep(m.marked()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.keep(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.keep({}, _OBJECT),
    b"d": _Machine.dictionary,
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m.marked()),
    # the memo
    b"p": lambda m: m.remember(_whole(m.line())),
    b"q": lambda m: m.remember(m.read(1)[0]),
    b"r": lambda m: m.remember(m.number(_LENGTH)),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": lambda m: m.push(m.memo[_whole(m.line())]),
    b"h": lambda m: m.push(m.memo[m.read(1)[0]]),
    b"j": lambda m: m.push(m.memo[m.number(_LENGTH)]),
    # classes, functions, and what is made with them
    b"c": _Machine.name,
    b"\x93": _Machine.stack_name,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,
    b"\x92": _Machine.new_with_names,
    b"i": _Machine.instance,
    b"o": _Machine.object,
    b"b": _Machine.build,
    b"P": lambda m: m.keep(m.resolve(m.line().decode()), 2 * _OBJECT),
    b"Q": lambda m: m.keep(m.resolve(m.stack.pop()), 2 * _OBJECT),
    b"\x82": _no_extensions,
    b"\x83": _no_extensions,
    b"\x84": _no_extensions,
    b"\x97": _no_buffers,
    b"\x98": lambda m: None,
}
