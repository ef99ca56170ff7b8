"""Every merge loads in one line: what the card says runs in a process that has no hf_lwmm."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from calls import merge
from conftest import Run
from fresh import Forks
from safetensors.torch import load_file
from small_networks import LABELS, MIT, network

import hf_lwmm
from hf_lwmm.describing.network_fields import SYSTEM_FIELDS
from hf_lwmm.networks import (
    BottleneckConfig,
    BottleneckForImageClassification,
    DeepLabV2Config,
    DeepLabV2ForSemanticSegmentation,
    EDAPSConfig,
    EDAPSForPanopticSegmentation,
    SegformerMMSegConfig,
    SegformerMMSegForSemanticSegmentation,
)

pytestmark = pytest.mark.usefixtures("without_plots")

CITY = hf_lwmm.read_label_set("cityscapes19")
RESNET: dict[str, Any] = {"depths": (1, 1, 1, 1), "width": 8, **LABELS}


def deeplab(system: str, **options: Any) -> DeepLabV2ForSemanticSegmentation:
    fields = {**RESNET, **SYSTEM_FIELDS[system], **options}
    return DeepLabV2ForSemanticSegmentation(DeepLabV2Config(system=system, **fields))


def edaps(decoder: Literal["boxes", "centers"]) -> EDAPSForPanopticSegmentation:
    """A network for all classes of Cityscapes, whose things a checkpoint does not name."""
    things = [CITY.classes.index(name) for name in CITY.things]
    labels = {**MIT, "id2label": dict(enumerate(CITY.classes))}
    sizes = {"embedding_size": 8, "decoder_hidden_size": 8, "fpn_hidden_size": 8, "box_hidden_size": 16}
    return EDAPSForPanopticSegmentation(
        EDAPSConfig(instance_decoder=decoder, mask_hidden_size=8, thing_ids=things, **sizes, **labels)
    )


OTHERS: dict[str, Callable[[], Any]] = {
    "edaps": lambda: edaps("boxes"),
    "bottom-up": lambda: edaps("centers"),
    "mmseg": lambda: SegformerMMSegForSemanticSegmentation(SegformerMMSegConfig(decoder_hidden_size=8, **MIT)),
    "diga": lambda: deeplab("diga"),
    "fada": lambda: deeplab("fada"),
    "vgg": lambda: deeplab("adaptsegnet", backbone="vgg16"),
    "bottleneck": lambda: BottleneckForImageClassification(BottleneckConfig(bottleneck_size=8, **RESNET)),
}
# By network: the code base whose names its checkpoints have; those of the others are the network's own.
CODE_BASES = {
    "segformer": "nvidia", "daformer": "daformer", "hrda": "hrda", "edaps": "edaps", "bottom-up": "edaps-bottomup",
    "mmseg": "mmseg", "fada": "fada",
}  # fmt: skip
SYSTEMS = {"deeplab": "adaptsegnet", "vgg": "adaptsegnet", "fada": "fada"}  # which names alone do not tell
NAMES = ("segformer", "daformer", "hrda", "deeplab", *OTHERS)


def made(name: str, seed: int) -> Any:
    torch.manual_seed(seed)
    model = OTHERS[name]().eval() if name in OTHERS else network(name, seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and name in OTHERS:
            tensor += 0.05 * torch.rand_like(tensor)
    return model


def classes_of(name: str) -> tuple[str, ...]:
    return CITY.classes if name in ("edaps", "bottom-up") else ("road", "sky", "car")


def checkpoint(name: str, folder: Path, seed: int) -> Path:
    """A file as the code base that trains the network leaves it: a state dict under its names, and the classes."""
    folder.mkdir(parents=True, exist_ok=True)
    own, file = folder / "own.pth", folder / f"{name}{seed}.pth"
    torch.save(made(name, seed).state_dict(), own)
    state = torch.load(own)
    if name in CODE_BASES:
        hf_lwmm.convert(own, folder / "named.safetensors", to=CODE_BASES[name], overwrite=True)
        state = load_file(folder / "named.safetensors")
    torch.save({"state_dict": state, "meta": {"CLASSES": classes_of(name)}}, file)
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("files")
    return {name: [checkpoint(name, folder / name, seed) for seed in (1, 2)] for name in NAMES}


SNIPPETS = """
import json, sys, types
sys.modules["hf_lwmm"] = None  # importing it is an error
import torch
from PIL import Image
for name in ("street.jpg", "picture.jpg"):
    Image.new("RGB", (96, 64), "gray").save(name)
for name, code in json.load(open("snippets.json")).items():
    found = {}
    exec(compile(code, name, "exec"), found)
    model = found["model"] if "model" in found else found["segment"].model
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 3, 64, 96)).logits
    names = sorted(model.config.id2label.values())
    print(json.dumps([name, type(model).__module__, names, logits.double().abs().sum().item()]))
