"""Files of old pickle protocols are read or named, and what tensors claim together is bounded by their file."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch_files import bytes_of, floats, opened, storage, tensor, zipped

from hf_lwmm.errors import CheckpointError


def saved(value: object, protocol: int, zip_file: bool) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, pickle_protocol=protocol, _use_new_zipfile_serialization=zip_file)
    return file.getvalue()


@pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("whole", [True, False], ids=["module", "state dict"])
def test_the_oldest_protocol_that_torch_loads_is_read(whole: bool, zip_file: bool) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    expected = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    assert bytes_of(opened(saved(network if whole else network.state_dict(), 1, zip_file))) == expected


@pytest.mark.parametrize("zip_file", [True, False], ids=["zip", "legacy"])
def test_the_protocol_that_torch_does_not_load_is_named(zip_file: bool) -> None:
    with pytest.raises(CheckpointError, match=r"^a\.pth: its pickle .*protocol 0 of pickle, which torch itself does"):
        opened(saved(nn.Linear(1, 1).state_dict(), 0, zip_file))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("value", [{"w": 1}, [1, 2], OrderedDict(w=1)], ids=["dictionary", "list", "object"])
def test_a_pickle_that_is_not_of_torch_is_called_so(value: object, protocol: int) -> None:
    with pytest.raises(CheckpointError, match=r"^a\.pth: is a pickle, but not one that torch\.save wrote"):
        opened(pickle.dumps(value, protocol))


def test_tensors_that_share_memory_claim_little_together() -> None:
    expanded = tensor(storage("0", 1), (1 << 18,), (0,))
    tied = tensor(storage("0", 1), (1,))
    some = {f"layer{place}.weight": expanded for place in range(60)}
    assert len(opened(zipped(some, {"0": floats(1)})).tensors) == 60
    assert (
        len(opened(zipped({f"layer{place}.weight": tied for place in range(1000)}, {"0": floats(1)})).tensors) == 1000
    )
    many = {f"layer{place}.weight": expanded for place in range(70)}
    with pytest.raises(CheckpointError, match=r"^a\.pth: its tensors claim 73,400,320 bytes, more than 64 times"):
        opened(zipped(many, {"0": floats(1)}))
