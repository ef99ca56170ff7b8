"""The order in which networks use their tensors: traced by running them, and recorded, so that no network is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
import yaml
from calls import lwmm, merge, plan
from huggingface_hub import HfApi, try_to_load_from_cache
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tiny import TWO_STAGES, deeplab, segformer, tree
from torch import Tensor, nn

import hf_lwmm
from hf_lwmm.errors import HfLwmmError, LayoutError, PlanError
from hf_lwmm.layouts import depth_order, map_slots
from hf_lwmm.planning.inputs import MergeInputs, NetworkOptions
from hf_lwmm.planning.tensor_order import TensorOrder, in_order_of_use
from hf_lwmm.recipes.recipe import read_recipe


def order_of(decided: hf_lwmm.MergePlan) -> list[str]:
    return [each.slot for each in decided.alignment.shared]


class Backwards(nn.Module):
    """A network that registers its layers in the reverse of the order in which it uses them."""

    def __init__(self) -> None:
        super().__init__()
        self.a_head = nn.Conv2d(4, 3, 1)
        self.between = nn.BatchNorm2d(4)
        self.shift = nn.Parameter(torch.zeros(1, 4, 1, 1))
        self.unused = nn.Linear(2, 2)
        self.z_stem = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, pixels: Tensor) -> Tensor:
        assert self.a_head.weight.shape[1] == 4  # a question is no use
        return self.a_head(self.between(self.z_stem(pixels) + self.shift))


def backwards(config: Any, outputs: Any) -> nn.Module:
    return Backwards()


backwards.description = hf_lwmm.NetworkDescription(outputs=("a", "b", "c"))  # type: ignore[attr-defined]
IN_USE = [
    "z_stem.weight", "z_stem.bias", "shift", "between.weight", "between.bias", "between.running_mean",
    "between.running_var", "a_head.weight", "a_head.bias", "unused.weight", "unused.bias",
]  # fmt: skip


@pytest.fixture
def own(tmp_path: Path) -> list[Path]:
    """Two files of the network `Backwards`."""
    for seed in (1, 2):
        torch.manual_seed(seed)
        save_file(Backwards().state_dict(), tmp_path / f"{seed}.safetensors")
    return [tmp_path / f"{seed}.safetensors" for seed in (1, 2)]


def test_a_network_of_ones_own_is_ordered_as_it_runs(own: list[Path]) -> None:
    guessed = order_of(plan(own))
    traced = plan(own, order="traced", network=NetworkOptions(network=backwards))
    assert order_of(traced) == IN_USE != guessed
    assert [each.position for each in traced.alignment.shared] == list(range(1, len(IN_USE) + 1))
    assert traced.order == TensorOrder(("z_stem", "shift", "between", "a_head", "unused"))


def vit(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    timm.models.save_for_hf(timm.create_model("test_vit", num_classes=3), folder, safe_serialization=True)
    return folder


@pytest.mark.parametrize("make", [vit, segformer, lambda folder, seed: deeplab(folder, seed, 1e-5)])
def test_tables_have_the_order_that_running_shows(make: Any, tmp_path: Path) -> None:
    models = [make(tmp_path / str(seed), seed) for seed in (1, 2)]
    tables, traced = plan(models), plan(models, order="traced")
    assert traced.positions == tables.positions and tables.order is None


def test_a_network_without_a_head_is_traced(tmp_path: Path) -> None:
    config = transformers.PoolFormerConfig(depths=[1, 1, 1, 1], hidden_sizes=[4, 4, 4, 4])
    for seed in (1, 2):
        torch.manual_seed(seed)
        transformers.PoolFormerModel(config).save_pretrained(tmp_path / str(seed))
    traced = plan([tmp_path / "1", tmp_path / "2"], order="traced")
    assert traced.order is not None and traced.anchor.slot_map.layout == "identity"
    stages = [f"encoder.patch_embeddings.{stage}.projection" for stage in range(4)]
    assert traced.order.entries[0] == stages[0]
    assert [entry for entry in traced.order.entries if entry in stages] == stages
    assert traced.order.entries.index("encoder.block.0.0.output.conv1") < traced.order.entries.index(stages[1])


def test_transformers_names_in_memory_are_those_of_its_files(tmp_path: Path) -> None:
    size = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4}
    for seed in (1, 2):
        torch.manual_seed(seed)
        transformers.SwinForImageClassification(transformers.SwinConfig(**size)).save_pretrained(tmp_path / str(seed))
    found = plan([tmp_path / "1", tmp_path / "2"], order="traced")
    assert len(order_of(found)) == len(
        [name for name, tensor in load_file(tmp_path / "1/model.safetensors").items() if tensor.is_floating_point()]
    )
    assert order_of(found)[-1].endswith("classifier.bias")


def test_of_a_model_on_the_hub_only_headers_are_read(api: HfApi, tmp_path: Path) -> None:
    for seed in (1, 2):
        api.create_repo(f"org/traced-{seed}", exist_ok=True)
        api.upload_folder(repo_id=f"org/traced-{seed}", folder_path=vit(tmp_path / str(seed), seed))
    models = ["org/traced-1", "org/traced-2"]
    assert order_of(hf_lwmm.plan(models, knobs=hf_lwmm.Knobs(order="traced"))) == order_of(hf_lwmm.plan(models))
    assert try_to_load_from_cache("org/traced-1", "model.safetensors") is None


# Recipes


def test_a_recipe_has_the_order_so_that_the_merge_is_made_again_without_a_network(
    own: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NetworkOptions(network=backwards)
    first = merge(own, order="traced", network=network, output=tmp_path / "first")
    assert first.recipe.order == first.plan.order
    monkeypatch.setattr("hf_lwmm.networks.tracing.traced_order", None)
    done = lwmm("merge", "--recipe", tmp_path / "first/hf_lwmm.yaml", *own, "--output", tmp_path / "other")
    assert done.exit_code == 1  # models that are named may be others than the recipe's
    again = hf_lwmm.reproduce(tmp_path / "first", own)
    assert again.same and again.merged["model.safetensors"] == first.recipe.output["model.safetensors"]


def test_a_guessed_order_is_recorded_too_and_one_of_tables_is_not(own: list[Path], tmp_path: Path) -> None:
    guessed = merge(own, output=tmp_path / "guessed").recipe
    assert guessed.order is not None and read_recipe(guessed.to_yaml()) == guessed
    models = [segformer(tmp_path / str(seed), seed, stages=TWO_STAGES) for seed in (1, 2)]
    assert merge(models, output=tmp_path / "known").recipe.order is None
    assert merge(own, order="file", output=tmp_path / "file").recipe.order is None


def test_recipes_of_before_make_the_bytes_of_before(own: list[Path], tmp_path: Path) -> None:
    merge(own, output=tmp_path / "today")
    recipe = (tmp_path / "today/hf_lwmm.yaml").read_text()
    today = yaml.safe_load(recipe)
    before = {name: entry for name, entry in today.items() if name not in ("order", "output", "beside")}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({**before, "schema": 2}))
    first = hf_lwmm.load_recipe(tmp_path / "old.yaml")
    guessed = order_of(hf_lwmm.plan(own, inputs=first.inputs))
    assert guessed == depth_order(IN_USE, first_guess=True) != order_of(plan(own))
    assert guessed[0] == "shift" and order_of(plan(own))[0] == "z_stem.weight"
    assert yaml.safe_load(first.to_yaml())["schema"] == 2 and read_recipe(first.to_yaml()) == first
    again = hf_lwmm.merge(own, inputs=first.inputs, output=tmp_path / "again").recipe  # is recorded from now on
    assert again.order is not None and again.order.entries[:2] == ("shift", "between")
    assert again.output != today["output"]


def test_recipes_of_other_schemas_are_told() -> None:
    text = "models: [a/b, a/c]"
    assert read_recipe(text).order is None and read_recipe(f"schema: 3\n{text}").order is None
    assert read_recipe(f"hf_lwmm: 0.1.0\n{text}").order == TensorOrder()
    with pytest.raises(PlanError, match=r"has the schema 4; this version of hf-lwmm reads up to 3"):
        read_recipe(f"schema: 4\n{text}")


@pytest.mark.parametrize(("order", "message"), [
    (["z_stem", "nothing"], r"recorded order has 'nothing', which is no tensor of 1\.safetensors"),
    (["z_stem"], r"recorded order lacks a_head\.bias, a_head\.weight"),
])  # fmt: skip
def test_an_order_of_other_tensors_is_refused(order: list[str], message: str, own: list[Path]) -> None:
    with pytest.raises(PlanError, match=message):
        hf_lwmm.plan(own, inputs=MergeInputs(order=TensorOrder(tuple(order))))


@pytest.mark.parametrize("order", ["text", "[1]", "{a: b}"])
def test_an_order_that_is_no_list_of_names_is_refused(order: str) -> None:
    with pytest.raises(PlanError, match=r"hf_lwmm\.yaml, order: must be a list of names of tensors and modules"):
        read_recipe(f"models: [a/b, a/c]\norder: {order}")


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)
TENSORS = st.tuples(NAMES, st.sampled_from(["weight", "bias", "running_mean", "c"])).map(".".join)


@given(st.lists(TENSORS, unique=True, min_size=1).flatmap(st.permutations))
def test_an_order_is_read_as_it_was_written(slots: list[str]) -> None:
    slot_map = map_slots(dict.fromkeys(slots, (1,)))
    order = TensorOrder.of(slots)
    assert order.ranked(sorted(slots), slot_map, "model") == slots and len(order.entries) <= len(slots)


def test_tensors_that_got_slots_after_an_order_was_recorded_keep_their_places() -> None:
    slot_map = map_slots({
        name: (2, 2) for name in timm.create_model("resnet18").state_dict() if "num_batches_tracked" not in name
    })  # fmt: skip
    entries = dict.fromkeys(name.rpartition(".")[0] for name in reversed(slot_map.atoms))
    ranked = TensorOrder(tuple(entries)).ranked([*slot_map.slots], slot_map, "model")
    assert "resnet" in ranked[-1] and slot_map.slots[ranked[-1]].tensor == "conv1.weight"


def test_slots_of_one_use_are_in_depth_order_and_unused_ones_last() -> None:
    uses = {"b.weight": 1, "b.bias": 1, "a.weight": 2}
    assert in_order_of_use(["a.weight", "c.weight", "b.bias", "b.weight"], uses) == [
        "b.weight", "b.bias", "a.weight", "c.weight"
    ]  # fmt: skip


# Sweeps, and what is refused


def test_a_sweep_traces_each_anchor(tmp_path: Path) -> None:
    models = [segformer(tmp_path / str(seed), seed, stages=TWO_STAGES) for seed in (1, 2)]
    traced = hf_lwmm.SweepAxes(fixed=hf_lwmm.Knobs(order="traced"))
    found = hf_lwmm.sweep(models, tree(tmp_path / "data", 2), tmp_path / "out.parquet", axes=traced)
    merges = [row for row in found.rows if row.candidate.knobs is not None]
    assert len(merges) == 2 and all("order=traced" in row.name for row in merges)


def test_a_network_that_cannot_be_had_or_run_is_named(own: list[Path]) -> None:
    with pytest.raises(LayoutError, match="there is no network for unknown network"):
        plan(own, order="traced")

    def failing(config: Any, outputs: Any) -> nn.Module:
        return nn.Linear(3, 3)

    failing.description = backwards.description  # type: ignore[attr-defined]
    with pytest.raises(PlanError, match=r"its network does not run on a picture: .*--order depth"):
        plan(own, order="traced", network=NetworkOptions(network=failing))

    def other(config: Any, outputs: Any) -> nn.Module:
        return nn.Conv2d(3, 3, 1)

    other.description = backwards.description  # type: ignore[attr-defined]
    with pytest.raises(PlanError, match=r"its network has other tensors than its file, such as a_head\.bias"):
        plan(own, order="traced", network=NetworkOptions(network=other))


def test_a_network_is_named_for_tracing_alone(own: list[Path]) -> None:
    with pytest.raises(HfLwmmError, match="--network needs"):
        plan(own, network=NetworkOptions(network=backwards))
    with pytest.raises(HfLwmmError, match="--device needs"):
        plan(own, order="traced", network=NetworkOptions(network=backwards, device="meta"))
    done = lwmm("plan", *own, "--order", "traced", "--network", "test_tensor_order:backwards")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.index("z_stem") < done.stdout.index("a_head")
