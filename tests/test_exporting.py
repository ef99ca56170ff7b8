"""Checkpoints as repositories that one line of transformers loads: their files, their code, their cards."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from fresh import Forks
from huggingface_hub import HfApi, ModelCard
from small_networks import LABELS, network, picture, saved, state
from tiny import segformer, tree
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor, pipeline

import hf_lwmm
from hf_lwmm import NetworkOptions
from hf_lwmm.networks import DAFormerForSemanticSegmentation

READ = """
import sys, torch
{imports}
from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation, AutoImageProcessor
for name in sys.argv[1:]:
    auto = AutoModelForUniversalSegmentation if name == "edaps" else AutoModelForSemanticSegmentation
    model, info = auto.from_pretrained(f"local/{{name}}-hub", {trust} output_loading_info=True)
    processor = AutoImageProcessor.from_pretrained(f"local/{{name}}-hub", {trust})
    assert not any(info.values()), info
    torch.manual_seed(0)
    with torch.no_grad():
        logits = model.eval()(torch.randn(1, 3, 64, 96)).logits
    print(":", type(model).__module__, type(processor).__name__, logits.double().sum().item())
"""


def test_a_converted_checkpoint_is_one_line_of_transformers(
    run: Run, hub: Any, api: HfApi, forks: Forks, tmp_path: Path
) -> None:
    models = {name: network(name) for name in ("daformer", "deeplab", "segformer", "edaps")}
    for name, model in models.items():
        if name == "edaps":
            hf_lwmm.export(saved(model, tmp_path / name), push="local/edaps-hub", license="mit")
            continue
        folder = tmp_path / name
        folder.mkdir()
        classes = {"CLASSES": ("road", "sky", "car")}
        torch.save({"state_dict": model.state_dict(), "meta": classes}, folder / "latest.pth")
        (folder / "README.md").write_text("---\nlicense: mit\n---\n")
        repo = api.create_repo(f"local/{name}-pth", exist_ok=True).repo_id
        api.upload_folder(repo_id=repo, folder_path=folder)
        system = ("--system", "adaptsegnet") if name == "deeplab" else ()
        code, _, err = run("convert", f"{repo}:latest.pth", "--push", f"local/{name}-hub", *system)
        assert code == 0, err
        card = api.model_info(f"local/{name}-hub").card_data
        assert card.base_model == [repo] and card.license == "mit" and card.library_name == "transformers"
    for imports, trust in (("import hf_lwmm.networks", ""), ("", "trust_remote_code=True,")):
        code = READ.format(imports=imports, trust=trust)
        done = forks.run(code, *models)
        assert done.returncode == 0, done.stderr
        read = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith(": ")]
        for (name, model), (module, processor, total) in zip(models.items(), read, strict=True):
            torch.manual_seed(0)
            with torch.no_grad():
                expected = model(torch.randn(1, 3, 64, 96)).logits.double().sum().item()
            assert float(total) == pytest.approx(expected, rel=1e-4, abs=1e-3)
            own = "transformers." if name == "segformer" else "hf_lwmm." if imports else "transformers_modules."
            assert module.startswith(own) and processor.startswith("Seg"), name


@pytest.mark.parametrize("name", ["daformer", "hrda", "edaps", "deeplab"])
def test_the_code_that_travels_needs_no_hf_lwmm(name: str, tmp_path: Path) -> None:
    hf_lwmm.export(saved(network(name), tmp_path / "model"), tmp_path / "out")
    files = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.py")}
    assert {f"{name}.py", "image_processing.py"} <= files.keys()
    assert not [file for file, text in files.items() if re.search(r"^\s*(from|import) hf_lwmm", text, re.MULTILINE)]


def test_a_conversion_changes_nothing_of_what_is_saved_later(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        saved(network("daformer", seed), tmp_path / name)
        hf_lwmm.export(tmp_path / name, tmp_path / f"{name}-out")
    later = saved(network("daformer", 2), tmp_path / "later")
    assert not list(later.glob("*.py")) and "auto_map" not in json.loads((later / "config.json").read_text())
    assert (later / "config.json").read_bytes() == (tmp_path / "two" / "config.json").read_bytes()


def test_conversion_keeps_every_bit_and_type(tmp_path: Path) -> None:
    model = network("daformer").half()
    torch.save(model.state_dict(), tmp_path / "half.pth")
    done = hf_lwmm.export(tmp_path / "half.pth", tmp_path / "out")
    assert done.notes[-1] == "The original states no licence: ask its author before using or sharing this model."
    assert done.folder == tmp_path / "out"
    again = DAFormerForSemanticSegmentation.from_pretrained(tmp_path / "out", dtype="auto")
    assert all(
        torch.equal(tensor, state(again)[key]) and tensor.dtype == torch.float16 for key, tensor in state(model).items()
    )


def test_the_command_on_the_card_converts_again(run: Run, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("road\nsky\ncar\n")
    torch.save(network("deeplab").state_dict(), tmp_path / "latest.pth")
    options = NetworkOptions(system="adaptsegnet", labels=("cityscapes19", str(tmp_path / "names.txt")), device="cpu")
    hf_lwmm.export(tmp_path / "latest.pth", tmp_path / "one", license="mit", network=options)
    card = (tmp_path / "one" / "README.md").read_text()
    assert 'model = AutoModelForSemanticSegmentation.from_pretrained("one", trust_remote_code=True)' in card
    assert str(tmp_path) not in card and "3 classes: road, sky, car." in card
    assert "in a form that `from_pretrained` of transformers loads" in card
    (command,) = (line for line in card.splitlines() if line.startswith("hf-lwmm convert "))
    assert command.split()[3:] == ["--system", "adaptsegnet", "--labels", "cityscapes19", "--labels", "road,sky,car"]
    shutil.copytree(tmp_path / "one", tmp_path / "latest")  # its code is a converted model's, and can be replaced
    code, _, err = run(*shlex.split(command)[1:], "--license", "mit", "--overwrite")
    assert code == 0, err
    for path in (tmp_path / "one").iterdir():
        again = (tmp_path / "latest" / path.name).read_text("latin1")
        assert again == path.read_text("latin1").replace('"one"', '"latest"').replace("# one", "# latest")


def test_a_converted_model_works_in_a_pipeline(tmp_path: Path) -> None:
    model = saved(network("daformer"), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config["quantization_config"] = {"load_in_4bit": True, "quant_method": "bitsandbytes"}  # of floats
    (model / "config.json").write_text(json.dumps(config))
    hf_lwmm.export(model, tmp_path / "out")
    segment = pipeline("image-segmentation", model=str(tmp_path / "out"))
    found = segment(picture())
    assert {each["label"] for each in found} <= {"road", "sky", "car"}
    ours = hf_lwmm.load(tmp_path / "out")
    outputs = ours.model(**ours.image_processor(picture(), return_tensors="pt"))
    (classes,) = ours.image_processor.post_process_semantic_segmentation(outputs, [(64, 96)])
    for each in found:
        mine = (classes == ours.classes.index(each["label"])).numpy()
        assert ((np.asarray(each["mask"]) > 0) == mine).all()


def test_a_detector_is_converted_with_a_card_of_its_task(tmp_path: Path) -> None:
    config = YolosConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=[32, 32],
        num_detection_tokens=3, **LABELS,
    )  # fmt: skip
    saved(YolosForObjectDetection(config), tmp_path / "model")
    YolosImageProcessor(do_resize=False, do_pad=False).save_pretrained(tmp_path / "model")
    done = hf_lwmm.export(tmp_path / "model", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert done.loaded.task == "detection" and "pipeline_tag: object-detection" in card
    assert 'AutoModelForObjectDetection.from_pretrained("out")' in card and not list((tmp_path / "out").glob("*.py"))


def test_a_merge_of_networks_keeps_the_code_that_travels_with_its_anchor(tmp_path: Path) -> None:
    folders = []
    for seed in (1, 2):
        torch.save(network("daformer", seed).state_dict(), tmp_path / f"{seed}.pth")
        hf_lwmm.export(
            tmp_path / f"{seed}.pth", tmp_path / f"model{seed}", network=NetworkOptions(labels=("road,sky,car",))
        )
        folders.append(tmp_path / f"model{seed}")
    hf_lwmm.merge(folders, output=tmp_path / "merged")
    assert {"daformer.py", "mit.py", "image_processing.py"} <= {path.name for path in (tmp_path / "merged").iterdir()}
    merged = hf_lwmm.load(tmp_path / "merged")
    one, other = (hf_lwmm.load(folder) for folder in folders)
    key = "segformer.stages.0.patch_embeddings.proj.weight"
    first, second, both = (state(loaded.model)[key] for loaded in (one, other, merged))
    torch.testing.assert_close(both, (first + second) / 2, rtol=0.02, atol=0.01)


def test_a_converted_merge_says_what_the_merge_did(run: Run, without_plots: None, tmp_path: Path) -> None:
    for seed in (1, 2):
        segformer(tmp_path / str(seed), seed)
        (tmp_path / str(seed) / "README.md").write_text("---\nlicense: mit\n---\n")
    scores = ("--eval-data", tree(tmp_path / "data", 2), "--examples", 1)
    code, _, err = run("merge", "1", "2", "--output", "merged", *scores)
    assert code == 0, err
    code, _, err = run("convert", "merged", "out")
    assert code == 0, err
    carried = {path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()}
    pictures = {path.relative_to("merged").as_posix() for path in Path("merged/plots").iterdir()}
    assert pictures and {"evaluation.json", "merge.yaml", *pictures} <= carried and "hf_lwmm.yaml" not in carried
    carried_on = hf_lwmm.load_recipe("out/merge.yaml")
    assert replace(carried_on, converted=None) == hf_lwmm.load_recipe("merged/hf_lwmm.yaml")
    before, after = ModelCard.load("merged/README.md"), ModelCard.load("out/README.md")
    assert "It is a merge of `1`, `2`." in after.text and json_verdict("merged") in after.text
    assert [each.metric_value for each in after.data.eval_results] == [e.metric_value for e in before.data.eval_results]
    assert after.data.license == "mit" and after.data.metrics == ["mean_iou"] and "merge" in after.data.tags
    assert after.data.base_model_relation == "merge" and hf_lwmm.load("out").is_merge
    (Path("merged") / "hf_lwmm.yaml").write_text("models: 3")  # no recipe
    assert run("convert", "merged", "again")[0] == 0 and not Path("again/merge.yaml").exists()


def json_verdict(folder: str) -> str:
    verdict: str = json.loads(Path(folder, "evaluation.json").read_text())["verdict"]["sentence"]
    return verdict
