"""Read pickles as data: nothing is imported and nothing is run, whatever a pickle asks for.

A pickle is a program for a small stack machine. Its plain values (numbers, texts, lists, dictionaries) are made here as
they are; a class or function that it names stays its name (`Name`), and an object that it would make is a `Record` of
what it would be made from.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from hf_lwmm.errors import CheckpointError

MAX_STEPS = 3_000_000  # a training checkpoint of 10,000 tensors takes a fifth of it
MAX_BLOCK = 1 << 26  # bytes of one text, number or array inside a pickle


class PickleError(CheckpointError):
    """A pickle is damaged, or larger than any checkpoint's."""


@dataclass(frozen=True)
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
        self.entries: dict[Any, Any] = {}
        self.elements: list[Any] = []

    def __repr__(self) -> str:  # its parts may hold it
        return f"Record({self.cls if isinstance(self.cls, Name) else '...'})"


class _Mark:
    """A value of no meaning: the mark below the values of one list or dictionary, or a key that is dropped."""


_MARK = _Mark()


def _no_outside(id: Any) -> Any:
    raise PickleError("it names something outside of it")


def read_pickle(file: BinaryIO, resolve: Callable[[Any], Any] = _no_outside) -> Any:
    """Read the next pickle of a file, up to its end and no further.

    `resolve` returns what a persistent id stands for: a value that is kept outside the pickle, such as a storage.

    Raises:
        PickleError: if it is truncated or damaged, or takes more than `MAX_STEPS` steps.
    """
    return _Machine(file, resolve).run()


class _Machine:
    """The stack machine, whose calls leave records."""

    def __init__(self, file: BinaryIO, resolve: Callable[[Any], Any]) -> None:
        self.resolve = resolve
        self.read_some = file.read
        self.readline = file.readline
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        stack, read_some, steps = self.stack, self.read_some, _STEPS
        try:
            for _ in range(MAX_STEPS):
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
        raise PickleError(f"takes more than {MAX_STEPS:,} steps")

    # what it reads

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MAX_BLOCK:
            raise PickleError(f"a value in it claims {count:,} bytes")
        found = self.read_some(count)
        if len(found) != count:
            raise PickleError("it ends too early")
        return found

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        found = self.readline(MAX_BLOCK)
        if not found.endswith(b"\n"):
            raise PickleError("it ends too early")
        return found[:-1]

    def text(self, form: str) -> str:
        return self.read(self.number(form)).decode("utf-8", "surrogatepass")

    def latin(self, form: str) -> str:
        return self.read(self.number(form)).decode("latin-1")

    # what it keeps

    def push(self, value: Any) -> None:
        self.stack.append(value)

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
        self.memo[place] = self.stack[-1]

    def call(self, arguments: Any, cls: Any) -> None:
        self.push(Record(cls, arguments))

    # what it does

    def long(self, count: int) -> None:
        self.push(int.from_bytes(self.read(count), "little", signed=True))

    def text_number(self) -> None:
        digits = self.line()
        self.push({b"00": False, b"01": True}[digits] if digits in (b"00", b"01") else _whole(digits))

    def text_long(self) -> None:
        self.push(_whole(self.line().rstrip(b"L")))

    def old_text(self) -> None:
        quoted = self.line()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in b"'\"":
            raise PickleError("a text in it has no quotes")
        self.push(codecs.escape_decode(quoted[1:-1])[0].decode("latin-1"))  # type: ignore[attr-defined]

    def tuple_of(self, count: int) -> None:
        stack = self.stack
        values = tuple(stack[len(stack) - count :])
        if len(values) != count or _MARK in values:
            raise PickleError("a value of a tuple is missing")
        if count:
            del stack[-count:]
        stack.append(values)

    def name(self) -> None:
        module, name = self.line().decode(), self.line().decode()
        self.push(Name(module, name))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("a name in it is no text")
        self.push(Name(module, name))

    def reduce(self) -> None:
        arguments = self.stack.pop()
        self.call(arguments, self.stack.pop())

    def new_with_names(self) -> None:
        self.stack.pop()
        self.reduce()

    def instance(self) -> None:
        module, name = self.line().decode(), self.line().decode()
        self.call(tuple(self.marked()), Name(module, name))

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
        (made.elements if isinstance(made, Record) else made).extend(values)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, values: list[Any]) -> None:
        made = self.stack[-1]
        entries = made.entries if isinstance(made, Record) else made
        if not isinstance(entries, dict) or len(values) % 2:
            raise PickleError("a dictionary in it is none")
        keys = values[::2]
        if not all(type(key) in _KEYS for key in keys):
            keys = [key if type(key) in _KEYS else _Mark() for key in keys]  # hashing others may never end
        entries.update(zip(keys, values[1::2], strict=True))

    def dictionary(self) -> None:
        values = self.marked()
        self.push({})
        self.set_items(values)


