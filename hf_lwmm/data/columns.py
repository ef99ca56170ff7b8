"""Find the columns of images and annotations in the rows of a data set, by their types and usual names.

Features are those of `datasets`, by the names of the columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hf_lwmm.errors import DatasetError
from hf_lwmm.planning.images import ImageSource

SEGMENTS = "segments_info"
_IMAGES = ("image", "pixel_values", "img")
_OBJECTS = ("objects",)
_LABELS = ("label", "annotation", "mask", "semantic_segmentation", "labels", "segmentation", "label_bitmap")
_CATEGORIES = ("category", "category_id", "label", "categories", "labels")


def image_column(source: ImageSource, features: Mapping[str, Any]) -> str:
    """Return the column of images: the one that the source names, else by type and usual names.

    Raises:
        DatasetError: if there is no such column, or none of images.
    """
    column = source.image_column
    if column is None:
        pictures = _pictures(features)
        likely = [name for name in _IMAGES if name in pictures] or [name for name in pictures if name not in _LABELS]
        if not likely:
            raise DatasetError(f"{source.data}: has no column of images; it has {', '.join(features) or 'none'}.")
        column = likely[0]
    if column not in features:
        raise _no_column(source, column, features)
    return column


def labelled_columns(source: ImageSource, features: Mapping[str, Any]) -> tuple[str, str]:
    """Return the columns of images and of their labels, which may be pictures, objects with boxes, or class ids.

    They are those that the source names, else they are found by type and usual names.

    Raises:
        DatasetError: if there is no such column, one of another type, or several that it could be.
    """
    import datasets

    pictures = _pictures(features)
    counted = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    boxed = [name for name, feature in features.items() if object_fields(feature)]
    images = [name for name in pictures if name not in _LABELS]
    image = source.image_column or _chosen(source, "image", _IMAGES, images, features)
    masks = [name for name in pictures if name != image]
    label = source.label_column or _chosen(source, "label", (*_LABELS, *_OBJECTS), masks or boxed or counted, features)
    for name, known in ((image, pictures), (label, pictures + boxed + counted)):
        if name not in features:
            raise _no_column(source, name, features)
        if name not in known:
            raise DatasetError(f"{source.data}: the column {name!r} holds neither pictures nor boxes nor classes.")
    return image, label


def object_fields(feature: Any) -> Mapping[str, Any] | None:
    """Return the fields of a column of objects with boxes, None for any other column."""
    inner = getattr(feature, "feature", feature)
    return inner if isinstance(inner, Mapping) and "bbox" in inner else None


def object_classes(feature: Any) -> dict[int, str]:
    """Return the class names by id that a column of objects declares, none if it declares none."""
    fields = object_fields(feature) or {}
    kind = fields.get(category_field(fields) or "")
    names = getattr(getattr(kind, "feature", kind), "names", None)
    return dict(enumerate(names or ()))


def category_field(fields: Mapping[str, Any]) -> str | None:
    """Return the field that holds the class of an object, None if there is none."""
    return next((name for name in _CATEGORIES if name in fields), None)


def _pictures(features: Mapping[str, Any]) -> list[str]:
    import datasets

    return [name for name, feature in features.items() if isinstance(feature, datasets.Image)]


def _chosen(
    source: ImageSource, what: str, usual: Sequence[str], candidates: Sequence[str], features: Mapping[str, Any]
) -> str:
    for name in usual:
        if name in candidates:
            return name
    if len(candidates) == 1:
        return candidates[0]
    found = f"several columns could be it ({', '.join(candidates)})" if candidates else f"it has {', '.join(features)}"
    raise DatasetError(
        f"{source.data}: cannot tell which column holds the {what}: {found}. Name it with --{what}-column."
    )


def _no_column(source: ImageSource, column: str, features: Mapping[str, Any]) -> DatasetError:
    return DatasetError(f"{source.data}: has no column {column!r}; it has {', '.join(features)}.")
