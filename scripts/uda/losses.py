"""Adaptation strategies: losses of a network on labelled source images and unlabelled target images.

A strategy yields its losses one at a time. The training loop backpropagates each before it asks for the next, so that
a step needs the memory of one loss. Discriminators and teachers are parameters and buffers of their strategy.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hf_lwmm.demo.streets import CLASSES, IGNORE
from scripts.uda.data import Batch, jitter
from scripts.uda.instances import instance_loss

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def forward(network: nn.Module, images: Tensor) -> Any:
    """Return a network's output for images (N, 3, H, W) in [0, 1]."""
    return network((images - MEAN) / STD)


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy over pixels, with logits resized to the labels.

    Args:
        logits: (N, C, H, W).
        labels: (N, h, w) int64.
        weight: (N, h, w) weight of each pixel.
    """
    logits = functional.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    losses = functional.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    return (losses if weight is None else losses * weight).mean()


def segmentation_loss(output: Any, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted cross-entropy, for HRDA with that of its detail crop (Hoyer et al., ECCV 2022, Eq. 9)."""
    loss = cross_entropy(output.logits, labels, weight)
    if "detail_logits" not in output:
        return loss
    y1, y2, x1, x2 = output.detail_boxes[0].tolist()
    crop = output.detail_logits[..., y1 // 4 : y2 // 4, x1 // 4 : x2 // 4]
    return 0.9 * loss + 0.1 * cross_entropy(crop, labels[:, y1:y2, x1:x2], weight[:, y1:y2, x1:x2])


class SourceOnly(nn.Module):
    """Supervised training on the source, on which the other strategies build.

    `class_weight`, (classes,), weights each pixel by its label.
    """

    def __init__(self, network: nn.Module, class_weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("class_weight", torch.cat([class_weight, torch.zeros(IGNORE + 1 - len(class_weight))]))

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        """Yield the losses of a step; each is backpropagated before the next is asked for."""
        yield self.supervised(forward(network, batch.images), batch.labels)

    def supervised(self, output: Any, labels: Tensor) -> Tensor:
        """Return the loss on labelled images."""
        return segmentation_loss(output, labels, self.class_weight[labels])

    def after_step(self, network: nn.Module, step: int) -> None:
        """Update the strategy's state after a step of the optimiser; `step` counts from 0."""


class MinEnt(SourceOnly):
    """Entropy minimisation on the target (Vu et al., CVPR 2019, Eq. 3)."""

    def __init__(self, network: nn.Module, class_weight: Tensor, weight: float = 0.01) -> None:
        super().__init__(network, class_weight)
        self.weight = weight

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        yield from super().losses(network, batch)
        yield self.weight * self.uncertainty(forward(network, batch.target).logits)

    def uncertainty(self, logits: Tensor) -> Tensor:
        """Return the quantity to be minimised, from logits (N, C, h, w)."""
        return self_information(logits).sum(1).mean()


class MaxSquare(MinEnt):
    """Maximum squares loss, with classes weighted within each image (Chen et al., ICCV 2019, Eq. 9)."""

    def uncertainty(self, logits: Tensor) -> Tensor:
        shares = logits.softmax(1)
        classes = functional.one_hot(shares.argmax(1), shares.shape[1]).flatten(1, 2).sum(1).float()
        per_class = classes.pow(0.2) * classes.sum(1, keepdim=True).pow(0.8)
        return -((shares**2).sum((2, 3)) / (2 * per_class.clamp(min=1))).sum(1).mean() / shares.shape[1]


def self_information(logits: Tensor) -> Tensor:
    """Return -p log p, divided by the entropy of equal probabilities: (N, C, h, w)."""
    return -logits.softmax(1) * logits.log_softmax(1) / math.log(logits.shape[1])


class AdaptSegNet(SourceOnly):
    """Adversarial adaptation in the output space (Tsai et al., CVPR 2018)."""

    def __init__(self, network: nn.Module, class_weight: Tensor, weight: float = 0.005, width: int = 32) -> None:
        super().__init__(network, class_weight)
        self.weight = weight
        self.discriminator = discriminator(self.channels(), width, 1)

    def channels(self) -> int:
        """Return the number of channels of the discriminator's input."""
        return len(CLASSES)

    def shown(self, output: Any) -> Tensor:
        """Return the discriminator's input for a network's output."""
        return output.logits.softmax(1)

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        source, target = forward(network, batch.images), forward(network, batch.target)
        fooled = self.judged(self.shown(target), is_source=True)
        yield self.supervised(source, batch.labels) + self.weight * fooled
        # The discriminator learns only from the next two losses.
        self.discriminator.zero_grad()
        yield 0.5 * self.judged(self.shown(source).detach(), is_source=True)
        yield 0.5 * self.judged(self.shown(target).detach(), is_source=False)

    def judged(self, shown: Tensor, *, is_source: bool) -> Tensor:
        """Return the discriminator's loss for an input labelled as source or as target."""
        verdict = self.discriminator(shown)
        return functional.binary_cross_entropy_with_logits(verdict, torch.full_like(verdict, float(not is_source)))


class Advent(AdaptSegNet):
    """Adversarial adaptation on the weighted self-information (Vu et al., CVPR 2019, Eq. 5 to 7)."""

    def shown(self, output: Any) -> Tensor:
        return self_information(output.logits)


def discriminator(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """Build a fully convolutional discriminator at an eighth of the resolution."""
    layers: list[nn.Module] = []
    for wide in (width, 2 * width, 4 * width):
        layers += [nn.Conv2d(inputs, wide, 4, 2, 1), nn.LeakyReLU(0.2)]
        inputs = wide
    return nn.Sequential(*layers, nn.Conv2d(inputs, outputs, 3, 1, 1))


class FADA(SourceOnly):
    """Adversarial adaptation of features, class by class (Wang et al., ECCV 2020, Eq. 3 to 7)."""

    def __init__(
        self,
        network: nn.Module,
        class_weight: Tensor,
        weight: float = 0.001,
        temperature: float = 1.8,
        width: int = 64,
    ) -> None:
        super().__init__(network, class_weight)
        self.weight, self.temperature = weight, temperature
        with torch.no_grad():
            deepest = network.eval()(torch.zeros(1, 3, 64, 64), output_hidden_states=True).hidden_states[-1]
        layers = [
            nn.Conv2d(deepest.shape[1], width, 3, 1, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * len(CLASSES), 3, 1, 1),
        ]
        self.discriminator = nn.Sequential(*layers)

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        source, target = (
            network((images - MEAN) / STD, output_hidden_states=True) for images in (batch.images, batch.target)
        )
        deep_source, deep_target = source.hidden_states[-1], target.hidden_states[-1]
        fooled = self.judged(deep_target, target.logits, is_source=True)
        yield self.supervised(source, batch.labels) + self.weight * fooled
        self.discriminator.zero_grad()
        yield 0.5 * self.judged(deep_source.detach(), source.logits, is_source=True)
        yield 0.5 * self.judged(deep_target.detach(), target.logits, is_source=False)

    def judged(self, features: Tensor, logits: Tensor, *, is_source: bool) -> Tensor:
        """Return the cross-entropy with soft class labels in the half of the outputs that belongs to the domain."""
        verdict = self.discriminator(features).log_softmax(1)
        small = functional.interpolate(logits.detach(), verdict.shape[-2:], mode="bilinear", align_corners=False)
        classes = (small / self.temperature).softmax(1)
        half = verdict[:, : len(CLASSES)] if is_source else verdict[:, len(CLASSES) :]
        return -(classes * half).sum(1).mean()


class SelfTraining(SourceOnly):
    """Self-training on class-mixed images with an averaged teacher (Hoyer et al., DAFormer, CVPR 2022, Sec. 3.1)."""

    def __init__(
        self,
        network: nn.Module,
        class_weight: Tensor,
        momentum: float = 0.99,
        strength: float = 0.3,
        weight: float = 1.0,
    ) -> None:
        super().__init__(network, class_weight)
        self.momentum, self.strength, self.weight = momentum, strength, weight
        self.register_buffer("certainty", torch.full((len(CLASSES),), 0.5))
        self.teacher = copy.deepcopy(network).requires_grad_(False).eval()

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        yield from super().losses(network, batch)
        pseudo, trust = self.pseudo_labels(batch.target)
        images, labels, pasted = mix_classes(batch, pseudo)
        mixed = forward(network, jitter(images, self.strength))
        # Pseudo-labels are not weighted by class: the teacher would predict rare classes more and more often.
        yield self.weight * segmentation_loss(mixed, labels, torch.where(pasted, self.class_weight[labels], trust))
        yield from self.more(network, batch.target, pseudo, trust)

    def more(self, network: nn.Module, target: Tensor, pseudo: Tensor, trust: Tensor) -> Iterator[Tensor]:
        """Yield further losses, from pseudo-labels of the target and the trust in them, both (N, h, w)."""
        yield from ()

    def semantic_logits(self, network: nn.Module, images: Tensor) -> Tensor:
        """Return the semantic logits of images in [0, 1]."""
        logits: Tensor = forward(network, images).logits
        return logits

    @torch.no_grad()
    def pseudo_labels(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's classes, (N, h, w) int64, and the trust in them, (N, h, w) float32.

        The trust is 1 where the teacher is more certain than it is of the class on average, else 0. DAFormer trusts all
        pixels of an image equally, by the share of certain ones, but small networks are too often wrong about the
        uncertain ones. A single threshold for all classes would drop most pixels of hard classes, which would then be
        predicted less and less (Zou et al., CBST, ECCV 2018, Sec. 4.1).
        """
        logits = self.semantic_logits(self.teacher.eval(), target)
        logits = functional.interpolate(logits, target.shape[-2:], mode="bilinear", align_corners=False)
        certainty, classes = logits.softmax(1).max(1)
        count = torch.bincount(classes.flatten(), minlength=len(CLASSES))
        total = torch.bincount(classes.flatten(), certainty.flatten(), minlength=len(CLASSES))
        self.certainty.lerp_(torch.where(count > 0, total / count.clamp(min=1), self.certainty), 0.1)
        return classes, (certainty > self.certainty[classes]).float()

    @torch.no_grad()
    def after_step(self, network: nn.Module, step: int) -> None:
        keep = min(1 - 1 / (step + 1), self.momentum)
        for mine, other in zip(self.teacher.parameters(), network.parameters(), strict=True):
            mine.lerp_(other, 1 - keep)
        for mine, other in zip(self.teacher.buffers(), network.buffers(), strict=True):
            mine.copy_(other)


def mix_classes(batch: Batch, pseudo: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Paste half of the classes of each source image onto a target image (Olsson et al., ClassMix, WACV 2021).

    Returns:
        The images (N, 3, h, w), their labels (N, h, w), and the mask (N, h, w) of the source's pixels.
    """
    pasted = []
    for labels in batch.labels:
        present = labels.unique()
        present = present[present != IGNORE]
        chosen = present[torch.randperm(len(present))[: (len(present) + 1) // 2]]
        pasted.append(torch.isin(labels, chosen))
    mask = torch.stack(pasted)
    images = torch.where(mask[:, None], batch.images, batch.target)
    return images, torch.where(mask, batch.labels, pseudo), mask


class MaskedConsistency(SelfTraining):
    """Self-training, also on target images with most blocks hidden (Hoyer et al., MIC, CVPR 2023, Sec. 3.2)."""

    def __init__(
        self, network: nn.Module, class_weight: Tensor, block: int = 16, hidden: float = 0.6, **knobs: float
    ) -> None:
        super().__init__(network, class_weight, **knobs)
        self.block, self.hidden = block, hidden

    def more(self, network: nn.Module, target: Tensor, pseudo: Tensor, trust: Tensor) -> Iterator[Tensor]:
        count, _, height, width = target.shape
        blocks = torch.rand(count, 1, height // self.block, width // self.block) > self.hidden
        shown = functional.interpolate(blocks.float(), (height, width), mode="nearest")
        yield segmentation_loss(forward(network, jitter(target, self.strength) * shown), pseudo, trust)


class PixelContrast(SelfTraining):
    """Self-training, also with a contrastive loss on features (Chen et al., PiPa, ACM MM 2023, Eq. 5).

    Pixels of target images are included with the pseudo-labels that are trusted.
    """

    def __init__(
        self,
        network: nn.Module,
        class_weight: Tensor,
        contrast: float = 0.1,
        temperature: float = 0.1,
        pixels: int = 512,
        **knobs: float,
    ) -> None:
        super().__init__(network, class_weight, **knobs)
        self.contrast, self.temperature, self.pixels = contrast, temperature, pixels
        width = network.config.hidden_sizes[1]
        self.projection = nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, 32, 1))

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        yield from super().losses(network, batch)
        yield self.contrast * self.contrasted(network, batch.images, batch.labels)

    def more(self, network: nn.Module, target: Tensor, pseudo: Tensor, trust: Tensor) -> Iterator[Tensor]:
        yield self.contrast * self.contrasted(network, target, torch.where(trust > 0, pseudo, IGNORE))

    def contrasted(self, network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """Return the InfoNCE loss between sampled pixels, in which all classes are equally frequent."""
        features = self.projection(network.features((images - MEAN) / STD)[1])
        small = functional.interpolate(labels[:, None].float(), features.shape[-2:], mode="nearest")[:, 0].long()
        flat, classes = features.permute(0, 2, 3, 1).flatten(0, 2), small.flatten()
        counts = torch.bincount(classes, minlength=IGNORE + 1).float()
        # Unlabelled pixels are drawn only if there are no others.
        chance = ((classes != IGNORE) / counts[classes]).clamp(min=1e-12)
        drawn = torch.multinomial(chance, self.pixels, replacement=True)
        points, classes = functional.normalize(flat[drawn], dim=1), classes[drawn]
        alike = (classes[:, None] == classes).float().fill_diagonal_(0)
        scores = (points @ points.T / self.temperature).fill_diagonal_(-1e4)
        chances = scores.log_softmax(1)
        return -((alike * chances).sum(1) / alike.sum(1).clamp(min=1)).mean()


class PanopticSelfTraining(SelfTraining):
    """Self-training, also with the losses of EDAPS's instance decoder on the source (Saha et al., ICCV 2023)."""

    def __init__(self, network: nn.Module, class_weight: Tensor, instances: float = 0.5, **knobs: float) -> None:
        super().__init__(network, class_weight, **knobs)
        self.instances = instances

    def semantic_logits(self, network: nn.Module, images: Tensor) -> Tensor:
        logits: Tensor = network.decode_head(network.features((images - MEAN) / STD))
        return logits

    def losses(self, network: nn.Module, batch: Batch) -> Iterator[Tensor]:
        yield from super().losses(network, batch)
        yield self.instances * instance_loss(network, (batch.images - MEAN) / STD, batch.labels, batch.instances)


STRATEGIES: dict[str, type[SourceOnly]] = {
    "source-only": SourceOnly,
    "minent": MinEnt,
    "maxsquare": MaxSquare,
    "adaptsegnet": AdaptSegNet,
    "advent": Advent,
    "fada": FADA,
    "self-training": SelfTraining,
    "masked-consistency": MaskedConsistency,
    "pixel-contrast": PixelContrast,
    "panoptic-self-training": PanopticSelfTraining,
}