"""


def test_pth_in_and_a_repository_out_that_its_card_loads(files: dict[str, list[Path]], run: Run, forks: Forks) -> None:
    snippets, expected = {}, {}
    for name, models in files.items():
        system = SYSTEMS.get(name)
        code, _, err = run("merge", *models, "--output", name, *(("--system", system) if system else ()))
        assert code == 0, err
        card = Path(name, "README.md").read_text()
        (snippets[name],) = re.findall("```python\n(.*?)\n```", card, re.DOTALL)
        assert ("trust_remote_code=True" in snippets[name]) == (name != "segformer") and "hf_lwmm" not in snippets[name]
        assert "library_name: transformers" in card
        code, _, err = run("merge", *models, "--output", f"{name}-named", "--format", "safetensors")
        assert code == 0 and not Path(f"{name}-named", "config.json").exists(), err
        loaded = hf_lwmm.load(f"{name}-named", hf_lwmm.NetworkOptions(labels=(classes_of(name),), system=system))
        torch.manual_seed(0)
        with torch.no_grad():
            expected[name] = loaded.model(torch.randn(1, 3, 64, 96)).logits.double().abs().sum().item()
    Path("snippets.json").write_text(json.dumps(snippets))
    done = forks.run(SNIPPETS)
    assert done.returncode == 0, done.stderr
    read = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [each[0] for each in read] == list(files)
    for name, module, names, total in read:
        assert names == sorted(classes_of(name)) and not module.startswith("hf_lwmm")
        assert total == pytest.approx(expected[name], rel=1e-4), name


def test_a_merge_of_files_knows_what_its_files_did(files: dict[str, list[Path]], tmp_path: Path) -> None:
    merge(files["segformer"], output=tmp_path / "out")
    loaded = hf_lwmm.load(tmp_path / "out")
    before = hf_lwmm.load(files["segformer"][0])
    assert loaded.classes == ("road", "sky", "car") and loaded.preparation == before.preparation and not loaded.notes
    hf_lwmm.export(tmp_path / "out", tmp_path / "converted")
    assert hf_lwmm.load(tmp_path / "converted").classes == loaded.classes


def test_the_recipe_says_under_which_names_the_tensors_are(files: dict[str, list[Path]], tmp_path: Path) -> None:
    new = merge(files["segformer"], output=tmp_path / "new")
    old = merge(files["segformer"], output=tmp_path / "old", format="safetensors")
    for result, names in ((new, "segformer.encoder."), (old, "backbone.")):
        assert result.folder is not None
        assert any(name.startswith(names) for name in load_file(result.folder / "model.safetensors"))
        recipe = hf_lwmm.load_recipe(result.folder / "hf_lwmm.yaml")
        assert recipe == result.recipe
        again = hf_lwmm.merge(
            files["segformer"],
            knobs=recipe.knobs,
            inputs=recipe.inputs,
            output=tmp_path / "again",
            writing=hf_lwmm.WriteOptions(recipe.files.format, overwrite=True),
        )
        assert again.recipe.output == recipe.output and again.recipe.beside == recipe.beside
    assert "format: transformers" in new.recipe.to_yaml() and "format" not in old.recipe.to_yaml()


def test_code_travels_with_a_network_whose_anchor_has_none(tmp_path: Path) -> None:
    for seed in (1, 2):
        network("daformer", seed).save_pretrained(tmp_path / str(seed))
    result = merge([tmp_path / "1", tmp_path / "2"], output=tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["auto_map"]["AutoConfig"] == "daformer.DAFormerConfig" and config["depths"] == [1, 1, 1, 1]
    assert {"daformer.py", "mit.py", "layers.py", "image_processing.py"} <= {
        p.name for p in (tmp_path / "out").iterdir()
    }
    assert "The network is none of transformers': its code" in result.card


def test_a_system_is_refused_for_other_networks(files: dict[str, list[Path]], run: Run) -> None:
    code, _, err = run("merge", *files["segformer"], "--system", "advent", "--output", "out")
    assert code == 1 and "--system advent does not apply" in err and not Path("out").exists()


def test_running_statistics_are_estimated_under_the_networks_names(
    files: dict[str, list[Path]], bare: Path, tmp_path: Path
) -> None:
    images = hf_lwmm.ImageSource(bare, limit=2)
    options: dict[str, Any] = {"bn_stats": "recalibrate", "bn_mix": 1.0, "bn_images": images}
    new = merge(files["segformer"], output=tmp_path / "new", **options)
    merge(files["segformer"], output=tmp_path / "old", format="safetensors", **options)
    one, other = (hf_lwmm.load(tmp_path / name).model.state_dict() for name in ("new", "old"))
    assert one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    plain = hf_lwmm.load(merge(files["segformer"], output=tmp_path / "plain").folder).model.state_dict()
    mean = "decode_head.batch_norm.running_mean"
    assert not torch.equal(one[mean], plain[mean]) and new.recipe.bn_images is not None


def test_shapes_that_make_no_network_are_merged_under_their_own_names(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    """A first patch embedding of no channels has no width that others could be multiples of."""
    odd = []
    for number, file in enumerate(files["segformer"]):
        state = torch.load(file)["state_dict"]
        name = "backbone.patch_embed1.proj.weight"
        odd.append(tmp_path / f"{number}.pth")
        torch.save({**state, name: state[name][:0]}, odd[-1])
    result = merge(odd, output=tmp_path / "out")
    assert result.folder is not None and not (result.folder / "config.json").exists()
    assert name in load_file(result.folder / "model.safetensors")
    assert any("would not load it as SegFormer: its shapes make none." in note for note in result.notes)
