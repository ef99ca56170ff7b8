"""The verdict: one sentence from paired intervals, and the command that follows from it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from calls import lwmm
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import segformer, tree

import hf_lwmm
from hf_lwmm.cli.following import following, repository_name
from hf_lwmm.evaluation.protocols import ScoredClasses
from hf_lwmm.evaluation.report import EvaluationReport, report
from hf_lwmm.evaluation.task_metrics import METRICS
from hf_lwmm.text import shell_line


def scored(**hits: list[int]) -> EvaluationReport:
    """A report on models that get given numbers of 10 pixels of each image right; `merge...` are merges."""
    counts = np.zeros((len(hits), len(next(iter(hits.values()))), 1, 3), np.int64)
    counts[:, :, 0] = [[(hit, 10 - hit, 0) for hit in own] for own in hits.values()]
    kinds = [next((kind for kind in ("merge", "ensemble") if name.startswith(kind)), "model") for name in hits]
    return report(METRICS["semantic"], "d", list(hits), counts, ScoredClasses(("road",), (0,)), kinds=kinds)


def sentence(**hits: list[int]) -> str:
    found = scored(**hits).verdict
    assert found is not None
    return found.sentence


def test_a_merge_is_taken_where_its_whole_interval_is_above_the_best_parent() -> None:
    assert sentence(a=[2, 3] * 3, b=[1, 1] * 3, merge=[8, 9] * 3) == "Take merge: +60.0 (60.0 to 60.0) over a."
    found = scored(a=[2, 3] * 4, merge=[8, 8] * 4)
    assert found.verdict is not None and found.verdict.merged and found.verdict.model == "merge"
    assert found.to_dict()["verdict"] == found.verdict.to_dict()
    assert found.to_markdown().endswith(f"\n\n{found.verdict.sentence}")


def test_a_parent_is_kept_where_no_merge_is_shown_to_beat_it() -> None:
    below = "Keep b: no merge beats it (closest merge2, -10.0, -10.0 to -10.0)."
    assert sentence(a=[1, 1], b=[5, 5], merge=[3, 3], merge2=[4, 4]) == below
    assert sentence(a=[5, 6], merge=[6, 5]) == "Keep a: no merge beats it (closest +0.0, -10.0 to 10.0)."
    near = sentence(a=[5, 6] * 4, merge=[5, 5, 7, 6] * 2)
    assert near == "Keep a: no merge is shown to beat it by these 8 images (closest +2.5, -3.8 to 10.0)."


def test_a_handful_of_images_shows_nothing() -> None:
    """Their resamples hold the same few images, so that intervals say more than they know."""
    few = "Keep a: merge leads it by +60.0 (60.0 to 60.0), but on 5 images alone; it takes at least 6 to tell."
    assert sentence(a=[2] * 5, merge=[8] * 5) == few
    one = "Take b or a: the first leads by +10.0 (10.0 to 10.0), but on one image alone; it takes at least 6 to tell."
    none = "Keep a: no merge is shown to beat it by these 2 images, too few to tell (closest +5.0, 0.0 to 10.0)."
    assert sentence(a=[5, 5], merge=[5, 6]) == none
    assert sentence(a=[1], b=[2]) == one and sentence(a=[2] * 6, merge=[8] * 6).startswith("Take merge: ")


def test_without_merges_the_best_is_held_against_the_next() -> None:
    assert sentence(a=[1, 2] * 3, b=[5, 6] * 3, ensemble=[9, 9] * 3) == "Take b: +40.0 (40.0 to 40.0) over the next, a."
    close = "Take b or a: no difference is shown by these 6 images (+1.7, 0.0 to 5.0)."
    assert sentence(a=[5] * 6, b=[5] * 5 + [6]) == close
    assert scored(a=[5, 5]).verdict is None and scored(a=[5, 5], ensemble=[6, 6]).verdict is None


@given(hits=st.lists(st.lists(st.integers(1, 9), min_size=6, max_size=6), min_size=2, max_size=5))
def test_what_is_named_is_the_best_of_its_kind_and_a_merge_only_if_it_leads(hits: list[list[int]]) -> None:
    names = [f"{'merge' if place % 2 else 'parent'}{place}" for place in range(len(hits))]
    found = scored(**dict(zip(names, hits, strict=True)))
    assert found.verdict is not None
    by_name = {model.name: model for model in found.models}
    chosen = by_name[found.verdict.model]
    assert chosen.mean == max(each.mean for each in found.models if each.merged == chosen.merged)
    if chosen.merged:
        assert chosen.to_best_interval is not None and chosen.to_best_interval.low > 0
        assert found.verdict.sentence.startswith(f"Take {chosen.name}: +")
    else:
        assert found.verdict.sentence.startswith(f"Keep {chosen.name}: no merge")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and four labelled scenes."""
    folder = tmp_path_factory.mktemp("world")
    for seed, name in enumerate(("one", "two"), 1):
        segformer(folder / name, seed)
    tree(folder / "data", 4)
    return folder


