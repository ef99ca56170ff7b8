"""Find the order in which a network uses its tensors, from one forward pass; their values do not matter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from hf_lwmm.checkpoints.checkpoint import Checkpoint
from hf_lwmm.checkpoints.dtypes import is_float
from hf_lwmm.errors import HfLwmmError, PlanError, first_line
from hf_lwmm.layouts import map_slots
from hf_lwmm.networks.loading import unfilled_network
from hf_lwmm.planning.inputs import NetworkOptions
from hf_lwmm.planning.tensor_order import TensorOrder, in_order_of_use

_SIDES = (224, 64, 256, 512)  # of pictures to try where nothing states a size
_LARGEST = 1024  # side of a picture that a network may ask for here
_INSTEAD = "Use --order depth, which goes by names."


def traced_order(checkpoint: Checkpoint, network: NetworkOptions = NetworkOptions()) -> TensorOrder:
    """Return the order in which a checkpoint's network first uses its slots in a forward pass on one picture.

    The network is that of transformers, timm or segmentation_models.pytorch that the repository's config.json
    describes, one of this package, or one of the user's own code. Only its structure is needed: of a checkpoint on the
    Hub nothing but headers is read.

    Raises:
        HfLwmmError: if there is no network for it.
        PlanError: if the network does not run on a picture alone, or has other tensors than the checkpoint.
    """
    module = unfilled_network(checkpoint, network).eval()
    uses = _on_some_picture(module, checkpoint)
    names = _stored_names(module)
    atoms = map_slots({name: tuple(tensor.shape) for name, tensor in names.items()}).atoms
    found = {
        atom.slot: uses[id(tensor)] for name, tensor in names.items() if id(tensor) in uses for atom in atoms[name]
    }
    kinds = {slot: checkpoint.tensors[atom.tensor].dtype for slot, atom in checkpoint.slot_map.slots.items()}
    slots = [slot for slot, kind in kinds.items() if is_float(kind)]
    if len(found.keys() & set(slots)) < len(slots) / 2:
        raise PlanError(
            f"--order traced: {checkpoint.label}: its network has other tensors than its file, such as "
            f"{next((slot for slot in slots if slot not in found), '')}. {_INSTEAD}"
        )
    return TensorOrder.of(in_order_of_use(slots, found))


def first_uses(module: nn.Module, pixels: Tensor) -> dict[int, int]:
    """Return the number of the first operation on each tensor of a network's state, by the tensor's id.

    Args:
        module: the network.
        pixels: (N, 3, H, W).
    """
    state = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    with torch.inference_mode(), (watch := _Watch(state)):
        module(pixels)
    return watch.first


class _Watch(TorchFunctionMode):
    """A mode that notes the first operation on some tensors of which another tensor comes: questions are no use."""

    def __init__(self, watched: set[int]) -> None:
        super().__init__()
        self.first: dict[int, int] = {}
        self._watched, self._count = watched, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        returned = func(*args, **(kwargs or {}))
        if any(isinstance(each, Tensor) for each in tree_iter(returned)):
            self._count += 1
            for each in tree_iter((args, kwargs)):
                if id(each) in self._watched:
                    self.first.setdefault(id(each), self._count)
        return returned


def _on_some_picture(module: nn.Module, checkpoint: Checkpoint) -> dict[int, int]:
    """The uses in a pass on a picture of the size that the network states, or of the first one that it takes."""
    fault = ""
    for height, width in _sizes(module):
        try:
            if uses := first_uses(module, torch.rand(1, 3, height, width)):
                return uses
        except HfLwmmError:
            raise
        except Exception as error:  # of any network's code, about a picture that it cannot take
            fault = fault or first_line(error)
    raise PlanError(f"--order traced: {checkpoint.label}: its network does not run on a picture: {fault} {_INSTEAD}")


def _sizes(module: Any) -> Iterator[tuple[int, int]]:
    """Heights and widths to try."""
    cfg = getattr(module, "pretrained_cfg", None)
    stated = cfg.get("input_size", ())[-2:] if isinstance(cfg, Mapping) else None
    if isinstance(module, PreTrainedModel):
        configs = (module.config, getattr(module.config, "backbone_config", None))
        stated = next((size for each in configs if (size := getattr(each, "image_size", None))), None)
    size = (stated, stated) if isinstance(stated, int) else tuple(stated or ())
    if len(size) == 2 and all(isinstance(each, int) and 0 < each <= _LARGEST for each in size):
        yield size
    yield from ((side, side) for side in _SIDES)


def _stored_names(module: nn.Module) -> Mapping[str, Tensor]:
    """The tensors of a network by the names that they have in files; some of transformers' have others in memory."""
    state: dict[str, Tensor] = module.state_dict(keep_vars=True)
    if not isinstance(module, PreTrainedModel):
        return state
    places = {name: torch.tensor(place) for place, name in enumerate(state)}
    try:
        renamed = revert_weight_conversion(module, places)
    except Exception:  # of tensors that are cut or stacked, which places are not
        return state
    tensors = list(state.values())
    return {name: tensors[int(place)] for name, place in renamed.items()}
