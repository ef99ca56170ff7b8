"""Finding models that can merge, on a local Hub over real HTTP."""

from __future__ import annotations

import io
import json
import sys

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from manifests import stored
from safetensors.numpy import save

import hf_lwmm
from hf_lwmm.cli import main
from hf_lwmm.errors import HubError, PlanError
from hf_lwmm.localhub import Fault, LocalHub

B0 = ("transformers_segformer_b0_hub_legacy", "nvlabs_segformer_b0", "mmseg1x_segformer_b0", "smp_segformer_mit_b0")
ROAD_SKY = {"0": "road", "1": "sky"}
CARD = "---\nlicense: {licence}\npipeline_tag: image-segmentation\n{more}---\n# Model\n"


def _small_segformer(classes: int, width: int = 8) -> bytes:
    """The weights of a SegFormer of 1-1 blocks, as transformers saves them."""
    import torch
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    torch.manual_seed(0)
    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[width, 2 * width], num_attention_heads=[1, 2],
        sr_ratios=[4, 2],
        patch_sizes=[7, 3], strides=[4, 2], mlp_ratios=[2, 2], decoder_hidden_size=8, num_labels=classes,
    )  # fmt: skip
    state = SegformerForSemanticSegmentation(config).state_dict()
    return save({name: tensor.numpy() for name, tensor in state.items()})


def _torch_file(weights: bytes) -> bytes:
    """The same weights in a container of mmcv."""
    import torch
    from safetensors.torch import load

    file = io.BytesIO()
    torch.save({"meta": {}, "state_dict": load(weights)}, file)
    return file.getvalue()


def _upload(api: HfApi, name: str, files: dict[str, bytes], licence: str = "mit", more: str = "") -> str:
    repo_id = f"search/{name}"
    api.create_repo(repo_id)
    files = {"README.md": CARD.format(licence=licence, more=more).encode(), **files}
    api.create_commit(
        repo_id, [CommitOperationAdd(path, content) for path, content in files.items()], commit_message="."
    )
    return repo_id


@pytest.fixture(scope="module")
def zoo(_served: LocalHub) -> HfApi:
    """Repositories of several architectures and layouts, labels and file kinds."""
    _served.add_user("search", token="hf_search")
    api = HfApi(endpoint=_served.endpoint, token="hf_search")
    two, three = _small_segformer(2), _small_segformer(3)
    kind = {"model_type": "segformer", "depths": [1, 1], "hidden_sizes": [8, 16]}
    names = json.dumps({**kind, "id2label": ROAD_SKY}).encode()
    others = json.dumps({**kind, "id2label": {"0": "cat", "1": "dog"}}).encode()
    _upload(api, "roads", {"model.safetensors": two, "config.json": names})
    _upload(api, "roads-too", {"model.safetensors": two, "config.json": names}, licence="apache-2.0")
    _upload(api, "pets", {"model.safetensors": two, "config.json": others})
    several = {"model.safetensors": three, "config.json": json.dumps(kind).encode()}
    _upload(api, "three", several, licence="[mit, apache-2.0]")
    _upload(api, "wide", {"model.safetensors": _small_segformer(2, 16), "config.json": names})
    _upload(api, "torch-only", {"latest.pth": _torch_file(two), "config.json": names})
    _upload(api, "torch-broken", {"pytorch_model.bin": b"PK never whole", "config.json": b"{}"})
    _upload(api, "no-weights", {"config.json": names})
    _upload(api, "broken", {"model.safetensors": b"\xff" * 40, "config.json": names})
    api.create_repo("search/secret", private=True)
    for system in ("dinov2_vits14", "dinov2_vits14_reg4"):
        arrays = stored(system, shrink=16)
        if "pos_embed" in arrays:  # of a square grid, which makes it known
            arrays["pos_embed"] = arrays["pos_embed"][:, :5].copy()
        _upload(api, system, {"model.safetensors": save(arrays)})
    for system in B0:
        _upload(api, system, {"model.safetensors": save(stored(system, shrink=8))}, more="library_name: x\n")
    return api


def _names(found: hf_lwmm.Search) -> set[str]:
    return {each.repo.split("/")[1] for each in found.candidates if each.repo.startswith("search/")}


def test_models_like_another_are_found_with_what_is_needed_to_choose(zoo: HfApi) -> None:
    found = hf_lwmm.search(like="search/roads", limit=1000, scan=1000)
    assert len(repr(found)) < 400 and " can merge with search/roads@" in repr(found)
    assert _names(found) == {"roads-too", "pets", "three", "torch-only"}
    rows = {each.repo: each for each in found.candidates}
    same, pets, three = rows["search/roads-too"], rows["search/pets"], rows["search/three"]
    assert same.same_labels is True and same.shared == pytest.approx(1, abs=1e-3) and same.licence == "apache-2.0"
    assert same.architecture == "MiT with 1-1 blocks, SegFormer head" and same.layout and same.downloads == 0
    assert pets.same_labels is False and pets.classes == ("cat", "dog") and pets.shared and 0.9 < pets.shared < 1
    assert three.same_labels is None and three.classes is None and three.rows == 3
    assert three.licence == "mit, apache-2.0"
    assert same.sha == zoo.model_info("search/roads-too").sha
    torch_file = rows["search/torch-only"]
    assert torch_file.shared == same.shared and torch_file.layout == same.layout and torch_file.same_labels is True


