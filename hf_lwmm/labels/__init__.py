"""Class names and label sets: which names stand behind the rows of a classifier."""

from hf_lwmm.labels.label_sets import (
    LabelSet,
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
    "label_set_of_ids",
    "label_sets",
    "labels_of_rows",
    "match_classes",
    "meaning",
    "normalise",
    "read_label_set",
]
