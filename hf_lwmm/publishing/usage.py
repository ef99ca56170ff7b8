"""Write the example on a card: how a model is loaded and used."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES
from hf_lwmm.checkpoints.torch_tensors import TorchReader
from hf_lwmm.checkpoints.weight_files import PREFERRED
from hf_lwmm.describing.libraries import TIMM, library_of, smp_pixels
from hf_lwmm.describing.promised_parts import class_name, lacking
from hf_lwmm.publishing.tasks import Task, segments_by_one_row, task_of

_NETWORKS = {"daformer", "segformer", "segformer_mmseg", "deeplab", "diga", "bottleneck"}  # heads that have one

_THRESHOLD = """
picture = image_processor(Image.open("street.jpg").convert("RGB"), return_tensors="pt")
mask = model(**picture).logits[0, 0] > 0  # the head has one row: its class is where the sigmoid is above 1/2"""


def usage(
    anchor: Checkpoint,
    weights: Collection[str],
    repo_id: str | None,
    folder: str,
    *,
    processor: bool = False,
    as_file: bool = False,
) -> str:
    """Return Python code that loads a merge.

    Args:
        anchor: the model whose layout and configuration the merge has.
        weights: the names of the merge's files of weights.
        repo_id: the repository of the merge, if it has one.
        folder: the name of its folder otherwise.
        processor: True if the merge has an image processor, whether or not the anchor has one.
        as_file: True if the tensors make no network that is known here.
    """
    model = repo_id or folder
    if lacking(anchor):
        return _as_file(anchor, weights, repo_id, folder)
    standard = not set(PREFERRED).isdisjoint(weights)
    if standard and (name := class_name(anchor)) and _is_known(anchor, name):
        return _with_transformers(anchor, name, model, processor or anchor.processor is not None)
    if standard and library_of(anchor.config):
        return library_usage(anchor.config, repo_id, folder)
    if (
        not as_file
        and anchor.slot_map.backbone
        and _NETWORKS & {match.layout.component.name for match in anchor.slot_map.matches}
    ):
        says = "  # a network of transformers, its image processor and its classes"
        code = f"import hf_lwmm\n\nloaded = hf_lwmm.load({_text(model)}){says}"
        whole = any(name.endswith(".safetensors") for name in weights)
        return code if whole else f"{code}\n\n# for the anchor's own code\n{_as_file(anchor, weights, repo_id, folder)}"
    return _as_file(anchor, weights, repo_id, folder)


def auto_class_usage(auto_class: str, model: str, *, own_code: bool = False, processor: bool = True) -> str:
    """Return Python code that loads a network, and its image processor if it has one, by an Auto class."""
    arguments = _text(model) + (", trust_remote_code=True" if own_code else "")
    lines = [f"model = {auto_class}.from_pretrained({arguments})"]
    if processor:
        lines.append(f"image_processor = AutoImageProcessor.from_pretrained({arguments})")
    names = ["AutoImageProcessor", auto_class] if processor else [auto_class]
    return f"from transformers import {', '.join(names)}\n\n" + "\n".join(lines)


def _is_known(anchor: Checkpoint, name: str) -> bool:
    """True if transformers has the network, or its code travels with it."""
    kind = str(anchor.config.get("model_type"))
    if "auto_map" in anchor.config:
        return True
    return not kind.startswith("hf-lwmm") and (not _names_its_class(anchor, name) or _is_class_of(kind, name))


def _names_its_class(anchor: Checkpoint, name: str) -> bool:
    """True if a network is loaded by its own class, since there is no Auto class for its task."""
    return task_of(anchor) is None or name.endswith("Backbone")


def _is_class_of(kind: str, name: str) -> bool:
    """True for names as transformers gives them to the classes of a kind of network: the kind, and what it is for."""
    begins = name.lower().startswith(re.sub("[-_]", "", kind.lower()))
    return begins and re.search("(Model|Backbone|For[A-Z][A-Za-z]+)$", name) is not None


