"""A network that was loaded, with all that running and saving it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import transformers

from hf_lwmm.checkpoints.companions import COMPANIONS, QUANTISATION
from hf_lwmm.checkpoints.local_paths import without_local_paths
from hf_lwmm.checkpoints.weight_files import first_file
from hf_lwmm.describing.kinds import AUTO_CLASSES
from hf_lwmm.errors import PlanError
from hf_lwmm.files.documents import read_json
from hf_lwmm.hub import Source
from hf_lwmm.networks.families import Family
from hf_lwmm.networks.image_processing import SegmentationImageProcessor
from hf_lwmm.networks.library_models import save
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.recipes.claims import Claim, claim_of
from hf_lwmm.text import one_line

TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, with the image processor that prepares pictures for it.

    `model` is a `PreTrainedModel` or, with `own_code` and of another `library`, a torch module that returns an object
    with `logits`.
    `classes` are the names of the classifier's rows; of a head of one row, which segments by a sigmoid, they are those
    of the background and of the row. `notes` say what was assumed and what was left out. With `reduce_labels`, its
    image processor says that ids in label files are one more than the classes, and 0 is ignored. `files` are those of
    the source that were read for weights, and `branch` is the one that was taken from a file of several networks.
    `own_code` is a text that changes with the code of the user's own that made the network, empty for others. `library`
    is the one whose repository it comes from, as the Hub calls it, and `library_config` the content of the config.json
    that another library than transformers reads.
    """

    model: Any
    image_processor: Any
    classes: tuple[str, ...]
    family: Family = field(repr=False)
    source: Source = field(repr=False)
    notes: tuple[str, ...] = ()
    reduce_labels: bool = False
    files: tuple[str, ...] = ()
    branch: str = NetworkOptions().branch
    own_code: str = ""
    library: str = TRANSFORMERS
    library_config: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        network = type(self.model).__name__
        return f"<LoadedModel: {one_line(self.label)}; {network}, {self.task}, {len(self.classes)} classes>"

    @property
    def label(self) -> str:
        """The model's name in messages and reports."""
        return self.source.label

    @property
    def task(self) -> str:
        """The task: "semantic", "panoptic", "classification" or "detection"."""
        return self.family.task

    @cached_property
    def claim(self) -> Claim | None:
        """The claim that a recipe of this package makes of the weights beside it, None if there is no recipe.

        Raises:
            HfLwmmError: if the recipe or the weights cannot be fetched or read.
        """
        return claim_of(self.source, self.files, self.branch)

    @property
    def is_merge(self) -> bool:
        """True if it is the merge of a recipe beside it or, without a recipe, what its card calls a merge.

        Raises:
            HfLwmmError: as `claim`.
        """
        if self.claim is not None:
            return not self.claim.fault
        told_of = not self.source.ref.files or first_file(self.source.files) in self.source.ref.files
        return told_of and self.source.card.get("base_model_relation") == "merge"

    @property
    def segments_by_one_row(self) -> bool:
        """True for a network of transformers that segments with a head of one row, which no pipeline shows."""
        return self.task == "semantic" and getattr(getattr(self.model, "config", None), "num_labels", None) == 1

    @property
    def auto_class(self) -> str:
        """The name of the Auto class of transformers that loads the network."""
        return AUTO_CLASSES[self.task]

    @cached_property
    def preparation(self) -> str:
        """A text that models have in common whose image processors prepare pictures alike."""
        processor = self.image_processor
        return f"{type(processor).__qualname__} {processor.to_json_string()}"

    @property
    def configuration(self) -> str:
        """A text that differs between networks that compute differently from the same weights."""
        if self.library != TRANSFORMERS:
            return json.dumps(self.library_config, sort_keys=True)
        return self.own_code or str(self.model.config.to_json_string())

    @property
    def has_own_code(self) -> bool:
        """True if transformers lacks the network, so that its code is saved beside the weights."""
        return type(self.model).__module__.startswith("hf_lwmm.")

    def save(self, folder: str | Path) -> None:
        """Write what the network's library loads: weights, configurations, and the network's code if need be.

        Args:
            folder: made if it does not exist.

        Raises:
            PlanError: for a network of the user's own code, which transformers cannot load.
        """
        if self.own_code:
            raise PlanError(
                f"{self.label}: is a network of your own code (--network), which transformers cannot load. Merge its "
                "checkpoint as it is: `merge` needs no network."
            )
        if self.library != TRANSFORMERS:
            save(self.model, self.library_config, Path(folder))
            return
        bars = transformers.utils.logging.is_progress_bar_enabled()
        transformers.utils.logging.disable_progress_bar()
        try:
            with self._saving_code():
                self.model.save_pretrained(folder)
                self.image_processor.save_pretrained(folder)
            for path in (Path(folder, name) for name in COMPANIONS):
                if not path.is_file():
                    continue
                settings = without_local_paths(stated := read_json(path, path.name))
                settings.pop(QUANTISATION, None)  # what runs here has floats
                if settings != stated:
                    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        finally:
            if bars:
                transformers.utils.logging.enable_progress_bar()

    @contextmanager
    def _saving_code(self) -> Iterator[None]:
        """Let `save_pretrained` write the network's code too, if need be, for `trust_remote_code=True`.

        transformers keeps this on the classes, so it is taken back: what others save later is not changed.
        """
        saved: list[Any] = [type(self.model), type(self.model.config)] if self.has_own_code else []
        if self.has_own_code and isinstance(self.image_processor, SegmentationImageProcessor):
            saved.append(SegmentationImageProcessor)
        before = [each._auto_class for each in saved]
        try:
            for each in saved:
                each.register_for_auto_class(*([self.auto_class] if each is type(self.model) else []))
            yield
        finally:
            for each, auto_class in zip(saved, before, strict=True):
                each._auto_class = auto_class
