"""Merges on the Hub from pull to pushed card, by the command line, against the local Hub over real HTTP."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Run
from huggingface_hub import HfApi, ModelCard, metadata_load, try_to_load_from_cache
from manifests import stored, write
from safetensors.numpy import load_file

import hf_lwmm
from hf_lwmm.localhub import Fault, LocalHub

CARD = "---\nlicense: {license}\nlibrary_name: transformers\n---\n# Model\n"


def test_the_main_job_from_pull_to_pushed_card(
    run: Run, hub_models: tuple[str, str], api: HfApi, tmp_path: Path
) -> None:
    a, b = hub_models
    code, out, _ = run("merge", a, b, "--anchor", a, "--push")
    repo = f"local/{a.split('/')[1]}-lwmm"
    assert code == 0 and repo in out, out
    assert set(api.list_repo_files(repo)) == {
        ".gitattributes", "README.md", "config.json", "hf_lwmm.yaml", "model.safetensors", "plots/layer_weights.png",
        "preprocessor_config.json",
    }  # fmt: skip
    assert [commit.title for commit in api.list_repo_commits(repo)][:-1] == ["Merge 2 models with hf-lwmm"]
    data = metadata_load(api.hf_hub_download(repo, "README.md"))
    assert data["base_model"] == [a, b] and data["base_model_relation"] == "merge"
    assert data["license"] == "mit" and data["pipeline_tag"] == "image-segmentation"
    assert data["library_name"] == "transformers" and "merge" in data["tags"] and "model-index" not in data
    card = ModelCard.load(repo)
    card.validate()
    for sha in (api.model_info(a).sha, api.model_info(b).sha):
        assert sha in card.text
    assert f"hf-lwmm reproduce {repo}" in card.text and "plots/layer_weights.png" in card.text
    assert str(tmp_path) not in card.content and list(tmp_path.iterdir()) == []

    from PIL import Image
    from transformers import SegformerForSemanticSegmentation, pipeline

    model, report = SegformerForSemanticSegmentation.from_pretrained(repo, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and model.config.id2label[0] == "road"
    masks = pipeline("image-segmentation", model=repo)(Image.new("RGB", (32, 32)))
    assert {mask["label"] for mask in masks} <= {"road", "sky"} and masks

    code, out, _ = run("reproduce", repo)
    assert code == 0 and "the bytes agree" in out
    code, out, _ = run("merge", a, b, "--anchor", a, "--push")
    assert code == 0 and "nothing was pushed" in out
    assert len(api.list_repo_commits(repo)) == 2


def test_sharded_and_changed_merges_are_reproduced_too(run: Run, hub_models: tuple[str, str], api: HfApi) -> None:
    repo = f"local/{hub_models[0].split('/')[1]}-sharded"
    options = ("--max-shard-size", "10KB", "--keep", "mit.stage0", "--head", "by-label", "--ramp", "power:2")
    assert run("merge", *hub_models, "--push", repo, *options, "--dtype", "float16")[0] == 0
    assert sum(name.endswith(".safetensors") for name in api.list_repo_files(repo)) > 1
    code, out, err = run("reproduce", repo)
    assert code == 0 and "the bytes agree" in out, (out, err)


def test_a_merged_folder_can_be_pushed_later_and_nothing_else(
    run: Run, hub_models: tuple[str, str], api: HfApi, tmp_path: Path
) -> None:
    assert run("merge", *hub_models, "--output", "out")[0] == 0
    pushed = hf_lwmm.push("out", f"local/{hub_models[0].split('/')[1]}-later")
    assert pushed.changed and "hf_lwmm.yaml" in api.list_repo_files(pushed.repo_id)
    assert not hf_lwmm.push("out", pushed.repo_id).changed
    (tmp_path / "other").mkdir()
    with pytest.raises(hf_lwmm.HfLwmmError, match="not a merged model"):
        hf_lwmm.push(tmp_path / "other", pushed.repo_id)


def test_a_full_plan_names_every_tensor_that_is_not_shared(run: Run, hub_models: tuple[str, str]) -> None:
    short, full = (
        run("plan", *hub_models, "--head", "anchor")[1],
        run("plan", *hub_models, "--head", "anchor", "--full")[1],
    )
    assert ", ..." in short and ", ..." not in full and "segformer.classifier.bias" in full


def test_a_push_that_fails_does_not_cost_the_finished_merge(
    run: Run, hub_models: tuple[str, str], hub: LocalHub
) -> None:
    hub.faults.append(Fault(path="/commit/", method="POST", status=403, times=9))
    code, _, err = run("merge", *hub_models, "--output", "out", "--push", "local/refused")
    assert code == 1 and "403" in err and Path("out/model.safetensors").is_file()


def test_a_changed_repository_is_not_reproduced(run: Run, hub_models: tuple[str, str], api: HfApi) -> None:
    repo = f"local/{hub_models[0].split('/')[1]}-tampered"
    assert run("merge", *hub_models, "--push", repo)[0] == 0
    path = Path(api.hf_hub_download(repo, "model.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    api.upload_file(path_or_fileobj=bytes(content), path_in_repo="model.safetensors", repo_id=repo)
    code, out, _ = run("reproduce", repo)
    assert code == 1 and "DIFFER" in out


def test_push_options_reach_the_hub(run: Run, hub_models: tuple[str, str], api: HfApi) -> None:
    repo = f"org/{hub_models[0].split('/')[1]}-options"
    options = ("--private", "--revision", "dev", "--commit-message", "Try this", "--license", "cc-by-4.0")
    assert run("merge", *hub_models, "--push", repo, *options)[0] == 0
    assert api.model_info(repo).private
    assert run("merge", *hub_models, "--push", f"{repo}-public", "--private", "--no-private")[0] == 0
    assert run("merge", *hub_models, "--dry-run", "--no-private", "--no-tune-streaming")[0] == 0
    assert not api.model_info(f"{repo}-public").private
    assert api.list_repo_commits(repo, revision="dev")[0].title == "Try this"
    assert "model.safetensors" not in api.list_repo_files(repo)
    assert metadata_load(api.hf_hub_download(repo, "README.md", revision="dev"))["license"] == "cc-by-4.0"
    code, out, _ = run("merge", *hub_models, "--push", hub_models[0], "--create-pr", "--json")
    pushed = json.loads(out)["pushed"]
    assert code == 0 and pushed["pull_request"].endswith("/discussions/1")
    assert "hf_lwmm.yaml" in api.list_repo_files(hub_models[0], revision="refs/pr/1")
    assert "hf_lwmm.yaml" not in api.list_repo_files(hub_models[0])


def test_without_push_a_folder_named_after_the_anchor_is_written(run: Run, hub_models: tuple[str, str]) -> None:
    a, b = hub_models
    code, out, err = run("merge", a, b, "--anchor", b)
    folder = Path(f"{b.split('/')[1]}-lwmm")
    assert code == 0 and str(folder) in out and (folder / "model.safetensors").is_file()
    assert "licence" not in err
    code, _, err = run("merge", a, b, "--anchor", b)
    assert code == 1 and "exists already" in err and "--overwrite" in err


def test_a_revision_is_fixed_to_its_commit_before_anything_else(
    run: Run, hub_models: tuple[str, str], api: HfApi, tiny_folders: tuple[Path, Path]
) -> None:
    a, b = hub_models
    api.create_tag(a, tag="v1")
    sha = api.model_info(a).sha
    api.upload_file(path_or_fileobj=tiny_folders[1] / "model.safetensors", path_in_repo="model.safetensors", repo_id=a)
    assert run("merge", f"{a}@v1", b, "--output", "old")[0] == 0
    assert run("merge", a, b, "--output", "new")[0] == 0
    recipe = yaml.safe_load(Path("old/hf_lwmm.yaml").read_text())
    assert recipe["models"][0]["model"] == f"{a}@{sha}" and recipe["anchor"] == f"{a}@{sha}"
    assert Path("old/model.safetensors").read_bytes() != Path("new/model.safetensors").read_bytes()
    assert run("merge", "--recipe", "old/hf_lwmm.yaml", "--output", "again")[0] == 0
    assert Path("old/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()


def test_a_recipe_written_by_hand_is_followed_and_a_wrong_one_refused(run: Run, hub_models: tuple[str, str]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump({"models": list(hub_models), "knobs": {"ramp": "cosine"}}))
    assert run("merge", "--recipe", "recipe.yaml", "--output", "out")[0] == 0
    assert yaml.safe_load(Path("out/hf_lwmm.yaml").read_text())["method"]["ramp"] == "cosine"
    assert run("merge", "--recipe", "recipe.yaml", "--output", "told", "--ramp", "linear")[0] == 0
    assert yaml.safe_load(Path("told/hf_lwmm.yaml").read_text())["method"]["ramp"] == "linear"
    for text, says in (
        ("models: 3", "not a recipe"),
        ("a: [", "not valid YAML"),
        ("{models: [a/b], knobs: {granularty: block}}", "knobs: has no 'granularty'. Did you mean granularity?"),
        ("{models: [a/b], anchr: a/b}", "has no 'anchr'. Did you mean anchor?"),
    ):
        Path("bad.yaml").write_text(text)
        code, _, err = run("merge", "--recipe", "bad.yaml")
        assert code == 1 and says in err
    assert run("merge", "--recipe", "none.yaml")[0] == 1


def test_plans_and_inspections_download_no_weights(
    run: Run, hub_models: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("hf_lwmm.checkpoints.checkpoint.Checkpoint.slot_values")  # statistics are not compared either
    code, out, _ = run("plan", *hub_models)
    assert code == 0 and "mit.stage0.embed.proj.weight" in out and "segformer.classifier.bias" in out
    code, out, _ = run("plan", *hub_models, "--json")
    plan = json.loads(out)
    assert plan["positions"] == max(s["position"] for s in plan["shared"]) and plan["unshared"]
    assert all(sum(s["weights"].values()) == pytest.approx(1) for s in plan["shared"])
    code, out, err = run("merge", *hub_models, "--dry-run")
    assert code == 0 and "nothing was merged" in err and not list(Path().iterdir())
    code, out, _ = run("inspect", *hub_models, "--json")
    first = json.loads(out)[0]
    assert code == 0 and first["layout"] == "mit/transformers + segformer/transformers"
    assert first["classes"] == ["road", "sky"] and first["license"] == "mit" and first["sha"]
    assert "road, sky" in run("inspect", hub_models[0])[1]
    assert not any(isinstance(try_to_load_from_cache(name, "model.safetensors"), str) for name in hub_models)


LICENCES = [
    ("mit", "apache-2.0", "mit", ["differ"]),
    ("mit", "cc-by-nc-4.0", "cc-by-nc-4.0", ["differ", "commercial"]),
    ("other\nlicense_name: nvidia\nlicense_link: https://example.org/l", "mit", "other", ["differ", "commercial"]),
]


@pytest.mark.parametrize(("first", "second", "merged", "warned"), LICENCES, ids=["free", "nc", "nvidia"])
def test_the_strictest_parent_licence_is_stated_and_warned_of(
    first: str, second: str, merged: str, warned: list[str], run: Run, hub_models: tuple[str, str], api: HfApi
) -> None:
    for repo, licence in zip(hub_models, (first, second), strict=True):
        text = CARD.format(license=licence).encode()
        api.upload_file(path_or_fileobj=text, path_in_repo="README.md", repo_id=repo)
    code, _, err = run("merge", *hub_models, "--output", "out")
    card = Path("out/README.md").read_text()
    data = metadata_load("out/README.md")
    assert code == 0 and data["license"] == merged
    assert all(word in err and word in card for word in warned)
    if "nvidia" in first:
        assert data["license_name"] == "nvidia" and data["license_link"] == "https://example.org/l"


def test_an_anchor_may_be_named_as_reports_name_it(run: Run, hub_models: tuple[str, str], api: HfApi) -> None:
    a, b = hub_models
    sha = str(api.model_info(b).sha)
    code, out, _ = run("plan", a, b, "--anchor", f"{b}@{sha[:7]}")
    assert code == 0 and f"2. {b}@{sha[:7]} (anchor)" in out
    code, _, err = run("plan", a, b, "--anchor", f"{b}@{'0' * 7}")
    assert code == 1 and f"The anchor {b}@0000000 is not among the models" in err


def test_layouts_mix_between_the_hub_and_local_files(run: Run, api: HfApi, tmp_path: Path) -> None:
    write(tmp_path / "up" / "model.safetensors", stored("smp_segformer_mit_b0", 2))
    api.create_repo("org/smp-b0", exist_ok=True)
    api.upload_folder(repo_id="org/smp-b0", folder_path=tmp_path / "up")
    local = write(tmp_path / "nvidia.safetensors", stored("nvlabs_segformer_b0", 1))
    code, _, err = run("merge", local, "org/smp-b0", "--anchor", local, "--output", "out")
    assert code == 0 and "no licence" in err, err
    result = load_file("out/model.safetensors")
    values = result["segformer.encoder.block.0.0.attention.self.value.weight"]
    assert not np.array_equal(values, load_file(local)["backbone.block1.0.attn.kv.weight"][len(values) :])
    card = Path("out/README.md").read_text()
    assert metadata_load("out/README.md")["base_model"] == ["org/smp-b0"]
    assert "a local file" in card and str(tmp_path) not in card
    cards = card.partition(", of which cards say more:\n")[2].partition(". What")[0]
    assert "org/smp" in cards and "nvidia" not in cards
    code, _, err = run("reproduce", "out")
    assert code == 1 and "nvidia.safetensors was a local file" in err


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--start", "0.25", "--alpha", "0.7", "--ramp", "power:2", "--granularity", "block", "--order", "file"),
        ("--head", "by-label", "--keep", "mit.stage0", "--keep", "segformer.classifier", "--dtype", "float16"),
        ("--share", "any", "--bn-stats", "pooled", "--permute", "--max-shard-size", "10KB"),
        ("--method", "ties", "--option", "density=0.3", "--option", "scale=0.7", "--base", "BASE"),
        ("--method", "slerp", "--option", "t=0.25"),
        ("--method", "isotropic", "--bn-stats", "anchor"),
    ],
    ids=lambda options: " ".join(options[:2]) or "defaults",
)
def test_the_command_on_the_card_makes_the_same_bytes(
    options: tuple[str, ...], run: Run, hub_models: tuple[str, str], tmp_path: Path
) -> None:
    given = [hub_models[1] if option == "BASE" else option for option in options]
    code, _, err = run("merge", *hub_models, "--anchor", hub_models[1], *given, "--output", "out")
    assert code == 0, err
    card = Path("out/README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("hf-lwmm merge ")]
    code, _, err = run(*shlex.split(line)[1:], "--output", "again")
    assert code == 0, (line, err)
    for path in sorted(Path("out").glob("*.safetensors")):
        assert path.read_bytes() == (Path("again") / path.name).read_bytes(), line
    first, again = (hf_lwmm.load_recipe(Path(folder) / "hf_lwmm.yaml") for folder in ("out", "again"))
    assert first == again


def test_code_of_the_anchor_is_not_copied_without_saying_so(run: Run, hub_models: tuple[str, str], api: HfApi) -> None:
    code = b"class Network: ...\n"
    config = json.loads(Path(api.hf_hub_download(hub_models[0], "config.json")).read_text())
    config["auto_map"] = {"AutoModelForSemanticSegmentation": "modeling_own.Network"}
    for name, content in (("modeling_own.py", code), ("config.json", json.dumps(config).encode())):
        api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id=hub_models[0])
    status, _, err = run("merge", *hub_models, "--output", "out")
    assert status == 0 and Path("out/modeling_own.py").read_bytes() == code
    assert f"Copied code of {hub_models[0]}" in err and "modeling_own.py" in err
    card = Path("out/README.md").read_text()
    assert f"The network's code (`modeling_own.py`) is a copy from [{hub_models[0]}]" in card
    status, _, err = run("merge", *reversed(hub_models), "--output", "other")
    assert status == 0 and "Copied code" not in err and not Path("other/modeling_own.py").exists()
