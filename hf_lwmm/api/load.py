"""Load any supported checkpoint as a network that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hf_lwmm.api.arguments import expect
from hf_lwmm.errors import naming_extras
from hf_lwmm.hub.refs import Ref
from hf_lwmm.planning.inputs import NetworkOptions

if TYPE_CHECKING:
    from hf_lwmm.networks.loaded_model import LoadedModel


@naming_extras("Loading a network")
def load(model: Ref, network: NetworkOptions = NetworkOptions(), name: str = "") -> LoadedModel:
    """Load a model as a network in evaluation mode, with its image processor and class names.

    Args:
        model: a reference, as for `merge`.
        network: the code base of a DeepLabV2 checkpoint, label sets for a model that does not name its classes, the
            branch of a self-training checkpoint, the device and the type to compute in.
        name: what messages and reports call the model; its reference if empty.

    Returns:
        The network of transformers or of `hf_lwmm.networks`, and what was assumed about it.

    Raises:
        HfLwmmError: a subclass that says what is wrong, such as which tensors are missing.
    """
    expect(network, NetworkOptions, "network")
    from hf_lwmm.networks.loading import load as load_network

    return load_network(model, network, name)