_KEYS = (str, int, float, bool, bytes, type(None))


def _whole(digits: bytes) -> int:
    if not 0 < len(digits) <= 1000:
        raise PickleError("a number in it has no end")
    return int(digits)


def _pushing(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda machine: machine.stack.append(make(machine))


def _ignore(machine: _Machine) -> None: ...


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
    b"J": _pushing(lambda m: m.number("<i")),
    b"K": _pushing(lambda m: m.read(1)[0]),
    b"M": _pushing(lambda m: m.number("<H")),
    b"L": _Machine.text_long,
    b"\x8a": lambda m: m.long(m.read(1)[0]),
    b"\x8b": lambda m: m.long(m.number("<i")),
    b"F": _pushing(lambda m: float(m.line())),
    b"G": _pushing(lambda m: m.number(">d")),
    b"S": _Machine.old_text,
    b"T": _pushing(lambda m: m.latin("<i")),
    b"U": _pushing(lambda m: m.latin("<B")),
    b"V": _pushing(lambda m: m.line().decode("raw-unicode-escape")),
    b"X": _pushing(lambda m: m.text("<I")),
    b"\x8c": _pushing(lambda m: m.text("<B")),
    b"\x8d": _pushing(lambda m: m.text("<Q")),
    b"B": _pushing(lambda m: m.read(m.number("<I"))),
    b"C": _pushing(lambda m: m.read(m.number("<B"))),
    b"\x8e": _pushing(lambda m: m.read(m.number("<Q"))),
    b"\x96": _pushing(lambda m: m.read(m.number("<Q"))),
    # lists, tuples, dictionaries; a set is a list here
    b"]": lambda m: m.push([]),
    b"l": lambda m: m.push(m.marked()),
    b"a": _Machine.append,
    b"e": lambda m: m.extend(m.marked()),
    b"\x8f": lambda m: m.push([]),
    b"\x90": lambda m: m.extend(m.marked()),
    b"\x91": lambda m: m.push(m.marked()),
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.marked())),
    b"\x85": lambda m: m.tuple_of(1),
    b"\x86": lambda m: m.tuple_of(2),
    b"\x87": lambda m: m.tuple_of(3),
    b"}": lambda m: m.push({}),
    b"d": _Machine.dictionary,
    b"s": _Machine.set_item,
    b"u": lambda m: m.set_items(m.marked()),
    # the memo
    b"p": lambda m: m.remember(_whole(m.line())),
    b"q": lambda m: m.remember(m.read(1)[0]),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": lambda m: m.remember(len(m.memo)),
    b"g": _pushing(lambda m: m.memo[_whole(m.line())]),
    b"h": _pushing(lambda m: m.memo[m.read(1)[0]]),
    b"j": _pushing(lambda m: m.memo[m.number("<I")]),
    # classes, functions, and what is made with them
    b"c": _Machine.name,
    b"\x93": _Machine.stack_name,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,
    b"\x92": _Machine.new_with_names,
    b"i": _Machine.instance,
    b"o": _Machine.object,
    b"b": _Machine.build,
    b"P": _pushing(lambda m: m.resolve(m.line().decode())),
    b"Q": _pushing(lambda m: m.resolve(m.stack.pop())),
    b"\x82": _no_extensions,
    b"\x83": _no_extensions,
    b"\x84": _no_extensions,
    b"\x97": _no_buffers,
    b"\x98": _ignore,
}
