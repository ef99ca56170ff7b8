"""Tables from raw ids, and from one list of classes to another, hold whatever the classes are called."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm import DatasetError
from hf_lwmm.labels import label_sets, match_classes, meaning, normalise

NAMES = sorted({name for labels in label_sets().values() for name in labels.classes})
LISTS = st.lists(
    st.sampled_from(NAMES) | st.text("abc -_", min_size=1, max_size=4).filter(str.strip),
    min_size=1,
    max_size=30,
    unique_by=meaning,
)


def matched(model: list[str], data: list[str]) -> list[int] | None:
    try:
        return match_classes(model, data, "the model", "the data").tolist()
    except DatasetError:
        return None


@given(LISTS)
def test_a_list_matches_itself(classes):
    assert matched(classes, classes)[: len(classes)] == list(range(len(classes)))


@given(LISTS, st.randoms())
def test_order_does_not_matter(classes, random):
    other = random.sample(classes, len(classes))
    table = matched(classes, other)
    assert [other[row] for row in table[: len(classes)]] == classes


@given(LISTS, st.data())
def test_spelling_does_not_matter(classes, data):
    ways = (str.upper, str.title, lambda name: name.replace(" ", "_"), lambda name: f" {name} ")
    other = [data.draw(st.sampled_from(ways))(name) for name in classes]
    assert matched(classes, other)[: len(classes)] == list(range(len(classes)))


@given(LISTS, LISTS)
def test_only_classes_of_one_meaning_are_matched(model, data):
    table = matched(model, data)
    shared = {meaning(name) for name in model} & {meaning(name) for name in data}
    if table is None:
        assert 4 * len(shared) < min(len(model), len(data)) or not shared
        return
    assert len(table) == 256 and set(table[len(model) :]) <= {255}
    for name, row in zip(model, table, strict=False):
        assert (meaning(name) in shared) == (row != 255)
        assert row == 255 or meaning(data[row]) == meaning(name)


@given(st.sampled_from(sorted(label_sets())), st.data())
def test_each_raw_id_means_the_class_that_lists_it(name, data):
    labels = label_sets()[name]
    for scheme, ids in labels.ids.items():
        table = labels.table(scheme)
        listed = {raw: row for row, each in enumerate(ids) for raw in each}
        assert len(listed) == sum(map(len, ids)), "a raw id of two classes"
        assert table.tolist() == [listed.get(raw, 255) for raw in range(256)]


@pytest.mark.parametrize("name", sorted(label_sets()))
def test_no_known_set_has_two_classes_of_one_name(name):
    labels = label_sets()[name]
    assert len({normalise(each) for each in labels.classes}) == len(labels.classes)
    assert not labels.colours or len(set(labels.colours)) == len(labels.colours) == len(labels.classes)
    assert set(labels.things) <= set(labels.classes)


def test_a_table_is_made_of_small_whole_numbers():
    assert match_classes(["a"], ["a"], "m", "d").dtype == np.uint8
