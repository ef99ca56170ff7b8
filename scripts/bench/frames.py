"""Make the networks and frames that benches of evaluations run on.

The networks' weights are random but for the last layer, which is fitted to two frames by least squares, so that class
maps look like those of a trained network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE, CLASSES, CELLS = (1024, 2048), 19, 40
NAMES = {index: f"class {index}" for index in range(CLASSES)}
TINY: dict[str, Any] = {
    "depths": [1] * 4, "hidden_sizes": [4, 8, 8, 16], "num_attention_heads": [1, 1, 1, 1], "mlp_ratios": [1] * 4,
    "decoder_hidden_size": 16, "id2label": NAMES,
}  # fmt: skip
SMALL_EDAPS = {"embedding_size": 8, "fpn_hidden_size": 8, "box_hidden_size": 16, "mask_hidden_size": 8}


def save_network(name: str, folder: Path, data: Path) -> None:
    """Save a network, fitted to saved frames, and its image processor."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    from hf_lwmm import networks

    torch.manual_seed(0)
    size = dict(zip(("height", "width"), (256, 512) if name.startswith("nothing") else (512, 1024), strict=True))
    processor: Any = SegformerImageProcessor(size=size)
    if name == "deeplab-r101":
        model: Any = networks.DeepLabV2ForSemanticSegmentation(networks.DeepLabV2Config(id2label=NAMES))
        head = model.layer6.conv2d_list[0]
        for convolution in model.layer6.conv2d_list:
            torch.nn.init.zeros_(convolution.weight)
            torch.nn.init.zeros_(convolution.bias)
    elif name == "nothing-pq":
        model = networks.EDAPSForPanopticSegmentation(networks.EDAPSConfig(**TINY, **SMALL_EDAPS, thing_ids=(18,)))
        head, processor = model.decode_head.conv_seg, networks.SegmentationImageProcessor(size=size)
    else:
        settings = TINY if name == "nothing" else {"id2label": NAMES}
        model = SegformerForSemanticSegmentation(SegformerConfig(**settings))
        head = model.decode_head.classifier
    _fit(model, head, processor, data)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _fit(model: Any, head: Any, processor: Any, data: Path) -> None:
    """Measure BatchNorm on the first frame, and fit the classifier's middle weights to two frames."""
    import torch

    features: list[Any] = []
    head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    norms = [each for each in model.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    targets = []
    with torch.no_grad():
        for image, label in read_frames(data, limit=2):
            pixels = processor(image, return_tensors="pt")["pixel_values"]
            if norms:
                for norm in norms:
                    norm.train().momentum = 1.0
                model(pixels)
                model.eval()
                norms = []
                features.clear()
            model.eval()(pixels)
            small = torch.tensor(label)[None, None].float()
            targets.append(torch.nn.functional.interpolate(small, features[-1].shape[-2:]).flatten().long())
        inputs = torch.cat([each[0].flatten(1).T for each in features]).double()
        known = torch.cat(targets) != 255
        middle = inputs.mean(0)
        inputs = (inputs - middle)[known]
        wanted = torch.nn.functional.one_hot(torch.cat(targets)[known], CLASSES).double()
        square = inputs.T @ inputs
        fitted = torch.linalg.solve(
            square + square.diagonal().mean() * 1e-4 * torch.eye(len(square)), inputs.T @ wanted
        )
        centre = head.weight.shape[-1] // 2
        head.weight.zero_()[:, :, centre, centre] = 20 * fitted.T
        head.bias.copy_(20 * (wanted.mean(0) - middle @ fitted))


def save_frames(folder: Path, kind: str, count: int, segments: bool) -> None:
    """Save pictures of wavy, textured cells, their classes and, if asked for, their segments in COCO's format."""
    generator = np.random.default_rng(0)
    height, width = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    palette = generator.integers(30, 220, (CLASSES, 3))
    annotations = folder / "annotations" / "panoptic_val"
    for place in [*((folder / "val" / part) for part in ("images", "labels")), *([annotations] if segments else [])]:
        place.mkdir(parents=True)
    listed: dict[str, list[Any]] = {"images": [], "annotations": []}
    for index in range(count):
        wave = 6 * np.sin(x / 17 + index) + 4 * np.sin(y / 9 + x / 31)
        centres = generator.uniform(0, 1, (CELLS, 2)) * SIZE
        small = [1.5 * np.abs(y - a + wave)[::2, ::2] + np.abs(x - b + wave)[::2, ::2] for a, b in centres]
        cells = np.argmin(small, axis=0).repeat(2, 0).repeat(2, 1)
        colours = palette[np.arange(CELLS) % CLASSES] + generator.normal(0, 4, (CELLS, 3))
        picture = colours[cells] + generator.normal(0, 3, (height, width, 1))
        name = f"{index:03}.{kind}"
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        image.save(folder / "val" / "images" / name, **({"quality": 92} if kind == "jpg" else {}))
        label = np.where(cells == CELLS - 1, 255, cells % CLASSES).astype(np.uint8)
        Image.fromarray(label).save(folder / "val" / "labels" / f"{index:03}.png")
        if segments:
            ids = np.stack([np.where(label == 255, 0, cells + 1), 0 * cells, 0 * cells], -1).astype(np.uint8)
            Image.fromarray(ids).save(annotations / f"{index:03}.png")
            found = [
                {"id": cell + 1, "category_id": cell % CLASSES, "iscrowd": 0, "area": int((cells == cell).sum())}
                for cell in np.unique(cells).tolist()
            ]
            listed["images"].append({"id": index, "file_name": f"images/{name}", "height": height, "width": width})
            one = {
                "image_id": index,
                "file_name": f"{index:03}.png",
                "segments_info": [s for s in found if s["id"] < CELLS],
            }
            listed["annotations"].append(one)
    if segments:
        categories = [{"id": index, "name": name, "isthing": int(index == 18)} for index, name in NAMES.items()]
        Path(f"{annotations}.json").write_text(json.dumps({**listed, "categories": categories}))


def read_frames(data: Path, limit: int | None = None) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Return the saved pictures and their labels, at most as many as `limit`."""
    for path in sorted((data / "val" / "images").iterdir())[:limit]:
        label = data / "val" / "labels" / f"{path.stem}.png"
        yield Image.open(path).convert("RGB"), np.asarray(Image.open(label))