def last_lines(out: str) -> tuple[str, str]:
    """The verdict, and the command below it."""
    verdict, command = out.rstrip("\n").split("\n")[-2:]
    return verdict, command.strip()


def test_merge_evaluate_and_sweep_end_in_a_verdict_and_a_command_that_runs(
    world: Path, run: Run, without_plots: None, tmp_path: Path
) -> None:
    images = ("--data", world / "data")
    code, out, err = run(
        "merge", world / "one", world / "two", "--output", "out", "--eval-data", world / "data", "--flip"
    )
    assert code == 0, err
    verdict, command = last_lines(out)
    assert "| model | mIoU | interval |" in out and verdict.startswith(("Keep ", "Take out: "))
    card = Path("out/README.md").read_text()
    assert verdict in card.split("\n## ")[0]
    if verdict.startswith("Keep"):
        models = f"{world / 'one'} {world / 'two'}"
        assert command == f"hf-lwmm sweep {models} --methods layerwise,isotropic --data {world / 'data'} --flip"
    code, out, err = run("evaluate", world / "one", world / "two", "out", *images, "--output", "scores.md")
    assert code == 0, err
    verdict, command = last_lines(out)
    assert verdict in Path("scores.md").read_text()
    assert command.split()[1] in ("predict", "push")
    code, out, err = run("sweep", world / "one", world / "two", *images, "--anchors", "first", "--report", "sweep.json")
    assert code == 0, err
    verdict, command = last_lines(out)
    assert "Written to sweep.parquet" in out and "Wrote sweep.json" in err
    found = json.loads(Path("sweep.json").read_text())
    assert found["verdict"]["sentence"] == verdict and "optimistic" in found["remarks"]
    assert run(*shlex.split(command.replace("PICTURE", str(world / "data/images/0.png")))[1:])[0] == 0


def as_seen_by(model: Path, folder: Path) -> Path:
    """Data whose labels are what a model itself says, so that it wins."""
    loaded, data = hf_lwmm.load(model), tree(folder, 6)
    for path in (data / "images").iterdir():
        picture = Image.open(path)
        outputs = loaded.model(**loaded.image_processor(picture, return_tensors="pt"))
        size = [(picture.height, picture.width)]
        (labels,) = loaded.image_processor.post_process_semantic_segmentation(outputs, size)
        Image.fromarray(labels.numpy().astype(np.uint8)).save(data / "labels" / path.name)
    return data


