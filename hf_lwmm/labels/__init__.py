"""Class names and label sets: the meaning of a classifier's rows, and of the ids in label files."""

from hf_lwmm.labels.ids import BINARY, FROM_ONE, FROM_ZERO, NUMBERINGS, LabelIds, raw_label_set, without_ignored
from hf_lwmm.labels.named_ids import check_ids_once, class_names, named_ids
from hf_lwmm.labels.sets import (
    IGNORE,
    Colour,
    LabelSet,
    check_label_set,
    coloured_schemes,
    colours_of_ids,
    indexed_schemes,
    is_label_file,
    label_sets,
    labels_of_rows,
    match_classes,
    matching_rows,
    meaning,
    normalise,
    read_label_set,
)

__all__ = [
    "BINARY",
    "FROM_ONE",
    "FROM_ZERO",
    "IGNORE",
    "NUMBERINGS",
    "Colour",
    "LabelIds",
    "LabelSet",
    "check_ids_once",
    "check_label_set",
    "class_names",
    "coloured_schemes",
    "colours_of_ids",
    "indexed_schemes",
    "is_label_file",
    "label_sets",
    "labels_of_rows",
    "match_classes",
    "matching_rows",
    "meaning",
    "named_ids",
    "normalise",
    "raw_label_set",
    "read_label_set",
    "without_ignored",
]
