"""The key-mapping layer: which slots a checkpoint's tensors hold, whatever a code base calls them.

Everything that knows a code base's own names is a table in this package; no module outside it sees one.
"""

from hf_lwmm.layouts.registry import COMPONENTS, LAYOUTS
from hf_lwmm.layouts.roles import depth_order, in_backbone, is_bn_stat, other_factor, place_of
from hf_lwmm.layouts.slots import Atom, LayoutMatch, Shape, SlotMap, map_slots, registration_order

__all__ = [
    "COMPONENTS",
    "LAYOUTS",
    "Atom",
    "LayoutMatch",
    "Shape",
    "SlotMap",
    "depth_order",
    "in_backbone",
    "is_bn_stat",
    "map_slots",
    "other_factor",
    "place_of",
    "registration_order",
]
