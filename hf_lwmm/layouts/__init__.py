"""Stored names and slots: what each code base calls the weights of a network, and how to translate.

A new layout is a table in `tables/`, written in the language that `language` describes and listed in `registry`.
`slots` maps a checkpoint's tensors with these tables; `roles` finds the part of the network that a slot belongs to.
No module outside this package sees a code base's own names.
"""

from hf_lwmm.layouts.forms import Form, Order, Shape
from hf_lwmm.layouts.layout import Component, Layout
from hf_lwmm.layouts.registry import COMPONENTS, LAYOUTS
from hf_lwmm.layouts.roles import (
    classes_of_rows,
    companion_of,
    depth_order,
    has_background_row,
    has_no_object_row,
    in_backbone,
    is_bn_stat,
    is_variance,
    names_a_classifier,
    place_of,
    rows_of_a_class,
)
from hf_lwmm.layouts.slots import (
    Atom,
    LayoutMatch,
    SlotMap,
    backbone_prefixes,
    in_registration_order,
    map_slots,
    named_parts,
    registration_order,
)

__all__ = [
    "COMPONENTS",
    "LAYOUTS",
    "Atom",
    "Component",
    "Form",
    "Layout",
    "LayoutMatch",
    "Order",
    "Shape",
    "SlotMap",
    "backbone_prefixes",
    "classes_of_rows",
    "companion_of",
    "depth_order",
    "has_background_row",
    "has_no_object_row",
    "in_backbone",
    "in_registration_order",
    "is_bn_stat",
    "is_variance",
    "map_slots",
    "named_parts",
    "names_a_classifier",
    "place_of",
    "registration_order",
    "rows_of_a_class",
]
