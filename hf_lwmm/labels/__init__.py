"""Class names and label sets: the meaning of a classifier's rows, and of the ids in label files."""

from hf_lwmm.labels.named_ids import class_names, named_ids
from hf_lwmm.labels.sets import (
    LabelSet,
    check_label_set,
    label_set_of_ids,
    label_sets,
    labels_of_rows,
    match_classes,
    meaning,
    normalise,
    read_label_set,
)

__all__ = [
    "LabelSet",
    "check_label_set",
    "class_names",
    "label_set_of_ids",
    "label_sets",
    "labels_of_rows",
    "match_classes",
    "meaning",
    "named_ids",
    "normalise",
    "read_label_set",
]
