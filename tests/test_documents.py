"""JSON and YAML that anybody may have written: read as they are meant, or refused in one line that names the fault."""

from __future__ import annotations

import json
import os

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from hf_lwmm import DocumentError
from hf_lwmm.files.documents import (
    MAX_DEPTH,
    as_mapping,
    parse_json,
    parse_yaml,
    read_json,
    read_text,
    read_yaml,
    to_yaml,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_documents_of_the_standard_writers_read_as_what_was_written(content):
    assert parse_json(json.dumps(content), "x") == content
    assert parse_json(json.dumps(content, ensure_ascii=False).encode(), "x") == content


@given(
    st.dictionaries(st.text("abc", min_size=1), st.integers() | st.text("xyz ") | st.lists(st.booleans()), max_size=5)
)
def test_yaml_reads_as_what_was_written(content):
    assert parse_yaml(yaml.safe_dump(content), "x") == content


@given(VALUES)
@example({"a\x85b": "\x85", "\u2028": "x\u2029y", "\ufeff": ["\ufeffa", "a\ufeff", "\x7f", "\xa0", "\r\n"]})
def test_own_yaml_reads_as_what_was_written(content):
    assert parse_yaml(to_yaml(content), "x") == content
    assert parse_yaml(to_yaml(content).encode(), "x") == content


@given(st.lists(st.text(st.sampled_from(["a", "\\", '"', "\U0001f600", "\U0010ffff", "猫", " "])), max_size=8))
@example(["\U0001f600", "\\\U0001f600", "\\uD83D\\uDE00"])
def test_surrogate_pairs_in_yaml_are_read_as_in_json(content):
    quoted = json.dumps(content)
    assert parse_yaml(quoted, "x") == content
    assert parse_yaml(f"- '\\uD83D\\uDE00'\n- {quoted}", "x") == ["\\uD83D\\uDE00", content]


def test_half_a_pair_in_yaml_is_refused():
    for text in (r'"\uD83D"', r'"\uD83D x \uDE00"', r'"\uDE00\uD83D"', r'"\uD83D\uDE00 \uD83D"', r'"\U0000D83D"'):
        with pytest.raises(DocumentError, match="escape code"):
            parse_yaml(text, "x")
    with pytest.raises(DocumentError, match="escape code"):
        parse_yaml("\n".join(r'- "\uD83D\uDE00"' for _ in range(40_000)), "x")


@pytest.mark.parametrize("name", [b"a\xff\xfeb", b"\xffa\x85'\"", b"\xed\xa0\xbd\xed\xb8\x80"])
def test_names_of_files_that_are_no_text_are_spelt_out_in_yaml(name):
    for text in (os.fsdecode(name), "\ud83d", "\udcff\ud83d"):
        spelt = text.encode(errors="backslashreplace").decode()
        assert parse_yaml(to_yaml({text: [text]}).encode(), "x") == {spelt: [spelt]}


def test_letters_stay_legible_in_yaml():
    assert to_yaml({"Größe": "猫"}) == "Größe: 猫\n"


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(content):
    for parse in (parse_json, parse_yaml):
        try:
            parse(content, "x")
        except DocumentError as error:
            assert str(error).startswith("x: ")
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ("[" * 200 + "]" * 200, "more than 100 levels"),
        ("[" * 100_000, "more than 100 levels"),
        ('["\\ud800"]', "surrogates"),
        ("[1", "not valid JSON"),
        ("1" * 5000, "digits"),
        (b"\xff", "not UTF-8"),
        (b" " * (2**24 + 1), "larger than 16,777,216 bytes"),
    ],
)
def test_json_with_a_fault_is_refused_with_its_name(text, fault):
    with pytest.raises(DocumentError, match=fault) as caught:
        parse_json(text, "org/a, config.json")
    assert str(caught.value).startswith("org/a, config.json: ")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\na: 2", "'a' occurs twice"),
        ("a: &x [1, 2]\nb: [*x, *x]", "alias"),
        ("[" * 300 + "]" * 300, "more than 100 levels"),
        ("[" * 5000, "more than 100 levels"),
        ("a: 2024-13-45", "cannot be read as timestamp"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!bool x", "'x' cannot be read as bool"),
        ("a: !!int ''", "'' cannot be read as int"),
        ("!!set [a]", "expected a mapping"),
        ("a: 1" + ":1" * 500 + ".5", "cannot be read as float"),
        ("a: 1" + ":1" * 100_000, "cannot be read as int"),  # to compute it would take a minute
        ("{2305843009213693951: a}", "number of more than 18 characters"),  # many such ones all have one place
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? [1]\n: 2", "unhashable"),
        (b"a: \x00", "not valid YAML"),
    ],
)
def test_yaml_with_a_fault_is_refused_with_its_name(text, fault):
    with pytest.raises(DocumentError, match=fault) as caught:
        parse_yaml(text, "hf_lwmm.yaml")
    assert str(caught.value).startswith("hf_lwmm.yaml: ")


def test_depth_up_to_the_bound_is_read():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text, "x")) == text


def test_files_are_read_with_or_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('\ufeff{"a": 1}', encoding="utf-8")
    assert read_json(path, "x") == read_yaml(path, "x") == {"a": 1}
    assert read_text(path, "x") == '{"a": 1}'


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DocumentError, match=r"org/a, config\.json: cannot be read: No such file"):
        read_json(tmp_path / "none", "org/a, config.json")


@pytest.mark.parametrize("content", [[1], "text", None, {1: 2}])
def test_something_else_than_named_values_is_refused(content):
    with pytest.raises(DocumentError, match="must hold names and values"):
        as_mapping(content, "x")
