"""ESPNetv2 for segmentation (Mehta et al. 2019, arXiv:1811.11431), as an example of a network of one's own.

    hf-lwmm evaluate espnetv2_s_0.5_city_512x256.pth --network scripts.networks.espnetv2:s05 --data cityscapes/

Module names are those of the published checkpoints, so that these fit: `s05` and `s10` are the two widths for the 19
classes of Cityscapes; `s05_camvid` and `s10_camvid` group the same outputs to the 11 classes of CamVid.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import hf_lwmm

BRANCHES = 4  # of an EESP unit, and groups of its pointwise convolutions
SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)  # of a pyramid
SMALLEST = 5  # pixels of a side at any scale of a pyramid
DECODER = (64, 48, 32)  # channels of the decoder's levels; the last has one for each class


def convolution(
    inputs: int, outputs: int, size: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the size of its input, or halves it for stride 2."""
    padding = dilation * (size // 2)
    return nn.Conv2d(inputs, outputs, size, stride, padding, dilation, groups, bias=False)


def encoder_layer(conv: nn.Conv2d | None, normalised: int = 0, *, active: bool = True) -> nn.Sequential:
    """Return convolution, BatchNorm and PReLU, or part of them, under the encoder's names."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if conv is not None:
        parts["conv"] = conv
    if normalised:
        parts["bn"] = nn.BatchNorm2d(normalised)
        if active:
            parts["act"] = nn.PReLU(normalised)
    return nn.Sequential(parts)


def decoder_layer(conv: nn.Conv2d | None, channels: int) -> nn.Sequential:
    """Return convolution (if there is one), BatchNorm and PReLU under the decoder's names."""
    parts = [] if conv is None else [conv]
    layers = nn.Sequential(*parts, nn.BatchNorm2d(channels), nn.PReLU(channels))
    return nn.Sequential(OrderedDict([("br" if conv is None else "cbr", layers)]))


def dilations(field: int) -> list[int]:
    """Return the dilations of an EESP unit's branches, none of which sees more than `field` pixels in a row."""
    return sorted(branch if 2 * branch + 1 <= field else 1 for branch in range(1, BRANCHES + 1))


class EESP(nn.Module):
    """The unit of the encoder: reduce, convolve depthwise with several dilations, add hierarchically, and expand."""

    def __init__(self, inputs: int, outputs: int, field: int, stride: int = 1) -> None:
        super().__init__()
        width = outputs // BRANCHES
        self.stride = stride
        self.proj_1x1 = encoder_layer(convolution(inputs, width, groups=BRANCHES), width)
        self.spp_dw = nn.ModuleList(
            encoder_layer(convolution(width, width, 3, stride=stride, dilation=each, groups=width))
            for each in dilations(field)
        )
        self.br_after_cat = encoder_layer(None, outputs)
        self.conv_1x1_exp = encoder_layer(convolution(outputs, outputs, groups=BRANCHES), outputs, active=False)
        self.module_act = nn.PReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride); what is halved is activated by `Downsampler`."""
        reduced = self.proj_1x1(features)
        sums: list[Tensor] = []
        for branch in self.spp_dw:
            found = branch(reduced)
            sums.append(found + sums[-1] if sums else found)
        expanded: Tensor = self.conv_1x1_exp(self.br_after_cat(torch.cat(sums, 1)))
        if self.stride > 1:
            return expanded
        return self.module_act(expanded + features)  # type: ignore[no-any-return]


class Downsampler(nn.Module):
    """Halve features by pooling beside an EESP unit, and add the picture itself at their size."""

    def __init__(self, inputs: int, outputs: int, field: int) -> None:
        super().__init__()
        self.eesp = EESP(inputs, outputs - inputs, field, stride=2)
        self.inp_reinf = nn.Sequential(
            encoder_layer(convolution(3, 3, 3), 3), encoder_layer(convolution(3, outputs), outputs, active=False)
        )
        self.act = nn.PReLU(outputs)

    def forward(self, features: Tensor, picture: Tensor) -> Tensor:
        """Return (N, outputs, H / 2, W / 2) from features (N, inputs, H, W) and the whole picture."""
        found = torch.cat([_halved(features), self.eesp(features)], 1)
        while picture.shape[-2] > found.shape[-2]:
            picture = _halved(picture)
        return self.act(found + self.inp_reinf(picture))  # type: ignore[no-any-return]


def _halved(features: Tensor) -> Tensor:
    return functional.avg_pool2d(features, 3, 2, 1)


class Encoder(nn.Module):
    """The backbone: features at 1/2, 1/4, 1/8 and 1/16 of the picture's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level1 = encoder_layer(convolution(3, width, 3, stride=2), width)
        self.level2_0 = Downsampler(width, 2 * width, 13)
        self.level3_0 = Downsampler(2 * width, 4 * width, 11)
        self.level3 = nn.ModuleList(EESP(4 * width, 4 * width, 9) for _ in range(3))
        self.level4_0 = Downsampler(4 * width, 8 * width, 9)
        self.level4 = nn.ModuleList(EESP(8 * width, 8 * width, 7) for _ in range(7))

    def forward(self, picture: Tensor) -> list[Tensor]:
        """Return the features, the finest first."""
        first = self.level1(picture)
        second = self.level2_0(first, picture)
        third = self.level3_0(second, picture)
        for unit in self.level3:
            third = unit(third)
        fourth = self.level4_0(third, picture)
        for unit in self.level4:
            fourth = unit(fourth)
        return [first, second, third, fourth]


