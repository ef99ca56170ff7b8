"""Guess from names alone in which order a network that no layout knows uses its slots.

Names say what comes first and last among the parts of one module: stems and embeddings, numbered parts, norms behind
them, necks, heads. `docs/depth-order.md` has how far such orders are from those that running shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Key = tuple[object, ...]
_LEAF_ORDER = {"weight": 0, "weight_g": 0, "weight_v": 0, "bias": 1, "running_mean": 2, "running_var": 3}
# `fc.parametrizations.weight.original0` is, like `fc.weight_g`, a part of the weight of `fc`.
_PARAMETRISED = re.compile(r"(?<![^.])parametrizations\.(\w+)\.original\d*$")
_FIRST_HEAD = re.compile(r"^(neck|fpn|aspp|psp|decod|auxiliary|aux|.*head|merge|up|seg)", re.IGNORECASE)
_FIRST_CLASSIFIER = re.compile(
    r"^(classifier|class|fc|cls|conv_seg|linear_pred|logits?|out|last|segmentation_head)", re.IGNORECASE
)
_NO_NUMBER = re.compile(r"(?<=conv)[123]d|_?\d+x\d+", re.IGNORECASE)  # Conv2d_1a_3x3
_DIGITS = 18  # of a number, at most
_NUMBER = re.compile(rf"_?(\d{{1,{_DIGITS}}})([a-z]?)(?=_|$)")  # conv1, conv2_1, Mixed_5b

# What a part without a number is called that runs before or behind those of the same module, in its role's order.
_ROLES = tuple(
    (role, re.compile(pattern, re.IGNORECASE))
    for role, pattern in (
        (
            -1,
            r"backbone|.*stem|base_layer|.*embed(ding)?s?|.*embedder|(.*_)?tokens?|pos(ition)?_.*|.*_pos|(ln|norm)_pre"
            r"|pre_(layer_?)?norm",
        ),
        (5, r"aux.*"),
        (2, r"neck|fpn.*|aspp|psp.*|.*decod.*|up|merge"),
        (4, r"classif.*|class|fc|cls|conv_seg|linear_pred|logits?|out|last_linear|.*classifier|.*predictor|bbox.*"),
        (3, r".*head.*|seg(mentation)?(_.*)?"),
        (
            1,
            r"(final|last).*|(fc_|post_)?(layer_?)?norm(alization)?|ln_(f|post)|bn|incre_.*|downsamp_.*|pooler|root"
            r"|.*fus(e|ion).*|conv_(proj(ection)?|transition|reduction)|attn_pool|bottleneck|layer_?scale.*|gamma",
        ),
    )
)
_BODY, _BEGINNING, _END = 0, -1, 1
# Parts of a block that mostly have no number, as if they had that of the norm before them.
_NUMBERS = {
    "layernorm_before": 1, "layer_norm_before": 1, "attn": 1, "attention": 1, "self_attn": 1, "token_mixer": 1,
    "layernorm_after": 2, "layer_norm_after": 2, "mlp": 2, "ffn": 2, "intermediate": 2, "output": 2,
}  # fmt: skip
# The order of parts of one number.
_ORDER = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"patch_?embed.*|downsample.*", r"#",
        r"q(uery)?(_proj|_lin)?", r"k(ey)?(_proj|_lin)?", r"v(alue)?(_proj|_lin)?",
        r"(conv|fc|linear|lin|dense|qkv|in_proj).*", r"#", r"(bn|norm|ln|layer_?norm).*", r"(self_)?att.*|token_mixer",
        r"proj.*|out(_proj)?|[co]_proj", r"mlp|ffn|intermediate", r"output", r"(ls|gamma|layer_?scale|lambda).*",
    )
)  # fmt: skip
_BEHIND_PATCHES, _BEFORE_NORM = 1, 6  # where no word is
_BLOCKS = re.compile(r".*blocks?", re.IGNORECASE)  # with a number, they run before the norm of the same number
_LISTS = re.compile(r"(patch_?embed|downsample_layers).*", re.IGNORECASE)  # lists that run in turn with others
_BETWEEN_STAGES = re.compile(r"downsample|patch_merging|pool", re.IGNORECASE)


def guessed_order(slots: Iterable[str]) -> list[str]:
    """Return slots in the order in which their names suggest that a network uses them."""
    keys = guessed_keys(slots)
    return sorted(keys, key=lambda slot: keys[slot])


def guessed_keys(slots: Iterable[str]) -> dict[str, Key]:
    """Return a key for each slot that sorts slots into the guessed order; its first part stands for the module."""
    found = {slot: _PARAMETRISED.sub(r"\1", slot) for slot in slots}
    children: dict[str, set[str]] = {}
    for slot in found.values():
        parts = slot.split(".")
        for place in range(len(parts)):
            children.setdefault(".".join(parts[:place]), set()).add(parts[place])
    modules = {module: _module_key(module, children) for module in {slot.rpartition(".")[0] for slot in found.values()}}
    keys: dict[str, Key] = {}
    for slot, plain in found.items():
        module, _, leaf = plain.rpartition(".")
        own = leaf in _LEAF_ORDER
        key = modules[module] if own else (*modules[module], _part_key(leaf, module, children))
        keys[slot] = (key, _LEAF_ORDER.get(leaf, 9), slot.rpartition(".")[2])
    return keys


def first_guessed_keys(slots: Iterable[str]) -> dict[str, Key]:
    """Return the keys that recipes up to schema 2 rest on: backbone, head, classifier, then names and numbers."""
    keys: dict[str, Key] = {}
    for slot in slots:
        module, _, leaf = slot.rpartition(".")
        top = module.split(".")[0]
        role = 2 if _FIRST_CLASSIFIER.match(top) else 1 if _FIRST_HEAD.match(top) else 0
        split = (p for p in re.split(r"(\d+)", module) if p)
        pieces = tuple((0, int(p), "") if p.isdecimal() and len(p) <= _DIGITS else (1, 0, p) for p in split)
        keys[slot] = ((role, pieces), _LEAF_ORDER.get(leaf, 9), leaf)
    return keys


def _module_key(module: str, children: Mapping[str, set[str]]) -> Key:
    """The keys of the parts of a module's path; of a list that runs in turn with others, one has its number, too."""
    parts, key, place = module.split(".") if module else [], list[Key](), 0
    while place < len(parts):
        above = ".".join(parts[:place])
        name = parts[place]
        if place + 1 < len(parts) and parts[place + 1].isdigit() and _runs_in_turn(above, name, children):
            name = f"{name}_{parts[place + 1]}"
            place += 1
        key.append(_part_key(name, above, children))
        place += 1
    return tuple(key)


