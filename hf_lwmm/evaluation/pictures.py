"""Prepare pictures for networks, once for all whose image processors agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor, nn

from hf_lwmm.errors import PlanError, first_line
from hf_lwmm.evaluation.class_map import Size
from hf_lwmm.networks.loaded_model import LoadedModel

_PIXELS = "pixel_values"


@dataclass(frozen=True)
class View:
    """A version of a picture that a network is run on: resized by a factor, and perhaps mirrored."""

    scale: float = 1.0
    mirrored: bool = False


PLAIN = (View(),)


def all_views(flip: bool = False, scales: Sequence[float] = (1.0,)) -> tuple[View, ...]:
    """Return the views of every scale, and their mirror images if `flip`."""
    return tuple(View(scale, mirrored) for scale in scales for mirrored in ((False, True) if flip else (False,)))


@dataclass(frozen=True)
class Picture:
    """The result of image processors for a picture of a `size` (height, width), without the picture itself.

    `inputs` are the tensors that a network takes, by the `preparation` of the model and the view; those of one picture
    have a first dimension of 1, and are on the CPU. `name` is for messages.
    """

    size: Size
    inputs: Mapping[tuple[str, View], Mapping[str, Tensor]] = field(repr=False)
    name: str = ""

    @classmethod
    def of(
        cls, image: Image.Image, models: Iterable[LoadedModel], views: Sequence[View] = PLAIN, name: str = ""
    ) -> Picture:
        """Prepare every view of an image for every model.

        Raises:
            PlanError: if an image processor fails on it.
        """
        inputs: dict[tuple[str, View], Mapping[str, Tensor]] = {}
        for loaded in models:
            if (loaded.preparation, views[0]) not in inputs:
                found = _processed(loaded, image)
                inputs |= {(loaded.preparation, view): _view_of(found, view) for view in views}
        return cls((image.height, image.width), inputs, name)

    def on_device(self, loaded: LoadedModel, view: View = PLAIN[0]) -> dict[str, Tensor]:
        """Return the inputs of a model on its device, floating-point ones in its type."""
        weight: Any = next(loaded.model.parameters())
        found = self.inputs[loaded.preparation, view]
        return {name: _moved(values, weight) for name, values in found.items()}

    def pixels(self, loaded: LoadedModel, view: View = PLAIN[0]) -> Tensor:
        """Return the pixels for a model as `on_device` does, (1, 3, h, w)."""
        return self.on_device(loaded, view)[_PIXELS]

    @property
    def nbytes(self) -> int:
        """The size of all inputs in memory, in bytes."""
        return sum(values.nbytes for inputs in self.inputs.values() for values in inputs.values())


def prepared(
    pictures: Iterable[Image.Image | Picture], models: Sequence[LoadedModel], views: Sequence[View] = PLAIN
) -> list[Picture]:
    """Prepare those of some pictures for all models and views that are images still."""
    return [each if isinstance(each, Picture) else Picture.of(each, models, views) for each in pictures]


def _processed(loaded: LoadedModel, image: Image.Image) -> Mapping[str, Tensor]:
    try:
        found = loaded.image_processor(image, return_tensors="pt")
        return {name: values for name, values in found.items() if isinstance(values, Tensor)}
    except Exception as error:  # of any library's image processor, about a picture of an odd shape
        shape = f"{image.width}x{image.height}"
        raise PlanError(
            f"{loaded.label}: its image processor fails on a picture of {shape}: {first_line(error)}"
        ) from None


def _view_of(inputs: Mapping[str, Tensor], view: View) -> Mapping[str, Tensor]:
    pixels = inputs[_PIXELS]
    if view.scale != 1:
        size = [max(1, round(length * view.scale)) for length in pixels.shape[-2:]]
        pixels = nn.functional.interpolate(pixels, size, mode="bilinear", align_corners=False)
    return {**inputs, _PIXELS: pixels.flip(-1) if view.mirrored else pixels}


def _moved(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype) if values.is_floating_point() else values.to(like.device)
