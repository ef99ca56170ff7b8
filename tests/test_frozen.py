"""The bytes of merges do not change from version to version: hashes of merged files, frozen with hf-lwmm 0.1.0."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manifests import drawn, slot_map, stored, write
from safetensors.numpy import save_file

import hf_lwmm

pytestmark = pytest.mark.usefixtures("without_plots")

_GOLDEN = Path(__file__).parent / "golden" / "merged_hashes.json"
_B0 = ("transformers_segformer_b0_hub_legacy", "nvlabs_segformer_b0", "smp_segformer_mit_b0")
_R101 = ("advent_deeplabv2_r101_multi",) * 2
_GLC = ("glc_sfunida_resnet50",) * 2


@dataclass(frozen=True)
class Case:
    """A merge of seeded models, in layers narrower by a factor."""

    systems: tuple[str, ...] = _B0[:2]
    method: hf_lwmm.Method = field(default=hf_lwmm.Layerwise())
    knobs: dict[str, Any] = field(default_factory=dict)
    base: bool = False
    measured: str = ""
    shrink: int = 8


CASES = {
    "layerwise-two": Case(),
    "layerwise-three": Case(_B0),
    "layerwise-other-anchor-layout": Case((_B0[1], _B0[0])),
    "layerwise-mmseg": Case(("mmseg1x_segformer_b0", _B0[1])),
    "layerwise-cosine": Case(method=hf_lwmm.Layerwise(ramp="cosine")),
    "layerwise-step": Case(method=hf_lwmm.Layerwise(ramp="step")),
    "layerwise-power": Case(method=hf_lwmm.Layerwise(ramp="power:2.5")),
    "layerwise-start-alpha": Case(_B0, hf_lwmm.Layerwise(start=0.25, alpha=0.6)),
    "layerwise-module": Case(knobs={"granularity": "module"}),
    "layerwise-block": Case(knobs={"granularity": "block"}),
    "layerwise-stage": Case(knobs={"granularity": "stage"}),
    "layerwise-file-order": Case(knobs={"order": "file"}),
    "layerwise-any": Case(_B0, knobs={"share": "any"}),
    "layerwise-head-anchor": Case(knobs={"head": "anchor"}),
    "layerwise-float16": Case(knobs={"dtype": "float16"}),
    "layerwise-bfloat16": Case(knobs={"dtype": "bfloat16"}),
    "layerwise-float64": Case(knobs={"dtype": "float64"}),
    "layerwise-keep": Case(knobs={"keep": ["mit.stage0"]}),
    "layerwise-pooled": Case(_B0, knobs={"bn_stats": "pooled"}),
    "layerwise-bn-anchor": Case(_B0, knobs={"bn_stats": "anchor"}),
    "resnet-layerwise": Case(_R101, shrink=16),
    "resnet-mixed": Case(("diga_segmodel_r101", "advent_deeplabv2_r101_multi", "fada_r101"), shrink=16),
    "resnet-pooled": Case(_R101, knobs={"bn_stats": "pooled"}, shrink=16),
    "weight-norm": Case(_GLC, shrink=16),
    "isotropic": Case(_B0, hf_lwmm.Isotropic()),
    "fisher": Case(method=hf_lwmm.Fisher(), measured="fisher"),
    "task-arithmetic": Case(method=hf_lwmm.TaskArithmetic(), base=True),
    "ties": Case(_B0, hf_lwmm.Ties(density=0.3), base=True),
    "dare": Case(method=hf_lwmm.Dare(seed=3), base=True),
    "breadcrumbs": Case(method=hf_lwmm.Breadcrumbs(), base=True),
    "lines": Case(method=hf_lwmm.Lines(), base=True),
    "model-stock": Case(_B0, hf_lwmm.ModelStock(), base=True),
    "slerp": Case(method=hf_lwmm.Slerp(t=0.3)),
    "slerp-weight-norm": Case(_GLC, hf_lwmm.Slerp(), shrink=16),
}
# These go through BLAS, whose sums may end in other bits on another machine.
INEXACT = {
    "regmean": Case(_R101, hf_lwmm.RegMean(), measured="grams", shrink=32),  # no layer has 2,048 inputs
    "permutation": Case(method=hf_lwmm.Permutation(), shrink=16),
    "isotropic-permute-resnet": Case(_R101, hf_lwmm.Isotropic(), {"permute": True}, shrink=16),
}


@pytest.mark.parametrize("name", CASES)
def test_merged_bytes_are_those_of_the_first_version(name: str, tmp_path: Path) -> None:
    assert CASES[name].method.exact
    assert merged_hash(CASES[name], tmp_path) == json.loads(_GOLDEN.read_text())[name]


def test_slerp_gives_the_same_bytes_whatever_the_processor_can(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{seed}.safetensors", stored(_B0[0], seed, shrink=8)) for seed in (1, 2)]
    command = [sys.executable, "-m", "hf_lwmm", "merge", *map(str, paths), "--method", "slerp", "--dtype", "float64"]
    for name, missing in (("all", ""), ("few", "X86_V4 X86_V3 AVX512_ICL AVX512_SPR AVX512_SKX AVX512F AVX2 FMA3")):
        environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": missing}
        subprocess.run([*command, "--output", str(tmp_path / name)], env=environment, check=True, capture_output=True)
    every, few = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("all", "few"))
    assert every == few


@pytest.mark.parametrize("name", INEXACT)
def test_merges_through_blas_are_repeated_to_the_bit_on_one_machine(name: str, tmp_path: Path) -> None:
    case = INEXACT[name]
    assert not case.method.exact or case.knobs
    assert merged_hash(case, tmp_path / "one") == merged_hash(case, tmp_path / "two")


def merged_hash(case: Case, folder: Path) -> str:
    """The SHA-256 of the file that a case's merge writes."""
    paths = [
        write(folder / f"m{index}.safetensors", stored(system, index + 1, shrink=case.shrink))
        for index, system in enumerate(case.systems)
    ]
    base = write(folder / "base.safetensors", stored(case.systems[0], 0, shrink=case.shrink)) if case.base else None
    measured = [
        measurements(folder / f"s{index}.safetensors", system, case, index)
        for index, system in enumerate(case.systems)
        if case.measured
    ]
    hf_lwmm.merge(
        paths,
        knobs=hf_lwmm.Knobs(method=case.method, **case.knobs),
        inputs=hf_lwmm.MergeInputs(base=base, measurements=tuple(measured)),
        output=folder / "out",
        writing=hf_lwmm.WriteOptions(format="safetensors"),  # the only one of the first version
    )
    return hashlib.sha256((folder / "out" / "model.safetensors").read_bytes()).hexdigest()


def measurements(path: Path, system: str, case: Case, seed: int) -> Path:
    """A file of positive Fisher information or Gram matrices for every slot of a system."""
    found = {}
    for slot, atom in slot_map(system, case.shrink).slots.items():
        if slot.endswith(("running_mean", "running_var", "num_batches_tracked")):
            continue
        if case.measured == "fisher":
            found[slot] = np.abs(drawn("f" + slot, atom.shape, seed))
        elif len(atom.shape) >= 2:
            width = math.prod(atom.shape[1:])
            inputs = drawn("g" + slot, (2 * width, width), seed)
            found[slot] = np.asarray(inputs.T @ inputs, np.float32)
    save_file(found, path)
    return path
