"""Decide layer weights on images before a merge."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import FrozenBatchNorm2d

from hf_lwmm.data.pictures import Pictures, open_unlabelled_images
from hf_lwmm.data.rows import first_line
from hf_lwmm.engine.network_folder import write_network
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.evaluate import EvaluationReport, evaluate
from hf_lwmm.layouts import map_slots
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.networks.loading import LoadedModel, load
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import ImageProvenance, Tuning, image_provenance
from hf_lwmm.progress import Progress

_LOADING = ("system", "device")
_OF_PICTURES = ("config", "image_column")


def tune(
    plan: MergePlan,
    data: str | Path,
    options: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> MergePlan:
    """The plan with the weights that its method decides on images.

    Args:
        plan: over checkpoints whose weights can be read.
        data: `org/name[@revision]` on the Hub, or a folder. Its labels are read only if the method needs them.
        options: `split` (validation if labels are needed, else train), `limit`, `system`, `device` and, where labels
            are needed, further options of `evaluate`; where not, `config` and `image_column`.

    Raises:
        DatasetError: if the images cannot be read, or have no labels where the method needs them.
        PlanError: if the method decides nothing on images, or cannot do so with this network.
        LayoutError: if there is no network for the anchor.
    """
    method = plan.method
    if not method.tuned:
        raise PlanError(f"--method {method.name} decides nothing on images; leave out --tune-data.")
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        given = {name: value for name, value in (options or {}).items() if value is not None}
        trials = _Trials(plan, str(data), given, Path(folder), progress)
        weights, notes = method.decide(trials)
        return replace(plan, tuning=Tuning(weights, trials.facts, notes))


def load_merged(plan: MergePlan, folder: Path, **loading: Any) -> LoadedModel:
    """The network that `write_network` wrote for a plan, with the anchor's classes.

    Raises:
        LayoutError: if there is no network for the anchor.
    """
    labels = [plan.anchor.classes] if plan.anchor.classes else []
    return replace(load(folder, labels=labels, **loading), name=plan.anchor.label)


@dataclass(frozen=True)
class _Blend:
    """A tensor of the network: the anchor's, and what each other model adds where it has all the weight.

    `changes` (models - 1, rows, width); `positions` (rows,) are the depth positions of the rows, from 0.
    """

    anchor: Tensor
    changes: Tensor
    positions: Tensor

    def at(self, others: Tensor) -> Tensor:
        """The merged tensor for the other models' weights, (positions, models - 1)."""
        change = torch.einsum("rm,mrw->rw", others[self.positions], self.changes)
        return self.anchor + change.reshape(self.anchor.shape)


def _freeze(model: nn.Module) -> None:
    """Leave a network nothing to learn; its BatchNorm becomes the frozen one, whose statistics gradients pass."""
    for name, layer in [each for each in model.named_modules() if isinstance(each[1], nn.BatchNorm2d)]:
        if layer.track_running_stats and layer.affine:
            frozen = FrozenBatchNorm2d(layer.num_features, layer.eps).to(layer.weight)
            frozen.load_state_dict(layer.state_dict())
            model.set_submodule(name, frozen)
    for parameter in model.parameters():
        parameter.requires_grad_(False)


