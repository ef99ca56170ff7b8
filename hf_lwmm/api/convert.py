"""Convert a checkpoint to another layout: the same weights, bit for bit, under the names of another code base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hf_lwmm import hub
from hf_lwmm.checkpoints.checkpoint import Checkpoint, open_checkpoint
from hf_lwmm.checkpoints.companions import CONFIG
from hf_lwmm.checkpoints.torch_file import WEIGHT_SUFFIXES, write_torch_file
from hf_lwmm.describing.network_fields import stated_heads
from hf_lwmm.engine.streaming import write_tensors
from hf_lwmm.errors import PlanError
from hf_lwmm.files.atomic import atomic
from hf_lwmm.files.targets import check_target
from hf_lwmm.hub import Ref, parse_ref
from hf_lwmm.planning.conversion import Conversion, plan_conversion
from hf_lwmm.planning.local_inputs import local_inputs
from hf_lwmm.progress import Progress, silent
from hf_lwmm.publishing.model_folders import check_model_folder


def convert(
    model: Ref,
    output: str | Path,
    *,
    to: str,
    backbone_only: bool = False,
    branch: str = "student",
    overwrite: bool = False,
    progress: Progress = silent,
) -> Conversion:
    """Write a model's weights in another layout.

    Args:
        model: a reference, as for `merge`.
        output: the file to write, in torch's format if it ends in .pth, .pt, .bin or .ckpt; the folder to write if it
            has none of these endings and not .safetensors.
        to: a code base that layouts are named after (`transformers`, `nvidia`, `advent`, ...).
        backbone_only: leave the heads out.
        branch: the network to take from a self-training checkpoint, "student" or "teacher".
        overwrite: replace an existing output.

    Returns:
        What was written, and notes on what was left out. Its checkpoint is closed.

    Raises:
        PlanError: if the output ends in another suffix of letters.
        LayoutError: if the layout cannot hold a tensor; the message says which.
        MergeError: if the output exists (unless `overwrite`) or cannot be written.
    """
    ref, path = parse_ref(model), Path(output)
    if path.suffix[1:].isalpha() and path.suffix not in WEIGHT_SUFFIXES:
        raise PlanError(
            f"{path}: files of weights end in {', '.join(WEIGHT_SUFFIXES)}, and {path.suffix} is none of them. "
            "Folders to write have names without such a suffix."
        )
    check = check_target if path.suffix in WEIGHT_SUFFIXES else check_model_folder
    target = check(path, overwrite, local_inputs(ref))
    progress("Fetching weights", 0, 2)
    checkpoint = open_checkpoint(hub.resolve(ref), branch=branch)
    try:
        conversion = plan_conversion(checkpoint, to, backbone_only=backbone_only)
        conversion = replace(conversion, notes=(*conversion.notes, *_left_behind(checkpoint, path)))
        progress("Writing", 1, 2)
        with atomic(target) as place:
            if path.suffix in WEIGHT_SUFFIXES:
                _write_file(conversion, place)
            else:
                place.mkdir()
                write_tensors([checkpoint], conversion.tensors, place, allow_nonfinite=True)
    finally:
        checkpoint.close()
    return conversion


def _left_behind(checkpoint: Checkpoint, output: Path) -> tuple[str, ...]:
    """A note on what the config.json alone says of the network, without which it computes something else."""
    if (heads := stated_heads(checkpoint.slot_map, checkpoint.config)) is None:
        return ()
    named = f", and name both: FOLDER/:{output.name}" if output.suffix in WEIGHT_SUFFIXES else ""
    stages = ", ".join(map(str, heads))
    return (
        f"{checkpoint.label}: only its {CONFIG} says that its stages have {stages} attention heads: to run "
        f"{output.name}, copy it beside the weights{named}",
    )


def _write_file(conversion: Conversion, place: Path) -> None:
    """Write all tensors into one file, however large, by way of a folder beside it that vanishes with `atomic`."""
    scratch = place.with_name("tensors")
    scratch.mkdir()
    size = sum(tensor.info.nbytes for tensor in conversion.tensors)
    (name,) = write_tensors([conversion.source], conversion.tensors, scratch, allow_nonfinite=True, max_shard_size=size)
    if place.suffix == ".safetensors":
        (scratch / name).rename(place)
    else:
        write_torch_file(scratch / name, place)