def _with_transformers(anchor: Checkpoint, name: str, model: str, processor: bool) -> str:
    task, one_row = task_of(anchor), segments_by_one_row(anchor)
    if "auto_map" in anchor.config:
        auto_class = _mapped(anchor.config["auto_map"], task)
        code = auto_class_usage(auto_class, model, own_code=True, processor=processor)
        return _thresholded(code) if one_row and processor else code
    if task is None or _names_its_class(anchor, name):
        return auto_class_usage(name, model, processor=processor)
    if not processor:
        return auto_class_usage(task.auto_class, model, processor=False)
    if one_row:
        return _thresholded(auto_class_usage(task.auto_class, model))
    do, found, picture = task.use
    return (
        f"from transformers import pipeline\n\n{do} = pipeline({_text(task.pipeline_tag)}, model={_text(model)})\n"
        f'{found} = {do}("{picture}")'
    )


def _thresholded(code: str) -> str:
    """Code that loads a network, and uses a head of one row."""
    return f"from PIL import Image\n{code}\n{_THRESHOLD}"


def _mapped(auto_map: object, task: Task | None) -> str:
    """The Auto class of a network whose code travels with it."""
    stated = auto_map if isinstance(auto_map, dict) else {}
    found = (key for key in stated if isinstance(key, str) and key.startswith("AutoModel") and key.isidentifier())
    return next(found, task.auto_class if task else "AutoModel")


def library_usage(config: Mapping[str, Any], repo_id: str | None, folder: str) -> str:
    """Return Python code that loads a repository of timm or segmentation_models.pytorch as they do.

    Args:
        config: the content of its config.json.
        repo_id: the repository, if it has one.
        folder: the name of its folder otherwise.
    """
    if library_of(config) == TIMM:
        place = _text(f"hf-hub:{repo_id}" if repo_id else f"local-dir:{folder}")
        return (
            f"import timm\n\nmodel = timm.create_model({place}, pretrained=True).eval()\n"
            "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        )
    # The encoder's weights are in the repository: those that it was trained from need not be fetched.
    rest = "" if config.get("encoder_weights") is None else ", encoder_weights=None"
    imports = "import segmentation_models_pytorch as smp"
    code = f"model = smp.from_pretrained({_text(repo_id or folder)}{rest}).eval()"
    pixels = smp_pixels(str(config.get("encoder_name")), str(config.get("encoder_weights")))
    if pixels is None:
        return f"{imports}\n\n{code}"
    mean, std = ("[" + ", ".join(f"{value:.6g}" for value in values) + "]" for values in pixels)
    prepare = f"partial(smp.encoders.preprocess_input, input_range=[0, 1], mean={mean}, std={std})"
    return f"from functools import partial\n\n{imports}\n\n{code}\nprepare = {prepare}  # RGB, (height, width, 3)"


def _as_file(anchor: Checkpoint, weights: Collection[str], repo_id: str | None, folder: str) -> str:
    """Code that reads the first file of weights, as it is stored."""
    name = min(name for name in weights if name.endswith(WEIGHT_SUFFIXES))
    place = f"hf_hub_download({_text(repo_id)}, {_text(name)})" if repo_id else _text(f"{folder}/{name}")
    download = "from huggingface_hub import hf_hub_download\n" if repo_id else ""
    if name.endswith(".safetensors"):
        known = anchor.slot_map.matches and not anchor.renamed
        names = f"names of {anchor.slot_map.layout}" if known else "names as in the anchor's file"
        return f"{download}from safetensors.torch import load_file\n\nstate_dict = load_file({place})  # {names}"
    reader = anchor.parts[0].reader
    entry = reader.entry if len(anchor.parts) == 1 and isinstance(reader, TorchReader) else None
    if entry is None:
        how = "  # load it as the anchor's own code loads the anchor"
        return f"{download}\ncheckpoint = {place}{how}".lstrip("\n")
    of = (f"[{_text(entry)}]" if entry else "") + _merged_names(anchor)
    return f'import torch\n{download}\nstate_dict = torch.load({place}, map_location="cpu"){of}'


def _merged_names(anchor: Checkpoint) -> str:
    """A comment on the names of the merged network in a state dict, if they begin alike."""
    starts = {old.removesuffix(new) for new, old in anchor.stored_names.items()}
    start = starts.pop() if len(starts) == 1 else ""
    return f"  # the merge is in {start}*" if start.isprintable() and start else ""


def _text(text: str) -> str:
    """A text as Python writes it, in double quotes."""
    return json.dumps(text, ensure_ascii=False)
