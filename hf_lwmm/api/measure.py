"""Measure what the methods fisher and regmean must know of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf_lwmm.api.arguments import expect
from hf_lwmm.api.load import load
from hf_lwmm.errors import PlanError, naming_extras
from hf_lwmm.files.targets import check_target
from hf_lwmm.hub import ModelRef, Ref
from hf_lwmm.options import did_you_mean
from hf_lwmm.planning.images import ImageProvenance, ImageSource, as_images, image_provenance
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.planning.scoring import ScoringOptions
from hf_lwmm.progress import Progress, silent

if TYPE_CHECKING:
    from hf_lwmm.networks.loaded_model import LoadedModel

KINDS = ("fisher", "grams")
IMAGES = 64  # that are measured on if nothing else is said


@dataclass(frozen=True)
class Measurement:
    """A file of measurements: their `kind`, the `model` that was measured, and the `images` that it was measured on.

    `notes` say what was assumed of the model and of the images' labels.
    """

    path: Path
    kind: str
    model: str
    images: ImageProvenance
    notes: tuple[str, ...] = ()


@naming_extras("Measuring a model", images=True)
def measure(
    model: Ref | LoadedModel,
    images: ImageSource | str | Path,
    output: str | Path,
    *,
    kind: str = "fisher",
    protocol: str | None = None,
    overwrite: bool = False,
    network: NetworkOptions = NetworkOptions(),
    progress: Progress = silent,
) -> Measurement:
    """Measure a model on the first images of a data set, and write a file for the `measurements` of a merge.

    The file records the model, so that it is not taken for another's.

    Args:
        model: a reference, as for `merge`, or what `load` returned.
        images: images of the model's source domain; the first 64 of the split train if the source does not say.
        output: the file to write, which ends in .safetensors.
        kind: `fisher`, the diagonal Fisher information, from labels and gradients: a tensor like each slot; or `grams`,
            the Gram matrices of layers' inputs, from images alone: (inputs, inputs).
        protocol: the label set that the images' ids stand for, if the data set does not name it.
        overwrite: replace an existing file.
        network: how the model is loaded, if it is a reference.

    Raises:
        PlanError: for an unknown kind, a file of another name, or images without the labels that the model learns from.
        DatasetError: if the images cannot be read.
        MergeError: if the file exists (unless `overwrite`), or cannot be written.
        HfLwmmError: if the model cannot be loaded.
    """
    expect(network, NetworkOptions, "network")
    if kind not in KINDS:
        raise PlanError(f"--kind {kind} is not one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
    path = Path(output)
    if path.suffix != ".safetensors":
        raise PlanError(f"{path}: name a file that ends in .safetensors.")
    given = as_images(images)
    target = check_target(path, overwrite, local_inputs(model, given, network, ScoringOptions(protocol)))
    source = replace(given, split=given.split or "train", limit=given.limit or IMAGES)
    from hf_lwmm.calibration.measurements import fisher, grams, save_measurements
    from hf_lwmm.data.loading import open_images
    from hf_lwmm.data.unlabelled import ImageSequence, open_unlabelled_images

    loaded = load(model, network) if isinstance(model, str | Path | ModelRef) else model
    opened: ImageSequence
    notes: tuple[str, ...] = ()
    if kind == "fisher":
        opened = labelled = open_images(source)
        measured, notes = fisher(loaded, labelled, protocol, progress)
    else:
        opened = open_unlabelled_images(source)
        measured = grams(loaded, opened, progress)
    save_measurements(measured, target, kind=kind, loaded=loaded, images=opened.count)
    seen = image_provenance(source, str(source.split), opened.count, opened.commit)
    return Measurement(path, kind, loaded.label, seen, (*notes, *loaded.notes))
