"""All parts of a pickled module are read by the names of its `state_dict()`, or the one that cannot be is named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import merge
from safetensors.torch import load_file
from torch import nn
from torch_files import Made, Named, bytes_of, floats, module, opened, storage, tensor, zipped

from hf_lwmm.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def compiled() -> nn.Module:
    made: Any = torch.compile(nn.Linear(2, 2))
    return nn.Sequential(nn.Linear(2, 2), made)


def traced() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))


@pytest.mark.parametrize("make", [compiled, traced, lambda: traced()[1]])
def test_parts_that_are_pickled_by_a_call_are_read(make: Any) -> None:
    torch.manual_seed(0)
    network = make()
    expected = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    assert bytes_of(opened(saved(network))) == expected


def test_the_wrapper_of_a_compiled_network_is_taken_off() -> None:
    network = nn.Linear(2, 2)
    for content in (torch.compile(network), {"model": torch.compile(network)}):
        expected = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
        assert bytes_of(opened(saved(content))) == expected


class Rebuilt(nn.Module):
    """A module that is pickled as a call with its state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def __reduce__(self) -> Any:
        return (rebuild, (self.state_dict(),))


def rebuild(state: Any) -> Rebuilt:
    made = Rebuilt()
    made.load_state_dict(state)
    return made


class Nested(nn.Module):
    """A module whose pickled state lies deeper than that of others."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def __getstate__(self) -> Any:
        return {"net": self.__dict__}


class Own(nn.Parameter):
    """A parameter that is pickled in its own way."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (own, (self.detach().clone().as_subclass(torch.Tensor),))


def own(values: torch.Tensor) -> Own:
    return Own(values)


def with_own_parameter() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 2))
    made[0].weight = Own(torch.randn(2, 2))
    return made


def quantised() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(2, 2)), {nn.Linear})


UNREADABLE = {
    "own reduce": (lambda: nn.Sequential(nn.Linear(2, 2), Rebuilt()), "'1' of its module is a .*rebuild"),
    "nested state": (lambda: nn.Sequential(nn.Linear(2, 2), Nested()), "'1' of its module is a .*Nested"),
    "own parameter": (with_own_parameter, r"'0\.weight' of its module is a .*own"),
    "lazy": (lambda: nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3)), r"'1\.weight' .*UninitializedParameter"),
    "quantised": (lambda: nn.Sequential(nn.Conv2d(2, 2, 1), quantised()), r"'1\.0' of its module is a torch\.ao"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: {"model": net}], ids=["bare", "contained"])
def test_a_part_that_cannot_be_read_is_named(wrap: Any, kind: str) -> None:
    make, words = UNREADABLE[kind]
    with pytest.raises(CheckpointError, match=rf"^a\.pth: {words}.*, which cannot be read\. Save `model\.state_dict"):
        opened(saved(wrap(make())))


W = tensor(storage("0", 1), (1,))
TABLE = Made(Named("b", "Table"), ((("w", W),),))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (module({"w": W}, {"odd": 3}), "'odd' of its module is a int"),
        (module({"w": W, 4: W}), "'4' of its module is a int"),
        (module({"w": W}, None, {"b": [W]}), "'b' of its module is a list"),
        (module({"w": W}, {"name": Named("some", "Net")}), "'name' of its module is a Name"),
        (module({"w": W}, {"deep": module({"x": "text"})}), r"'deep\.x' of its module is a str"),
        (Made(Named("a", "Net"), (), {"_parameters": TABLE, "_buffers": {}, "_modules": {}}), "'_parameters' of"),
    ],
)
def test_odd_parts_are_named(made: Any, words: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^a\.pth: {words}"):
        opened(zipped(made, {"0": floats(1)}))


def test_a_module_that_was_not_asked_for_may_be_unreadable() -> None:
    content = {"model": module({"w": W}), "ema": module({"w": W}, {"odd": 3})}
    assert set(opened(zipped(content, {"0": floats(1)})).tensors) == {"w"}
    with pytest.raises(CheckpointError, match="'odd' of its module"):
        opened(zipped(content, {"0": floats(1)}), "teacher")


class Detector(nn.Module):
    """A network whose class keeps its layers as ultralytics' do."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_a_merge_of_whole_modules_loads_into_the_module(tmp_path: Path) -> None:
    for name in "ab":
        torch.save({"model": Detector(), "ema": None}, tmp_path / f"{name}.pt")
    merge([tmp_path / "a.pt", tmp_path / "b.pt"], output=tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert "model.0.weight" in found
    Detector().load_state_dict(found)
