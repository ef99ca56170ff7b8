"""Declare the options of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.options import Options, option


@dataclass(frozen=True)
class EvaluationSpec(Options):
    """The options of an evaluation: classes to score, views of an image, speed, pictures.

    `protocol` is the label set whose classes are scored; if None, all classes that the data set or the first model has.
    `flip` and `scales` are views of each image over which the softmax of a model is averaged.
    """

    protocol: str | None = option(
        None, "Classes to score: cityscapes19, synthia16, synthia13, camvid11, ... or a file."
    )
    ensemble: bool = option(False, "Also score the average of all models' outputs.")
    flip: bool = option(False, "Average each image with its mirror image.")
    scales: tuple[float, ...] = option(
        (1.0,), "Average over these sizes of an image, such as 0.5,1,1.5.", above=0, maximum=8, commas=True
    )
    batch_size: int = option(1, "Images that pass a network together.", minimum=1)
    compile: bool = option(False, "Compile the networks first (torch.compile), for GPUs.")
    edaps_void: bool = option(False, "Count void panoptic pixels as the first class, as EDAPS does.")
    examples: int = option(0, "Draw this many images on which the last model and the anchor differ most.", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales:
            raise self.error("--scales is empty; 1 is the size of the image itself.")
