"""Read JSON and YAML that anybody may have written: bounded in size and depth, and with no way to mean two things."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hf_lwmm.errors import DocumentError
from hf_lwmm.files.kinds import HEAD, foreign_kind

MAX_SIZE = 16 * 2**20  # bytes; the largest files of this kind, lists of COCO aside, have a few hundred KB
MAX_YAML_SIZE = 2**20  # which takes up to 4 s if it is nothing but brackets, and a tenth of that if a person wrote it
MAX_DEPTH = 100  # levels of lists and mappings in each other
_LONGEST_NUMBER = 4300  # characters, Python's own limit for those that are written in tens
_LONGEST_NAME_IN_DIGITS = 18  # larger numbers can be chosen so that a dictionary takes minutes to fill
_MOST_WITH_PAIRS = 64  # texts in quotes with surrogate pairs; fewer in long documents, which are read again for each
_CONTAINERS = {dict, list}


class ForeignDocumentError(DocumentError):
    """A file that came in the place of a document: a Git LFS pointer, a web page, an empty or a compressed file."""


def read_json(path: Path, where: str, *, max_size: int = MAX_SIZE) -> Any:
    """Return the content of a JSON file; `where` is what messages call it.

    Raises:
        DocumentError: as `parse_json`, or if the file cannot be read.
    """
    return parse_json(_read(path, where, max_size), where, max_size=max_size)


def read_yaml(path: Path, where: str) -> Any:
    """Return the content of a YAML file; `where` is what messages call it.

    Raises:
        DocumentError: as `parse_yaml`, or if the file cannot be read.
    """
    return parse_yaml(_read(path, where, MAX_YAML_SIZE), where)


def read_text(path: Path, where: str) -> str:
    """Return the text of a UTF-8 file; `where` is what messages call it.

    Raises:
        DocumentError: if the file cannot be read, is larger than `MAX_SIZE` bytes, or is no text.
    """
    return _decode(_read(path, where, MAX_SIZE), where, MAX_SIZE)


def parse_json(text: bytes | str, where: str, *, max_size: int = MAX_SIZE) -> Any:
    """Return the content of a JSON text.

    Raises:
        ForeignDocumentError: if it is a Git LFS pointer, a web page, or another file than a document.
        DocumentError: if it is no JSON, is too large or too deep, has a name twice in one object, or has half of a
            surrogate pair, which no file could hold.
    """
    if mistake := foreign_kind(text[:HEAD].encode(errors="replace") if isinstance(text, str) else text[:HEAD]):
        raise ForeignDocumentError(f"{where}: {mistake}")
    text = _decode(text, where, max_size)
    try:
        content = json.loads(text, object_pairs_hook=_no_duplicates)
        _check_depth(content, where)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise DocumentError(f"{where}: is not valid JSON: {error}.") from None
    return content


def parse_yaml(text: bytes | str, where: str) -> Any:
    """Return the content of a YAML text of one document.

    Characters may be written as JSON writes them, as two escapes that are a surrogate pair.

    Raises:
        DocumentError: if it is no YAML, is too large or too deep, has a name twice in one mapping, or has aliases,
            with which a short text can mean a huge one.
    """
    text = _decode(text, where, MAX_YAML_SIZE)
    try:
        for _ in range(min(_MOST_WITH_PAIRS, MAX_YAML_SIZE // max(len(text), 1))):
            try:
                return yaml.load(text, Loader=_Loader)  # type: ignore[arg-type]
            except yaml.scanner.ScannerError as error:
                if (joined := _with_pairs_joined(text, error)) is None:
                    raise
                text = joined
        return yaml.load(text, Loader=_Loader)  # type: ignore[arg-type]
    except RecursionError:
        raise _too_deep(where) from None
    except (yaml.YAMLError, ValueError) as error:
        if getattr(error, "problem", None) == "exceeded maximum nesting depth":  # libyaml's own bound, of 1,000
            raise _too_deep(where) from None
        raise DocumentError(f"{where}: is not valid YAML: {_problem(error)}.") from None


def as_mapping(content: Any, where: str) -> Mapping[str, Any]:
    """Return the content of a document that must be an object of named values.

    Raises:
        DocumentError: if it is anything else.
    """
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise DocumentError(f"{where}: must hold names and values, not {shortened(content)}.")
    return content


def is_texts(content: Any) -> bool:
    """Return True for a list of texts."""
    return isinstance(content, list | tuple) and all(isinstance(each, str) for each in content)


def to_yaml(content: Any) -> str:
    """Return content as YAML that `parse_yaml` reads: without aliases, and with names in their order.

    It is in ASCII, with escapes, if the content has characters that do not print: YAML takes some of them for ends of
    lines, or allows them at the beginning only. Bytes of a file's name that are no UTF-8, which Python has as halves of
    surrogate pairs and no text file can hold, are spelt out: `\\udcff`.
    """
    text = _dumped(content)
    return text if all(line.isprintable() for line in text.split("\n")) else _dumped(content, allow_unicode=False)


def _dumped(content: Any, *, allow_unicode: bool = True) -> str:
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=allow_unicode))


def shortened(content: Any) -> str:
    """Return a value as a message may show it: on one line, and no longer than a line."""
    text = repr(content)
    return text if len(text) <= 80 else text[:77] + "..."


def _read(path: Path, where: str, max_size: int) -> bytes:
    try:
        if path.is_fifo():  # which would be waited for
            raise DocumentError(f"{where}: cannot be read: it is a pipe, not a file.")
        with path.open("rb") as file:
            return file.read(max_size + 1)
    except OSError as error:
        raise DocumentError(f"{where}: cannot be read: {error.strerror or error}.") from None


def _decode(text: bytes | str, where: str, max_size: int) -> str:
    if len(text) > max_size:
        raise DocumentError(f"{where}: is larger than {max_size:,} bytes, and no file of this kind is.")
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where}: is not UTF-8 text ({error.reason} at byte {error.start:,}).") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError(f"the name {_most_frequent([name for name, _ in pairs])} occurs twice")
    return entries


def _most_frequent(names: list[str]) -> str:
    return shortened(Counter(names).most_common(1)[0][0])


def _too_deep(where: str) -> DocumentError:
    return DocumentError(f"{where}: has more than {MAX_DEPTH} levels of lists and mappings in each other.")


def _check_depth(content: Any, where: str) -> None:
    level = [content] if type(content) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]
        if not level:
            return
    raise _too_deep(where)


def _problem(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem is None:
        return " ".join(str(error).split())[:200]
    mark = error.problem_mark
    return f"{error.problem[:200]} (line {mark.line + 1}, column {mark.column + 1})" if mark else error.problem[:200]


_ESCAPE = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\.", re.DOTALL)
_REST_OF_QUOTED = re.compile(r'(?:[^"\\]|\\.)*', re.DOTALL)


def _with_pairs_joined(text: str, error: yaml.MarkedYAMLError) -> str | None:
    """The YAML text with one escape for each surrogate pair, in the double quotes where the first stopped the reader.

    None if it was something else that stopped it.
    """
    # The mark is behind the backslash and the letter.
    start = error.problem_mark.index - 2 if error.problem_mark else -1
    if start < 0 or not ((first := _ESCAPE.match(text, start)) and first[1]):
        return None
    rest = _REST_OF_QUOTED.match(text, start)
    assert rest is not None
    return text[:start] + _ESCAPE.sub(_joined, rest[0]) + text[rest.end() :]


def _joined(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return escape[0]
    character = bytes.fromhex(escape[1] + escape[2]).decode("utf-16-be")
    return f"\\U{ord(character):08X}"


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which writes out again what occurs again."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return super().represent_str(data.encode(errors="backslashreplace").decode())


_Dumper.add_representer(str, _Dumper.represent_str)

if yaml.__with_libyaml__:
    from yaml._yaml import CParser as _Parser
else:

    class _Parser(yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser):  # type: ignore[no-redef]
        """The same in Python, ten times slower."""

        def __init__(self, text: str) -> None:
            yaml.reader.Reader.__init__(self, text)
            yaml.scanner.Scanner.__init__(self)
            yaml.parser.Parser.__init__(self)


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.composer.Composer, _Parser, yaml.constructor.SafeConstructor, yaml.resolver.Resolver):
    """PyYAML's safe loader without aliases, repeated names, depth, and numbers that take long to read."""

    def __init__(self, text: str) -> None:
        _Parser.__init__(self, text)
        yaml.composer.Composer.__init__(self)
        yaml.constructor.SafeConstructor.__init__(self)
        yaml.resolver.Resolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            problem = "an alias stands for a value; write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)  # type: ignore[arg-type]
        inside = isinstance(event, yaml.CollectionStartEvent)
        self._depth += inside
        if self._depth > MAX_DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self._depth -= inside
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
                raise OverflowError
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            kind = node.tag.rpartition(":")[2]
            problem = f"{shortened(node.value)} cannot be read as {kind}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []  # a !!set may be written as a list
        names = [key.value for key, _ in pairs if isinstance(key, yaml.ScalarNode)]
        if len(set(names)) != len(names):
            twice = f"the name {_most_frequent(names)} occurs twice"
            raise yaml.constructor.ConstructorError(None, None, twice, node.start_mark)
        for key, _ in pairs:
            if key.tag in _NUMBERS and len(key.value) > _LONGEST_NAME_IN_DIGITS:
                long = f"the name {shortened(key.value)} is a number of more than {_LONGEST_NAME_IN_DIGITS} characters"
                raise yaml.constructor.ConstructorError(None, None, long, key.start_mark)
        return super().construct_mapping(node, deep)