def _runs_in_turn(above: str, name: str, children: Mapping[str, set[str]]) -> bool:
    """True for one of several lists of the same length, of which one embeds or halves what the others work on."""

    def items(each: str) -> set[str]:
        return children.get(f"{above}.{each}" if above else each, set())

    alike = [each for each in children[above] if items(each) == items(name)]
    works = any(all(not pattern.fullmatch(each) for _, pattern in _ROLES) for each in alike)
    return works and any(map(_LISTS.fullmatch, alike)) and all(item.isdigit() for item in items(name))


def _part_key(name: str, above: str, children: Mapping[str, set[str]]) -> Key:
    """A key among the parts of one module: its role, its numbers and letters, its order among those, its name."""
    plain = _NO_NUMBER.sub("", name)
    found, word = list(_NUMBER.finditer(plain)), _NUMBER.sub("", plain)
    numbers = tuple(int(match[1]) for match in found) or (_NUMBERS.get(word.lower(), 1),)
    role = next((role for role, pattern in _ROLES if pattern.fullmatch(word)), _BODY)
    order = next((place for place, pattern in enumerate(_ORDER) if pattern.fullmatch(word)), len(_ORDER))
    if found and role == _BEGINNING:
        order = min(order, _BEHIND_PATCHES)
    elif found and _BLOCKS.fullmatch(word):
        order = _BEFORE_NORM
    if word.lower() in _NUMBERS or (found and role in (_BEGINNING, _END)):
        role = _BODY
    if _BETWEEN_STAGES.fullmatch(name):
        role = _END if _first_has(name, above, children) else _BEGINNING
    return (role, numbers, "".join(match[2] for match in found), order, word)


def _first_has(name: str, above: str, children: Mapping[str, set[str]]) -> bool:
    """True if the first of the modules that have a part has it, which then leads to the next one: the last has none."""
    before, _, number = above.rpartition(".")
    first = f"{before}.0" if before else "0"
    return not number.isdigit() or name in children.get(first, set())
