"""Sweeps: every candidate's score is that of the merge itself, and a sweep can be killed, spread and extended."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calls import merge
from click.testing import CliRunner
from sweeps import paths, write_world
from tiny import NAMES

import hf_lwmm
from hf_lwmm import (
    EvaluationSpec,
    ImageSource,
    Knobs,
    Layerwise,
    MergeInputs,
    SweepAxes,
    SweepReport,
    SweepRun,
    sweeping,
)
from hf_lwmm.cli import app
from hf_lwmm.errors import CheckpointError, PlanError, SweepError
from hf_lwmm.hub import ModelRef
from hf_lwmm.sweeping.executor import Processes
from hf_lwmm.sweeping.grid import read_candidate, singles
from hf_lwmm.sweeping.scorer import SweepSetup


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def rows(found: SweepReport) -> list[tuple[Any, ...]]:
    """Return the parts of the table that do not depend on the machine."""
    return [(row.rank, row.name, row.score, row.interval, row.difference_interval) for row in found.rows]


def test_a_score_is_that_of_the_merge_itself(world: Path, tmp_path: Path) -> None:
    found = hf_lwmm.sweep(
        paths(world),
        world / "data",
        tmp_path / "sweep.parquet",
        axes=SweepAxes(
            methods=("layerwise", "task-arithmetic", "permutation"),
            start=(0, 0.5),
            options=("scale=0.3",),
            ensemble=True,
            subsets="whole",
        ),
        inputs=MergeInputs(base=world / "base"),
    )
    # 3 models, an ensemble, and for each of 3 anchors 2 starts and 2 other methods
    assert len(found.rows) == 3 + 1 + 3 * 4 and not found.skipped
    by_name = {row.name: row for row in found.rows}
    apart: dict[str, dict[str, Any]] = {
        "layerwise of one, two*, three, start=0.5": {"start": 0.5},
        "task-arithmetic of one, two*, three, scale=0.3": {
            "method": "task-arithmetic", "option": {"scale": 0.3}, "base": world / "base"
        },
        "permutation of one, two*, three": {"method": "permutation"},
    }  # fmt: skip
    names = ["one", "two", "three"]
    for number, how in enumerate(apart.values()):
        merge(paths(world), anchor=world / "two", output=tmp_path / str(number), **how)
    evaluated = hf_lwmm.evaluate([*paths(world), *(tmp_path / str(number) for number in range(3))], world / "data")
    alone = hf_lwmm.evaluate(paths(world), world / "data", evaluation=EvaluationSpec(ensemble=True))
    assert evaluated is not None and alone is not None
    for scored, name in zip(evaluated.models, [*names, *apart], strict=False):
        assert by_name[name].score == scored.mean and by_name[name].interval == scored.interval, name
        np.testing.assert_array_equal(by_name[name].by_class, scored.by_class)
    assert by_name["ensemble of one, two, three"].score == alone.models[-1].mean
    assert len({row.score for row in found.rows}) > 5  # the models differ in what they see
    assert [row.score for row in found.rows] == sorted((row.score for row in found.rows), reverse=True)
    best = max(names, key=lambda name: by_name[name].score)
    assert by_name[best].difference is None
    assert all(row.difference == pytest.approx(row.score - by_name[best].score) for row in found.rows if row.difference)


def test_the_parquet_file_has_the_columns_that_are_told(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "sweep.parquet"
    found = hf_lwmm.sweep(
        paths(world), ImageSource(world / "data", limit=2), file, inputs=MergeInputs(base=world / "base"),
        axes=SweepAxes(
            anchors="first", methods=("layerwise", "ties"), alpha=(None, 0.7), options=("density=0.5",), ensemble=True
        ),
    )  # fmt: skip
    table = pq.read_table(file)
    told = re.findall(r"^\| ([\w, ]+) \| (?!type)", str(sweeping.__doc__), flags=re.M)
    assert table.column_names == [name.strip() for names in told for name in names.split(",")]
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.parquet"]
    assert len(repr(found)) < 300 and f"{found.best.name} {100 * found.best.score:.2f}" in repr(found)
    in_pandas = found.to_pandas()
    assert list(in_pandas) == [name for name in table.column_names if name in in_pandas] and len(in_pandas) == len(
        table
    )
    entries = table.to_pylist()
    assert [entry["candidate"] for entry in entries] == [row.name for row in found.rows]
    by_name = {entry["candidate"]: entry for entry in entries}
    pair = by_name["layerwise of one*, two"]
    assert (pair["anchor"], pair["models"], pair["method"]) == ("one", ["one", "two"], "layerwise")
    assert (pair["start"], pair["alpha"], pair["ramp"], pair["bn_stats"]) == (0, 0.5, "linear", "linear")
    assert pair["options"] == []
    assert by_name["layerwise of one*, two, alpha=0.7"]["alpha"] == 0.7
    ties = by_name["ties of one*, two, density=0.5"]
    assert dict(ties["options"]) == {"density": 0.5, "scale": 1.0} and ties["start"] is None
    for name, kind in (
        ("one", "model"),
        ("ensemble of one, two", "ensemble"),
        ("ties of one*, three, density=0.5", "merge"),
    ):
        assert by_name[name]["kind"] == kind
    assert by_name["one"]["method"] is None and by_name["ensemble of one, two"]["anchor"] is None
    for entry, row in zip(entries, found.rows, strict=True):
        assert entry["score"] == row.score and (entry["low"], entry["high"]) == tuple(row.interval)
        counts = np.reshape(entry["counts"], entry["counts_shape"])
        assert counts.shape[:2] == (2, len(NAMES)) and entry["classes"] == list(NAMES)
        np.testing.assert_array_equal(entry["by_class"], row.by_class)
        assert read_candidate(json.loads(entry["definition"])) == row.candidate


def test_a_killed_sweep_goes_on_where_it_stopped(world: Path, tmp_path: Path) -> None:
    models, data = paths(world, "one", "two"), world / "data"
    whole = hf_lwmm.sweep(models, data, tmp_path / "whole.parquet")

    def stop(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    file = tmp_path / "killed.parquet"
    with pytest.raises(KeyboardInterrupt):
        hf_lwmm.sweep(models, data, file, progress=stop)
    assert not file.exists()
    seen: list[int] = []
    again = hf_lwmm.sweep(models, data, file, progress=lambda what, done, total: seen.append(done))
    assert seen == [3, 4] and rows(again) == rows(whole)
    # A further sweep adds to the table.
    seen.clear()
    isotropic = SweepAxes(methods=("isotropic",))
    more = hf_lwmm.sweep(models, data, file, axes=isotropic, progress=lambda w, done, total: seen.append(done))
    assert seen == [2, 3, 4] and len(more.rows) == 6

    def another(what: str, done: int, total: int) -> None:
        with pytest.raises(SweepError, match=r"killed\.parquet: another sweep is writing it"):
            hf_lwmm.sweep(models, data, file)

    hf_lwmm.sweep(models, data, file, axes=SweepAxes(anchors="first"), progress=another)
    assert len(pq.read_table(file)) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"whole.parquet", "killed.parquet"}


def test_results_of_other_things_are_never_mixed(world: Path, tmp_path: Path) -> None:
    file, data = tmp_path / "sweep.parquet", ImageSource(world / "data", limit=1)
    first, base = SweepAxes(anchors="first"), MergeInputs(base=world / "base")
    hf_lwmm.sweep(paths(world, "one", "two"), data, file, axes=first, inputs=base)
    kept = file.read_bytes()
    for message, names, options in (
        ("models", ("one", "three"), {}),
        ("data set", ("one", "two"), {"images": ImageSource(world / "data", limit=2)}),
        ("data set", ("one", "two"), {"images": ImageSource(world / "data", limit=1, ids="camvid")}),
        ("way of loading", ("one", "two"), {"network": hf_lwmm.NetworkOptions(compute_dtype="bfloat16")}),
        ("way of scoring", ("one", "two"), {"evaluation": EvaluationSpec(flip=True)}),
        ("base", ("one", "two"), {"inputs": MergeInputs(base=world / "three")}),
    ):
        with pytest.raises(SweepError, match=f"sweep.parquet: holds a sweep that differs in its {message}. Choose"):
            hf_lwmm.sweep(paths(world, *names), options.pop("images", data), file, **options)
    assert file.read_bytes() == kept
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(SweepError, match="not the results of a sweep"):
        hf_lwmm.sweep(paths(world), data, tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(SweepError, match="not a Parquet file"):
        hf_lwmm.sweep(paths(world), data, tmp_path / "text.parquet")


def test_what_cannot_be_is_listed_with_the_reason(world: Path, tmp_path: Path) -> None:
    found = hf_lwmm.sweep(
        paths(world), ImageSource(world / "data", limit=1), tmp_path / "a.parquet",
        axes=SweepAxes(subsets="whole", anchors="first", methods=("layerwise", "slerp", "ties"), alpha=(0.2, 0.5)),
    )  # fmt: skip
    assert {row.name for row in found.rows} == {"one", "two", "three", "layerwise of one*, two, three, alpha=0.5"}
    reasons = {each.candidate.name(found.labels): each.reason for each in found.skipped}
    assert "--method slerp merges 2 models, not 3." in reasons["slerp of one*, two, three"]
    assert "--method ties needs --base" in reasons["ties of one*, two, three"]
    assert "--alpha 0.2 must be between 1/3" in reasons["layerwise of one*, two, three, alpha=0.2"]
    assert len(reasons) == 3 and all(reason in found.to_markdown() for reason in reasons.values())
    assert {each["reason"] for each in found.to_dict()["skipped"]} == set(reasons.values())
    told = json.loads(pq.read_schema(tmp_path / "a.parquet").metadata[b"hf_lwmm.sweep"])["skipped"]
    assert {each["reason"] for each in told} == set(reasons.values())


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(SweepRun(jobs=2), id="processes"),
        pytest.param(SweepRun(ray="local", jobs=1), id="ray", marks=pytest.mark.slow),  # a cluster starts first
    ],
)
def test_spread_candidates_give_the_same_results(how: SweepRun, world: Path, tmp_path: Path) -> None:
    models, data = paths(world, "one", "two"), ImageSource(world / "data", limit=2)
    axes = SweepAxes(methods=("layerwise", "isotropic"), ensemble=True)
    alone = hf_lwmm.sweep(models, data, tmp_path / "alone.parquet", axes=axes)
    spread = hf_lwmm.sweep(models, data, tmp_path / "spread.parquet", axes=axes, run=how)
    assert rows(alone) == rows(spread)
    one, other = (pq.read_table(tmp_path / f"{name}.parquet").drop(["seconds"]) for name in ("alone", "spread"))
    assert one.to_pylist() == other.to_pylist()


def test_a_sweep_goes_on_with_other_threads(world: Path, tmp_path: Path) -> None:
    models, data, file = paths(world, "one", "two"), ImageSource(world / "data", limit=2), tmp_path / "a.parquet"
    axes, seen = SweepAxes(methods=("isotropic",), anchors="first"), list[int]()
    hf_lwmm.sweep(models, data, file, axes=axes, evaluation=EvaluationSpec(workers=1))
    hf_lwmm.sweep(
        *(models, data, file),
        axes=axes,
        evaluation=EvaluationSpec(workers=2),
        progress=lambda what, done, total: seen.append(total - done),
    )
    assert seen == [0]


def test_what_keeps_a_worker_from_opening_models_is_said_as_it_is(tmp_path: Path) -> None:
    gone, data = ModelRef(path=tmp_path / "gone"), ImageSource(tmp_path)
    setup = SweepSetup((gone,), None, (), data, hf_lwmm.NetworkOptions(), EvaluationSpec())
    with pytest.raises(CheckpointError, match="gone: is neither a file nor a folder"), Processes(setup, 1) as workers:
        next(workers.score(singles(1)))


@pytest.mark.slow  # four more processes start
def test_workers_of_a_killed_sweep_end(world: Path, tmp_path: Path) -> None:
    file, starts = tmp_path / "sweep.parquet", ",".join(str(start / 50) for start in range(50))
    command = [sys.executable, "-m", "hf_lwmm", "sweep", *map(str, paths(world)), "--data", str(world / "data")]
    command += ["--jobs", "2", "--anchors", "first", "--start", starts, "--output", str(file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as parent:
        while not any(tmp_path.glob(".*.parts/*.parquet")):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.kill()
        assert parent.stderr is not None
        parent.stderr.read()  # to its end, where the last worker has closed it
    kept = len([*tmp_path.glob(".*.parts/*.parquet")])
    seen: list[int] = []
    hf_lwmm.sweep(paths(world), world / "data", file, progress=lambda what, done, total: seen.append(done))
    assert kept and 0 < seen[0] <= kept and file.exists()


def test_a_search_is_seeded_and_goes_on(world: Path, tmp_path: Path) -> None:
    models, data = paths(world), ImageSource(world / "data", limit=2)
    found = hf_lwmm.sweep(models, data, tmp_path / "a.parquet", run=SweepRun(search=4, seed=1))
    trials = {row.candidate.trial: row for row in found.rows if row.candidate.trial is not None}
    assert sorted(trials) == [0, 1, 2, 3] and len(found.rows) == 7
    assert trials[0].name == "layerwise of one*, two, three"  # the paper's choice comes first
    methods = [row.candidate.knobs.method for row in trials.values() if row.candidate.knobs]
    assert len(methods) == 4 and all(isinstance(each, Layerwise) and (each.alpha or 1) > 1 / 3 for each in methods)
    seen: list[tuple[int, int]] = []
    longer = SweepRun(search=6, seed=1)
    more = hf_lwmm.sweep(models, data, tmp_path / "a.parquet", run=longer, progress=lambda w, d, t: seen.append((d, t)))
    assert seen[0] == (3, 9) and (7, 9) in seen and seen[-1] == (9, 9)  # four trials are told from the file
    assert {row.name for row in found.rows} < {row.name for row in more.rows} and len(more.rows) == 9
    fresh = hf_lwmm.sweep(models, data, tmp_path / "b.parquet", run=longer)
    assert rows(fresh) == rows(more)
    other = hf_lwmm.sweep(models, data, tmp_path / "c.parquet", run=SweepRun(search=2, seed=2))
    assert len({row.name for row in other.rows} - {row.name for row in more.rows}) == 1


def test_labels_of_the_fixed_knobs_are_those_of_the_networks(world: Path, tmp_path: Path) -> None:
    """A merge that a sweep found is made again from the knobs of its candidate."""
    models = []
    for name in ("one", "two"):
        models.append(tmp_path / f"{name}.safetensors")
        models[-1].write_bytes((world / name / "model.safetensors").read_bytes())  # without the names of its classes
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    fixed, data = Knobs(labels=(str(tmp_path / "names.txt"),)), ImageSource(world / "data", limit=2)
    found = hf_lwmm.sweep(models, data, tmp_path / "a.parquet", axes=SweepAxes(anchors="first", fixed=fixed))
    network = hf_lwmm.NetworkOptions(labels=(str(tmp_path / "names.txt"),))
    same = hf_lwmm.sweep(models, data, tmp_path / "a.parquet", axes=SweepAxes(anchors="first"), network=network)
    assert rows(found) == rows(same)
    (best,) = (row.candidate for row in found.rows if row.candidate.kind == "merge")
    assert best.knobs is not None and best.knobs.labels == (NAMES,)
    hf_lwmm.merge(models, models[0], knobs=best.knobs, output=tmp_path / "again")


def test_the_command_prints_the_table_and_json(world: Path, tmp_path: Path) -> None:
    command = ["sweep", *map(str, paths(world, "one", "two")), "--data", str(world / "data"), "--limit", "1"]
    command += ["--methods", "layerwise,slerp", "--start", "0,0.5", "--option", "t=0.2,0.4", "--anchors", "first"]
    command += ["--output", str(tmp_path / "r.parquet")]
    done = CliRunner().invoke(app, [*command, "--report", str(tmp_path / "r.md")])
    assert done.exit_code == 0, done.output
    *report, verdict = (tmp_path / "r.md").read_text().rstrip().split("\n\n")
    assert [part in done.stdout for part in report] == [True] * 4 and f"\n\n{verdict}\n  hf-lwmm " in done.stdout
    assert "| rank | candidate | mIoU |" in done.stdout
    assert "6 candidates on 1 images" in done.stdout and "slerp of one*, two, t=0.4" in done.stdout
    again = CliRunner().invoke(app, [*command, "--json", "--plot", str(tmp_path / "plots")])
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["start.png", "subsets.png"]
    found = json.loads(again.stdout)
    assert [entry["rank"] for entry in found["candidates"]] == list(range(1, 7))
    assert found["models"] == ["one", "two"] and "optimistic" in found["remarks"]
    # The same from Python, where nothing is said of what the command line has defaults for, scores nothing again.
    counted: list[int] = []
    hf_lwmm.sweep(
        paths(world, "one", "two"), ImageSource(world / "data", limit=1), tmp_path / "r.parquet",
        axes=SweepAxes(anchors="first", start=(0, 0.5)), progress=lambda w, done, total: counted.append(total - done),
    )  # fmt: skip
    assert counted == [0]
    for option, value, message in (
        ("--start", "0,x", "--start must be a list of numbers, not '0,x'"),
        ("--option", "t=x", "--option t must be a number, not 'x'"),
        ("--methods", "layerwise,", "has nothing where a value should be"),
        ("--methods", "", "has nothing where a value should be"),
    ):
        bad = CliRunner().invoke(app, [*command, option, value])
        assert isinstance(bad.exception, PlanError) and message in str(bad.exception)
    advised = [*command, "--target", "new", "--methods", "auto,slerp,isotropic", "--start", "0", "--json"]
    found = json.loads(CliRunner().invoke(app, [*advised, "--output", str(tmp_path / "advised.parquet")]).stdout)
    methods = [entry["candidate"].split()[0] for entry in found["candidates"] if " of " in entry["candidate"]]
    assert found["advice"]["method"] == "isotropic" and sorted(methods) == ["isotropic", "slerp", "slerp"]
    other = CliRunner().invoke(app, [*command, "--compute-dtype", "bfloat16"])
    assert isinstance(other.exception, SweepError) and "differs in its way of loading" in str(other.exception)
    nowhere = CliRunner().invoke(app, [*command, "--report", str(tmp_path / "no-folder/r.md")])
    assert isinstance(nowhere.exception, PlanError) and "in a folder that exists" in str(nowhere.exception)
    missing = CliRunner().invoke(app, ["sweep", "a", "b"])
    assert isinstance(missing.exception, PlanError) and str(missing.exception).startswith("--data is missing")
