"""Try layer weights out on images: score the merge, or differentiate its outputs with respect to the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.ops import FrozenBatchNorm2d

from hf_lwmm.calibration.merged_network import load_merged, pixels_of
from hf_lwmm.data.unlabelled import UnlabelledImages, open_unlabelled_images
from hf_lwmm.engine.network_folder import write_network
from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.evaluation.evaluate import evaluate
from hf_lwmm.evaluation.inference import naming_size
from hf_lwmm.evaluation.report import EvaluationReport
from hf_lwmm.evaluation.spec import EvaluationSpec
from hf_lwmm.files.scratch import scratch_folder
from hf_lwmm.methods.schedule import LayerWeights
from hf_lwmm.networks.finite import check_outputs
from hf_lwmm.networks.loaded_model import LoadedModel
from hf_lwmm.networks.module_slots import slots_of
from hf_lwmm.networks.one_row import with_background
from hf_lwmm.planning.images import ImageProvenance, ImageSource, image_provenance
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.plan import MergePlan
from hf_lwmm.planning.provenance import Tuning
from hf_lwmm.progress import Progress


class NetworkTrials:
    """The `hf_lwmm.methods.base.Trials` of a plan: networks that merges would write, run on images.

    Networks are written into `folder` and built only where a method asks for them.
    """

    def __init__(
        self,
        plan: MergePlan,
        images: ImageSource,
        spec: EvaluationSpec,
        network: NetworkOptions,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.names: Sequence[str] = plan.labels
        self.anchor = plan.alignment.anchor
        self.positions = plan.alignment.positions
        self.progress = progress
        self._plan, self._network, self._folder = plan, network, folder
        self._split = images.split or ("validation" if "labels" in plan.method.needs else "train")
        self._images = replace(images, split=self._split)
        self._spec = replace(spec, ensemble=False, examples=0, groups=None)
        self._report: EvaluationReport | None = None

    @property
    def provenance(self) -> ImageProvenance:
        """The record of the images that were looked at."""
        commit = self._report.commit if self._report else self._pictures.commit
        return image_provenance(self._images, self._split, self.count, commit)

    @property
    def count(self) -> int:
        """The number of images."""
        if self._report is not None:
            return self._report.images
        return self._pictures.count

    def score(self, weights: LayerWeights) -> float:
        """Return the score of the merge with given weights on the labelled images, a fraction.

        Raises:
            DatasetError: if the images have no labels.
            PlanError: if several processes share the evaluation.
        """
        merged = self._merged(self._plan, weights, self._network)
        try:
            found = evaluate([merged], self._images, self._spec, partial=self._folder, progress=self.progress)
        except DatasetError as error:
            raise DatasetError(f"--method {self._plan.method.name} needs labelled images. {error}") from None
        if found is None:
            raise PlanError("A merge runs in one process; start it without torchrun.")
        self._report = found
        return found.models[0].mean

    def pixels(self, image: int) -> Tensor:
        """Return an image as the network takes it: (1, 3, H, W) float32."""
        return pixels_of(self._anchor_network, [self._pictures.read(image).image])

    def logits(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Return the logits (1, C, h, w) of the merge with given weights (positions, models), which gradients reach.

        Raises:
            PlanError: if the network cannot take an image of this size.
            OutputError: if the logits are not finite.
        """
        others = weights[:, [model for model in range(len(self.names)) if model != self.anchor]].to(pixels.device)
        tensors = {name: blend.at(others) for name, blend in self._blends.items()}
        model: nn.Module = self._anchor_network.model
        with naming_size(self._anchor_network, pixels, f"--method {self._plan.method.name}: "):
            logits: Tensor = with_background(functional_call(model, tensors, (pixels,)).logits)
        check_outputs(self._anchor_network, logits, pixels)
        return logits

    @cached_property
    def _pictures(self) -> UnlabelledImages:
        return open_unlabelled_images(self._images)

    def _merged(self, plan: MergePlan, weights: LayerWeights, network: NetworkOptions) -> LoadedModel:
        """The merge with given weights, as it would be written."""
        with scratch_folder(self._folder) as folder:
            write_network(replace(plan, tuning=Tuning(weights)), folder)
            return load_merged(plan, folder, network)

    def _alone(self, model: int) -> LoadedModel:
        """A model in the anchor's place, in float32: shared slots are its own, all else is the anchor's."""
        weights = np.zeros((self.positions, len(self.names)))
        weights[:, model] = 1
        plan = replace(self._plan, knobs=replace(self._plan.knobs, dtype="float32"))
        return self._merged(plan, weights, replace(self._network, compute_dtype="float32"))

    @cached_property
    def _anchor_network(self) -> LoadedModel:
        found = self._alone(self.anchor)
        name = self._plan.method.name
        if found.task not in ("semantic", "panoptic"):
            raise PlanError(f"--method {name} looks at class maps; {found.label} is a {found.task} network.")
        _freeze(found.model)
        return found

    @cached_property
    def _blends(self) -> Mapping[str, Blend]:
        """The tensors in which the models differ, by the name that they have in the network."""
        own = self._anchor_network.model.state_dict()
        others = [self._alone(model).model.state_dict() for model in range(len(self.names)) if model != self.anchor]
        atoms = slots_of(self._anchor_network.model).atoms
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
                        f"--method {self._plan.method.name} cannot tell which tensors of {self._anchor_network.label} "
                        f"are which in its network ({name})."
                    )
            blends[name] = Blend(tensor, changes, positions)
        return blends


@dataclass(frozen=True)
class Blend:
    """A tensor of the network as a function of the layer weights.

    `anchor` is the anchor's tensor. `changes` (models - 1, rows, width) is what each other model adds to it where it
    has all the weight, and `positions` (rows,) are the depth positions of the rows, from 0.
    """

    anchor: Tensor
    changes: Tensor
    positions: Tensor

    def at(self, others: Tensor) -> Tensor:
        """Return the merged tensor for the other models' weights, (positions, models - 1)."""
        change = torch.einsum("rm,mrw->rw", others[self.positions], self.changes)
        return self.anchor + change.reshape(self.anchor.shape)


def _freeze(model: nn.Module) -> None:
    """Leave a network nothing to learn; its BatchNorm becomes the frozen one, whose statistics gradients can reach."""
    for name, layer in [each for each in model.named_modules() if isinstance(each[1], nn.BatchNorm2d)]:
        if layer.track_running_stats and layer.affine:
            frozen = FrozenBatchNorm2d(layer.num_features, layer.eps).to(layer.weight)
            frozen.load_state_dict(layer.state_dict())
            model.set_submodule(name, frozen)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