class Shuffle(nn.Module):
    """Interleave the channels of the pyramid's scales, so that each group of the next layer sees all of them."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the same channels in another order."""
        return functional.channel_shuffle(features, len(SCALES))


class Pyramid(nn.Module):
    """The unit of the decoder: depthwise convolutions at several scales, fused."""

    def __init__(self, inputs: int, width: int, outputs: int, *, last: bool = False) -> None:
        super().__init__()
        total = width * len(SCALES)
        self.stages = nn.ModuleList(convolution(width, width, 3, groups=width) for _ in SCALES)
        self.projection_layer = decoder_layer(convolution(inputs, width), width)
        self.merge_layer = nn.Sequential(
            decoder_layer(None, total),
            Shuffle(),
            decoder_layer(convolution(total, width, 3, groups=width), width),
            nn.Conv2d(width, outputs, 1, bias=last),
        )
        self.br = nn.Identity() if last else decoder_layer(None, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W)."""
        reduced = self.projection_layer(features)
        found = [_at_scale(reduced, stage, scale) for stage, scale in zip(self.stages, SCALES, strict=True)]
        return self.br(self.merge_layer(torch.cat(found, 1)))  # type: ignore[no-any-return]


def _at_scale(features: Tensor, layer: nn.Module, scale: float) -> Tensor:
    """Apply a layer to features at another scale; they are enlarged bilinearly and reduced by averaging."""
    height, width = features.shape[-2:]
    scaled = (max(SMALLEST, math.ceil(height * scale)), max(SMALLEST, math.ceil(width * scale)))
    if scale < 1:
        return _enlarged(layer(functional.adaptive_avg_pool2d(features, scaled)), (height, width))
    if scale > 1:
        return functional.adaptive_avg_pool2d(layer(_enlarged(features, scaled)), (height, width))
    return layer(features)  # type: ignore[no-any-return]


def _enlarged(features: Tensor, size: Sequence[int]) -> Tensor:
    return functional.interpolate(features, tuple(size), mode="bilinear", align_corners=True)


class Gate(nn.Module):
    """Take features of the encoder to the decoder, each channel weighted by what it means over the whole picture."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), convolution(inputs, outputs), nn.Sigmoid())
        shared = math.gcd(inputs, outputs)
        self.expansion_layer = decoder_layer(convolution(inputs, outputs, 3, groups=shared), outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Return (N, outputs, H, W)."""
        return self.expansion_layer(features) * self.wt_layer(features)  # type: ignore[no-any-return]


class ESPNetv2(nn.Module):
    """The network: logits as large as the picture.

    Args:
        width: channels of the first level; 16 for s = 0.5, and 32 for s = 1.
        outputs: the number of classes.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        projected = min(outputs // 2, DECODER[2] // 2)
        first, second, third = DECODER
        self.base_net = Encoder(width)
        self.bu_dec_l1 = Pyramid(8 * width, projected, first)
        self.bu_dec_l2 = Pyramid(first, projected, second)
        self.bu_dec_l3 = Pyramid(second, projected, third)
        self.bu_dec_l4 = Pyramid(third, projected, outputs, last=True)
        self.merge_enc_dec_l2 = Gate(4 * width, first)
        self.merge_enc_dec_l3 = Gate(2 * width, second)
        self.merge_enc_dec_l4 = Gate(width, third)
        self.bu_br_l2 = nn.Sequential(nn.BatchNorm2d(first), nn.PReLU(first))
        self.bu_br_l3 = nn.Sequential(nn.BatchNorm2d(second), nn.PReLU(second))
        self.bu_br_l4 = nn.Sequential(nn.BatchNorm2d(third), nn.PReLU(third))

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits (N, outputs, H, W) of pictures (N, 3, H, W)."""
        first, second, third, fourth = self.base_net(picture)
        found = self.bu_dec_l1(fourth)
        found = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(third) + _doubled(found)))
        found = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(second) + _doubled(found)))
        found = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(first) + _doubled(found)))
        return _enlarged(found, picture.shape[-2:])


def _doubled(features: Tensor) -> Tensor:
    return _enlarged(features, [2 * length for length in features.shape[-2:]])


def _factory(width: int, description: hf_lwmm.NetworkDescription) -> Callable[..., nn.Module]:
    """Return a factory for `--network`, with the description of its network."""

    def factory(config: Mapping[str, Any], classes: Sequence[str]) -> nn.Module:
        return ESPNetv2(width, len(classes))

    factory.description = description  # type: ignore[attr-defined]
    return factory


# The published networks have the background as a last output, which no pixel of an evaluation is.
OUTPUTS = (*hf_lwmm.read_label_set("cityscapes19").classes, "background")
CITYSCAPES = hf_lwmm.NetworkDescription(
    outputs=OUTPUTS, groups={name: [name] for name in OUTPUTS[:-1]}, size=(512, 1024), align_corners=True
)
CAMVID = hf_lwmm.NetworkDescription(
    outputs=OUTPUTS,
    groups={
        "sky": ["sky"],
        "building": ["building", "wall"],
        "pole": ["pole"],
        "road": ["road"],
        "pavement": ["sidewalk"],
        "tree": ["vegetation", "terrain"],
        "sign": ["traffic light", "traffic sign"],
        "fence": ["fence"],
        "car": ["car", "truck", "bus", "train"],
        "pedestrian": ["person"],
        "bicyclist": ["rider", "motorcycle", "bicycle"],
    },
    size=(240, 320),
)

s05 = _factory(16, CITYSCAPES)
s10 = _factory(32, CITYSCAPES)
s05_camvid = _factory(16, CAMVID)
s10_camvid = _factory(32, CAMVID)