class _Trials:
    """`hf_lwmm.methods.base.Trials` of a plan and a data set; a network is only built where one is asked for."""

    def __init__(
        self, plan: MergePlan, data: str, options: Mapping[str, Any], folder: Path, progress: Progress
    ) -> None:
        self.names: Sequence[str] = plan.labels
        self.anchor = plan.alignment.anchor
        self.positions = plan.alignment.positions
        self.progress = progress
        self._plan, self._data, self._folder = plan, data, folder
        self._loading = {name: options[name] for name in _LOADING if name in options}
        read = options if "labels" in plan.method.needs else ("split", "limit", *_OF_PICTURES)
        self._options = {name: options[name] for name in read if name in options and name not in _LOADING}
        self._report: EvaluationReport | None = None

    @property
    def facts(self) -> ImageProvenance:
        """What was looked at."""
        commit = self._report.commit if self._report else self._pictures.commit
        return image_provenance(self._data, self._split, self.count, commit, {**self._options, **self._loading})

    @property
    def count(self) -> int:
        if self._report is not None:
            return self._report.images
        limit = self._options.get("limit")
        return self._pictures.count if limit is None else min(limit, self._pictures.count)

    def score(self, weights: LayerWeights) -> float:
        merged, options = self._network(self._plan, weights), {**self._options, "split": self._split}
        try:
            found = evaluate([merged], self._data, partial=self._folder, progress=self.progress, **options)
        except DatasetError as error:
            raise DatasetError(f"--method {self._plan.method.name} needs labelled images. {error}") from None
        if found is None:
            raise PlanError("A merge runs in one process; start it without torchrun.")
        self._report = found
        return found.models[0].mean

    def pixels(self, image: int) -> Tensor:
        picture = self._pictures.read(image).image
        pixels: Tensor = self._anchors.image_processor(picture, return_tensors="pt")["pixel_values"]
        return pixels.to(next(iter(self._anchors.model.parameters())).device)

    def logits(self, weights: Tensor, pixels: Tensor) -> Tensor:
        others = weights[:, [model for model in range(len(self.names)) if model != self.anchor]].to(pixels.device)
        tensors = {name: blend.at(others) for name, blend in self._blends.items()}
        model: nn.Module = self._anchors.model
        try:
            logits: Tensor = functional_call(model, tensors, (pixels,)).logits
        except RuntimeError as error:  # too few pixels, or too many
            height, width = pixels.shape[-2:]
            raise PlanError(
                f"--method {self._plan.method.name}: {self._anchors.label} cannot see {height} x {width} pixels: "
                f"{first_line(error)}"
            ) from None
        return logits

    @property
    def _split(self) -> str:
        return str(self._options.get("split") or ("validation" if "labels" in self._plan.method.needs else "train"))

    @cached_property
    def _pictures(self) -> Pictures:
        chosen = {name: value for name, value in self._options.items() if name in _OF_PICTURES}
        return open_unlabelled_images(self._data, self._split, **chosen)

    def _network(self, plan: MergePlan, weights: LayerWeights) -> LoadedModel:
        """The merge with some weights, as it would be written."""
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            write_network(replace(plan, tuning=Tuning(weights)), Path(name))
            return load_merged(plan, Path(name), **self._loading)

    def _alone(self, model: int) -> LoadedModel:
        """A model in the anchor's place: shared slots are its own, all else is the anchor's."""
        weights = np.zeros((self.positions, len(self.names)))
        weights[:, model] = 1
        return self._network(replace(self._plan, knobs=replace(self._plan.knobs, dtype="float32")), weights)

    @cached_property
    def _anchors(self) -> LoadedModel:
        found = self._alone(self.anchor)
        if found.task not in ("semantic", "panoptic"):
            raise PlanError(
                f"--method {self._plan.method.name} looks at class maps; {found.label} is a {found.task} network."
            )
        if len(found.classes) < 2:
            raise PlanError(f"--method {self._plan.method.name} needs several classes; {found.label} knows one.")
        model: nn.Module = found.model
        _freeze(model)
        return found

    @cached_property
    def _blends(self) -> Mapping[str, _Blend]:
        """The tensors in which the models differ, by the name that they have in the network."""
        own = self._anchors.model.state_dict()
        others = [self._alone(model).model.state_dict() for model in range(len(self.names)) if model != self.anchor]
        atoms = map_slots({name: tuple(tensor.shape) for name, tensor in own.items()}).atoms
        blends = {}
        for name, tensor in own.items():
            if not tensor.is_floating_point():
                continue
            rows = tensor.shape[0] if tensor.ndim else 1
            changes = torch.stack([(other[name] - tensor).reshape(rows, -1) for other in others])
            if not changes.any():
                continue
            positions = torch.zeros(rows, dtype=torch.long, device=tensor.device)
            for atom in atoms[name]:
                first, count = (size // changes.shape[2] for size in (atom.start, math.prod(atom.shape)))
                part = slice(first, first + count)
                if atom.slot in self._plan.positions:
                    positions[part] = self._plan.positions[atom.slot] - 1
                elif changes[:, part].any():
                    raise PlanError(
                        f"--method {self._plan.method.name} cannot tell which weights of {self._anchors.label} are "
                        f"which in its network ({name})."
                    )
            blends[name] = _Blend(tensor, changes, positions)
        return blends
