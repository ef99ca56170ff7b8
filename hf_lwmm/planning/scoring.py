"""Declare the options that change what a score is, which a recipe records where weights were decided by scores."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hf_lwmm.labels import is_label_file, label_sets, read_label_set
from hf_lwmm.options import Options, option


@dataclass(frozen=True)
class ScoringOptions(Options):
    """The classes that are scored, and the views of an image.

    `protocol` is the label set whose classes are scored; if None, all classes that the data set or the first model has.
    `flip` and `scales` are views of each image over which the softmax of a model is averaged.
    """

    protocol: str | None = option(None, "Classes to score: cityscapes19, ... or a file.", known=label_sets)
    flip: bool = option(False, "Average each image with its mirror image.")
    scales: tuple[float, ...] = option(
        (1.0,), "Average over these sizes of an image, such as 0.5,1,1.5.", above=0, maximum=8, commas=True
    )
    edaps_void: bool = option(False, "Count void panoptic pixels as the first class, as EDAPS does.")

    @property
    def reads_file(self) -> bool:
        """True if the protocol is the name of a file of classes."""
        return self.protocol is not None and is_label_file(self.protocol)

    @property
    def scoring(self) -> ScoringOptions:
        """These options alone, without those of a subclass, and with the classes of a file in place of its name."""
        protocol = self.protocol
        if protocol is not None and protocol not in label_sets():
            protocol = json.dumps(read_label_set(protocol).classes, ensure_ascii=False)
        return ScoringOptions(protocol, self.flip, self.scales, self.edaps_void)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise self.error("--scales is empty; 1 is the size of the image itself.")
