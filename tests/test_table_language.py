"""The language that layouts are written in: patterns of names, and the flags of a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm.layouts import LAYOUTS, Form, map_slots
from hf_lwmm.layouts.language import Pattern, generic, read_table


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_slot_of_a_layout_is_in_the_outline_and_leads_back(layout) -> None:  # type: ignore[no-untyped-def]
    for line in layout.lines:
        for pattern in line.right:
            every = (dict.fromkeys("bijkmn", 1) | {"s": stage} for stage in (1, 2, 3, 4, 5, 0))
            numbers = next(each for each in every if line.left[0].fits(each))
            assert layout.component.place(pattern.write(numbers, "weight")), pattern
            found = layout.stored(f"{layout.component.name}.{pattern.write(numbers, 'weight')}")
            assert found and found[0] == line.left[0].write(numbers, "weight")


@given(st.integers(0, 99), st.integers(0, 99), st.sampled_from(["weight", "bias", "running_var"]))
def test_patterns_read_what_they_write(stage: int, block: int, leaf: str) -> None:
    pattern = Pattern("block{s+1}.{b}.attn.kv")
    name = pattern.write({"s": stage, "b": block}, leaf)
    assert pattern.read(name) == ({"s": stage, "b": block}, leaf)
    assert generic(name) in set(pattern.generics)


@pytest.mark.parametrize("block", ["0.1", "1.01", "1.\u0661", "#.1", "1.#", "#.#", "1.-1", "1.", f"1.{'9' * 5000}"])
def test_patterns_read_nothing_else(block: str) -> None:
    assert Pattern("block{s+1}.{b}.attn.kv").read("block1.1.attn.kv.weight") == ({"s": 0, "b": 1}, "weight")
    assert Pattern("block{s+1}.{b}.attn.kv").read("block1.1.attn.kvx.weight") is None
    assert Pattern("block{s+1}.{b}.attn.kv").read(f"block{block}.attn.kv.weight") is None


def test_a_number_that_is_written_twice_is_the_same() -> None:
    pattern = Pattern("stage{s}.block{b}.{s}")
    assert pattern.read("stage1.block2.1.bias") == ({"s": 1, "b": 2}, "bias")
    assert pattern.read("stage1.block2.2.bias") is None


def test_a_line_with_no_rules_a_layout_out() -> None:
    (line,) = read_table("no blocks.{b}.attn.q_bias!")
    assert line.absent and not line.optional and line.left[0].read("blocks.1.attn.q_bias") == ({"b": 1}, "")
    blocks = {"blocks.0.attn.qkv.weight": (24, 8), "cls_token": (1, 1, 8), "pos_embed": (1, 5, 8)}
    names = ("patch_embed.proj", "blocks.0.norm1", "blocks.0.attn.proj", "blocks.0.norm2", "blocks.0.mlp.fc1")
    blocks |= {f"{name}.weight": (8, 8) for name in (*names, "blocks.0.mlp.fc2")}
    assert map_slots(blocks).layout == "vit/timm"
    assert map_slots(blocks | {"blocks.0.attn.q_bias": (8,)}).layout == "identity"


def test_flags_of_a_line_are_read() -> None:
    (line,) = read_table("positional_embedding! = embed.token_position! | embed.position! (-1d) (tokens?)")
    assert line.form("") == Form(ones=-1, tokens=True, bare=True)
    (line,) = read_table("embed.class! (with embed.token_position) (pretraining)")
    assert line.companion == "embed.token_position" and "pretraining" in line.flags