def test_a_backbone_is_found_in_every_layout(zoo: HfApi) -> None:
    found = hf_lwmm.search("mit-b0", limit=1000, scan=1000)
    assert _names(found) == set(B0)
    layouts = {each.layout for each in found.candidates if each.repo.split("/")[1] in B0}
    assert {str(layout).split(" + ")[0] for layout in layouts} == {
        "mit/transformers", "mit/nvidia", "mit/mmseg", "mit/smp"
    }  # fmt: skip
    assert all(each.shared and 0.2 < each.shared < 1 for each in found.candidates if each.layout)
    family = hf_lwmm.search("MiT", limit=1000, scan=1000)
    assert _names(family) >= {*B0, "roads", "torch-only", "wide"}
    assert _names(hf_lwmm.search("resnet-101", limit=1000, scan=1000)) == set()


def test_a_family_among_its_kin_is_found_by_its_name(zoo: HfApi) -> None:
    everything = {"limit": 1000, "scan": 1000}
    assert _names(hf_lwmm.search("dinov2", **everything)) == {"dinov2_vits14", "dinov2_vits14_reg4"}
    assert _names(hf_lwmm.search("vit", **everything)) == set()
    assert _names(hf_lwmm.search(like="search/dinov2_vits14", **everything)) == {"dinov2_vits14_reg4"}


def test_what_cannot_be_judged_is_counted_with_the_reason(zoo: HfApi) -> None:
    unread = hf_lwmm.search("mit", limit=1000, scan=1000).unread
    mine = {name.split("/")[1]: reason for name, reason in unread.items() if name.startswith("search/")}
    assert set(mine) == {"torch-broken", "no-weights", "broken"}
    assert "damaged torch file" in mine["torch-broken"] and "no weights found" in mine["no-weights"]


def test_weights_are_not_downloaded(zoo: HfApi) -> None:
    from huggingface_hub import try_to_load_from_cache

    hf_lwmm.search("mit-b0", limit=1000, scan=1000)
    sha = zoo.model_info(f"search/{B0[0]}").sha
    assert try_to_load_from_cache(f"search/{B0[0]}", "model.safetensors", revision=sha) is None


def test_classes_are_compared_with_a_label_set(zoo: HfApi) -> None:
    found = hf_lwmm.search("mit", labels=["Road", "sky"], limit=1000, scan=1000)
    same = {each.repo.split("/")[1]: each.same_labels for each in found.candidates}
    assert same["roads"] is True and same["pets"] is False and same["three"] is None


def test_limits_are_kept(zoo: HfApi) -> None:
    assert len(hf_lwmm.search("mit", limit=1).candidates) == 1
    assert hf_lwmm.search("mit", limit=1000, scan=3).looked_at == 3


def test_a_search_names_one_thing_that_exists(zoo: HfApi) -> None:
    for arguments in ({}, {"backbone": "mit", "like": "search/roads"}):
        with pytest.raises(PlanError, match="one of the two"):
            hf_lwmm.search(**arguments)  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="not one of MiT, MiT-B0"):
        hf_lwmm.search("mitten")
    with pytest.raises(HubError, match="no such model"):
        hf_lwmm.search(like="search/nothing")


def test_a_hub_that_fails_is_said(hub: LocalHub, zoo: HfApi) -> None:
    hub.faults.append(Fault("/api/models", status=403))
    with pytest.raises(HubError, match="list of models"):
        hf_lwmm.search("mit")


def test_the_command_prints_a_table_or_json(
    zoo: HfApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-lwmm", "search", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0
        out, err = capsys.readouterr()
        return out, err

    everything = ("--limit", "1000", "--scan", "1000")
    data = json.loads(run("--like", "search/roads", "--json", *everything)[0])
    assert {"repo", "architecture", "layout", "classes", "licence", "downloads", "shared"} <= set(data["candidates"][0])
    monkeypatch.setenv("COLUMNS", "200")
    out, err = run("--backbone", "mit", *everything)
    assert "search/roads" in out and "search/torch-only" in out and "can merge with mit" in err
    assert "Not judged" in err


def test_lists_of_the_local_hub_are_filtered_as_on_the_hub(zoo: HfApi, hub: LocalHub) -> None:
    def listed(**arguments: object) -> set[str]:
        return {info.id for info in zoo.list_models(author="search", **arguments)}  # type: ignore[arg-type]

    assert "search/roads" in listed(filter="segformer") and "search/torch-broken" not in listed(filter="segformer")
    assert listed(filter=["segformer", "license:apache-2.0"]) == {"search/roads-too"}
    assert listed(pipeline_tag="text-generation") == set()
    assert "search/secret" in listed()
    assert "search/secret" not in {info.id for info in HfApi(endpoint=hub.endpoint, token=False).list_models()}
    some = next(iter(zoo.list_models(author="search", filter="segformer", expand=["config", "downloads"])))
    assert some.config and some.config["model_type"] == "segformer" and some.downloads == 0 and some.sha is None
    assert httpx2.get(f"{hub.endpoint}/api/models?limit=1").links.get("next")


def test_a_family_is_found_whatever_its_members_are_called(zoo: HfApi) -> None:
    import timm

    state = timm.create_model("mobilenetv2_035", num_classes=0).state_dict()
    _upload(zoo, "mobile", {"model.safetensors": save({name: tensor.numpy() for name, tensor in state.items()})})
    for name in ("mobilenetv2", "MBConv network"):
        assert _names(hf_lwmm.search(name, limit=1000, scan=1000)) == {"mobile"}