def test_the_command_after_a_sweep_makes_the_merge_that_won(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = hf_lwmm.merge(
        [world / "one", world / "two"], knobs=hf_lwmm.Knobs(method="isotropic"), output=tmp_path / "m"
    )
    assert merged.folder is not None
    data = as_seen_by(merged.folder, tmp_path / "data")
    sweep = (
        *("sweep", world / "one", world / "two", "--data", data, "--methods", "isotropic", "--anchors", "first"),
        *("--output", tmp_path / "sweep.parquet"),
    )
    done = lwmm(*sweep)
    assert done.exit_code == 0, done.stderr
    verdict, command = last_lines(done.stdout)
    assert verdict.startswith("Take isotropic of one*, two: +") and verdict.endswith((" over one.", " over two."))
    merge = f"hf-lwmm merge {world / 'one'} {world / 'two'} --anchor {world / 'one'} --method isotropic"
    assert command == f"{merge} --eval-data {data}"
    monkeypatch.chdir(tmp_path)
    for taken, free in (("one-lwmm", "one-lwmm-2"), ("one-lwmm-2", "one-lwmm-3")):
        Path(taken).mkdir()
        assert last_lines(lwmm(*sweep).stdout)[1] == f"{command} --output {free}"
    again = lwmm(*shlex.split(command)[1:], "--output", tmp_path / "again")
    assert again.exit_code == 0, again.stderr
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (merged.folder / name).read_bytes()
    card = (tmp_path / "again/README.md").read_text()
    assert "\nTake again: +" in card and "Nobody has measured" not in card
    scored = lwmm("evaluate", world / "one", world / "two", merged.folder, "--data", data, "--flip")
    assert last_lines(scored.stdout)[0].startswith("Take m: +"), scored.stderr
    assert last_lines(scored.stdout)[1] == f"{merge} --eval-data {data} --flip --push m"  # for its card, too
    scored = lwmm("evaluate", world / "one", world / "two", tmp_path / "again", "--data", data)
    assert last_lines(scored.stdout)[1] == f"hf-lwmm push {tmp_path / 'again'} again"  # whose card has scores
    scored = lwmm("evaluate", world / "one", merged.folder, "--data", data, "--output", tmp_path / "scores.md")
    elsewhere = f"hf-lwmm merge {world / 'one'} two --anchor {world / 'one'} --method isotropic"
    assert last_lines(scored.stdout)[1] == f"{elsewhere} --eval-data {data} --push m"
    assert "Put them into the command: of two" in scored.stderr and f"Wrote {tmp_path / 'scores.md'}" in scored.stderr
    segformer(tmp_path / "another" / "two", 9)  # no parent, though it has the name of one
    scored = lwmm("evaluate", world / "one", tmp_path / "another" / "two", merged.folder, "--data", data)
    assert last_lines(scored.stdout)[1] == f"{elsewhere} --eval-data {data} --push m"
    hf_lwmm.export(merged.folder, tmp_path / "converted")
    scored = lwmm("evaluate", world / "one", tmp_path / "converted", "--data", data)
    assert last_lines(scored.stdout)[1] == f"hf-lwmm push {tmp_path / 'converted'} converted", scored.stderr
    (merged.folder / "hf_lwmm.yaml").unlink()  # as the merges of others, which `push` does not take
    (merged.folder / "README.md").write_text("---\nbase_model_relation: merge\n---\n")
    scored = lwmm("evaluate", world / "one", merged.folder, "--data", data)
    assert last_lines(scored.stdout)[1] == f"hf-lwmm predict {merged.folder} PICTURE", scored.stderr


def test_the_command_after_evaluate_says_where_the_base_is(world: Path, tmp_path: Path) -> None:
    one, two, base = world / "one", world / "two", segformer(tmp_path / "base", 3)
    knobs, inputs = hf_lwmm.Knobs(method="task-arithmetic"), hf_lwmm.MergeInputs(base=base)
    merged = hf_lwmm.merge([one, two], knobs=knobs, inputs=inputs, output=tmp_path / "m")
    assert merged.folder is not None
    data = as_seen_by(merged.folder, tmp_path / "data")
    scored = lwmm("evaluate", one, two, base, merged.folder, "--data", data)
    verdict, command = last_lines(scored.stdout)
    assert verdict.startswith("Take m: +") and "Put them into the command" not in scored.stderr
    assert command.startswith(f"hf-lwmm merge {one} {two} ") and f" --base {base} " in command


def test_a_report_draws_its_means_with_intervals_above_the_classes(tmp_path: Path) -> None:
    plot = scored(a=[2, 3] * 3, merge=[8, 9] * 3).plot()
    png, shown = plot._repr_png_()
    plot.save(tmp_path / "scores.png")
    plot.save(tmp_path / "scores.svg")
    assert (tmp_path / "scores.png").read_bytes() == png and shown == {"width": 720} and len(repr(plot)) < 80
    drawn = re.findall("<!-- (.*?) -->", (tmp_path / "scores.svg").read_text())
    assert [each for each in drawn if each in ("mIoU", "road")] == ["mIoU", "road"]
    assert "IoU in %; lines are 95 % intervals" in drawn and {"a", "merge"} <= set(drawn)
    with pytest.raises(hf_lwmm.PlotError, match="ends in"):
        plot.save(tmp_path / "scores.txt")


def test_a_report_of_many_models_is_a_line() -> None:
    found = scored(**{f"m{index}": [index % 10] * 6 for index in range(40)})
    assert repr(found).startswith(
        "<EvaluationReport: mIoU m0 0.00, m1 10.00, m2 20.00 and 37 more; 6 images of d (a loca"
    )
    assert len(repr(found)) < 200


def test_a_report_is_a_table_of_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    found = scored(a=[2, 3] * 3, merge=[8, 9] * 3)
    table = found.to_pandas().set_index("model")
    assert table.loc["merge", "difference"] == pytest.approx(0.6) and table.loc["a", "mIoU"] == found.models[0].mean
    assert table.loc["a", "low"] == found.models[0].interval.low and np.isnan(table.loc["a", "difference_low"])
    assert table.loc["merge", "IoU road"] == found.models[1].by_class[0] and table.loc["merge", "kind"] == "merge"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(hf_lwmm.ExtraError, match=r"A data frame needs pandas, .*hf-lwmm\[eval\]"):
        found.to_pandas()


@pytest.fixture(scope="module")
def nameless(world: Path) -> tuple[Path, Path]:
    """The two models without a configuration, in folders whose names a shell must be told."""
    found = []
    for name in ("one", "two"):
        folder = world / f"{name}'s\nfolder"
        folder.mkdir()
        (folder / f"{name}.safetensors").write_bytes((world / name / "model.safetensors").read_bytes())
        found.append(folder / f"{name}.safetensors")
    return found[0], found[1]


def words_of(command: str) -> list[str]:
    """The words of a command, as a shell reads it."""
    shell = shutil.which("bash")
    assert shell is not None
    script = f"hf-lwmm() {{ printf '%s\\0' \"$@\"; }}; {command}"
    return subprocess.run([shell, "-c", script], check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")[:-1]


def test_options_that_change_the_answer_go_along_in_the_next_command(
    world: Path, nameless: tuple[Path, Path], run: Run, without_plots: None
) -> None:
    names, data = world / "names.json", world / "data"
    names.write_text('["road", "sky", "car"]')
    own, labels = ("--labels", names, "--compute-dtype", "float64"), ["--labels", "road,sky,car"]
    code, out, err = run("evaluate", *nameless, "--data", data, *own, "--limit", "1")
    assert code == 0, err
    words = words_of(last_lines(out)[1])
    assert words[0] == "predict" and words[1] in map(str, nameless)
    assert words[2:] == ["PICTURE", "--compute-dtype", "float64", *labels]
    assert run(*words[:2], data / "images/0.png", *words[3:])[0] == 0

    merged = ("--head", "anchor", "--output", "merged", "--eval-data", data, "--eval-limit", "1")
    code, out, err = run("merge", *nameless, *own, *merged)
    assert code == 0, err
    words = words_of(last_lines(out)[1])
    assert words[:3] == ["sweep", *map(str, nameless)]  # one image never shows a better merge
    assert words[3:7] == ["--methods", "layerwise,isotropic", "--head", "anchor"]
    assert words[7:] == [*labels, "--data", str(data), "--limit", "1", "--compute-dtype", "float64"]
    code, out, err = run(*words, "--anchors", "first")
    assert code == 0, err
    words = words_of(last_lines(out)[1])
    assert words[0] == "predict" and words[3:] == ["--compute-dtype", "float64", *labels]


def test_the_next_command_has_those_of_the_options_that_it_takes() -> None:
    network = hf_lwmm.NetworkOptions(system="maxsquare", network="own:make", device="cuda")
    knobs = hf_lwmm.Knobs(branch="teacher", labels=("cityscapes19",), dtype="float16", bn_stats="anchor", share="any")
    scoring = hf_lwmm.EvaluationSpec(scales=(0.5, 1), edaps_void=True, groups="films", examples=3)
    given = (hf_lwmm.ImageSource("org/d", ids="gta"), scoring, network, knobs)
    run_alike = ["--system", "maxsquare", "--network", "own:make", "--device", "cuda"]
    shared = ["--branch", "teacher", "--labels", "cityscapes19"]
    words = shlex.split(following("predict", "a", "PICTURE", given=given))
    assert words == ["hf-lwmm", "predict", "a", "PICTURE", *run_alike, *shared]
    assert following("predict", "-x", "PICTURE") == "hf-lwmm predict ./-x PICTURE"
    words = shlex.split(following("sweep", "a", "b", given=given))
    of_images, scored_so = ["--data", "org/d", "--ids", "gta"], ["--groups", "films", "--scales", "0.5,1.0"]
    fixed = ["--share", "any", *shared]
    assert words == ["hf-lwmm", "sweep", "a", "b", *fixed, *of_images, *scored_so, "--edaps-void", *run_alike]
    assert shlex.split(following("push", "a", "b", given=given)) == ["hf-lwmm", "push", "a", "b"]


@given(
    words=st.lists(
        st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))), min_size=1, max_size=4
    )
)
@settings(max_examples=20, deadline=None)
def test_a_shell_reads_the_words_of_a_command_as_they_are(words: list[str]) -> None:
    line = shell_line(words)
    assert line.isprintable() and words_of(f"hf-lwmm {line}") == words


def test_printed_commands_run_whatever_folders_are_called(run: Run, world: Path, tmp_path: Path) -> None:
    for place, source in (("-x", "one"), ("-y", "two")):
        shutil.copytree(world / source, tmp_path / place)
    code, _, err = run("merge", "./-x", "./-y", "--anchor", "./-x", "--output", "my out")
    assert code == 0, err
    recipe = hf_lwmm.load_recipe(tmp_path / "my out")
    words = shlex.split(hf_lwmm.merge_command(recipe))
    assert words == ["hf-lwmm", "merge", "./-x", "./-y", "--anchor", "./-x"]
    code, _, err = run(*words[1:], "--output", "again")
    assert code == 0, err
    assert Path("again/model.safetensors").read_bytes() == Path("my out/model.safetensors").read_bytes()
    names = ("my out", "-out", "a..b--c", "Ünter", "...", "ok_1.0")
    assert [repository_name(Path(name)) for name in names] == ["my-out", "out", "a.b-c", "nter", "merge", "ok_1.0"]
