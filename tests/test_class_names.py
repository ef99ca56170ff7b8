"""Names of classes: synonyms, names that occur twice, and names that are not as many as the rows of a head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calls import lwmm, merge, plan
from hypothesis import given
from hypothesis import strategies as st
from tiny import NAMES, segformer, tensors, tree

import hf_lwmm
from hf_lwmm.errors import CheckpointError, DatasetError
from hf_lwmm.evaluation.inference import rows_of_classes
from hf_lwmm.labels import match_classes, matching_rows, meaning, normalise
from hf_lwmm.planning.inputs import NetworkOptions

pytestmark = pytest.mark.usefixtures("without_plots")

CONTRADICTORY = {"num_labels": 150, "id2label": {str(row): f"LABEL_{row}" for row in range(3)}}
CLASSIFIER = "decode_head.classifier"
WORDS = ["road", "Road", "person", "pedestrian", "tree", "vegetation", "sky", "bike", "bicycle"]


def described(folder: Path, **changes: Any) -> Path:
    """Change entries of a config.json; None takes them out."""
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


# Matching


@given(st.lists(st.sampled_from(WORDS), max_size=6), st.lists(st.sampled_from(WORDS), max_size=6))
def test_rows_meet_the_same_name_first_and_never_two_one(names: list[str], others: list[str]) -> None:
    rows = matching_rows(names, others)
    found = [row for row in rows if row >= 0]
    assert len(rows) == len(names) and len(set(found)) == len(found)
    for name, row in zip(names, rows, strict=True):
        if row >= 0:
            assert meaning(others[row]) == meaning(name)
        else:  # all that mean the same are taken by others
            assert all(place in found for place, other in enumerate(others) if meaning(other) == meaning(name))
    for word in map(normalise, WORDS):
        same = [others[row] for name, row in zip(names, rows, strict=True) if row >= 0 and normalise(name) == word]
        wanted = min(sum(normalise(each) == word for each in some) for some in (names, others))
        assert sum(normalise(other) == word for other in same) == wanted


def test_an_exact_name_is_never_taken_by_a_synonym() -> None:
    assert matching_rows(("pedestrian", "person"), ("person",)) == (-1, 0)
    assert matching_rows(("tree", "sky"), ("vegetation", "tree", "sky")) == (1, 2)
    assert matching_rows(("car", "Car"), ("car",)) == (0, -1)


def test_rows_are_merged_by_the_synonyms_that_evaluation_uses(tmp_path: Path) -> None:
    ours, theirs = ("road", "person", "vegetation"), ("tree", "road", "pedestrian")
    folders = [segformer(tmp_path / str(i), i, names) for i, names in enumerate((ours, theirs), 1)]
    done = merge(folders, output=tmp_path / "merged", method="isotropic", head="by-label")
    assert done.plan.alignment.shared_parameters == done.plan.alignment.anchor_parameters
    a, b, merged = (tensors(folder)[f"{CLASSIFIER}.weight"] for folder in (*folders, tmp_path / "merged"))
    np.testing.assert_allclose(merged, (a + b[[1, 2, 0]]) / 2, rtol=1e-5, atol=1e-7)


def test_a_row_is_merged_into_one_row_alone(tmp_path: Path) -> None:
    ours, theirs = ("road", "pedestrian", "person"), ("person", "sky", "road")
    folders = [segformer(tmp_path / str(i), i, names) for i, names in enumerate((ours, theirs), 1)]
    merge(folders, output=tmp_path / "merged", method="isotropic", head="by-label")
    a, b, merged = (tensors(folder)[f"{CLASSIFIER}.weight"] for folder in (*folders, tmp_path / "merged"))
    np.testing.assert_allclose(merged, [(a[0] + b[2]) / 2, a[1], (a[2] + b[0]) / 2], rtol=1e-5, atol=1e-7)
    rows = rows_of_classes(*map(hf_lwmm.load, folders))
    assert rows is not None and rows.tolist() == [2, -1, 0]


# Names that occur twice


def test_a_data_set_that_names_two_classes_alike_is_refused(tmp_path: Path) -> None:
    data, model = tree(tmp_path / "data", 1), segformer(tmp_path / "m", 1)
    (data / "id2label.json").write_text(json.dumps({"0": "road", "1": "sky", "2": "Sky"}))
    with pytest.raises(DatasetError, match=r"data: has two classes named 'Sky'.*id2label\.json"):
        hf_lwmm.evaluate([model], data)
    (data / "id2label.json").write_text('{"0": "road", "1": "sky", "1": "car"}')
    done = lwmm("evaluate", model, "--data", data)
    assert done.exit_code == 1 and "id2label.json: is not valid JSON: the name '1' occurs twice" in str(done.exception)


def test_a_model_whose_names_a_data_set_gets_is_named_itself(tmp_path: Path) -> None:
    data, model = tree(tmp_path / "data", 1), segformer(tmp_path / "m", 1, ("road", "sky", "Sky"))
    with pytest.raises(DatasetError, match=r"^m: has two classes named 'Sky'"):
        hf_lwmm.evaluate([model], data)


def test_two_rows_of_a_model_may_be_one_class(tmp_path: Path) -> None:
    assert match_classes(("car", "Car", "sky"), ("sky", "car"), "m", "d")[:4].tolist() == [1, 1, 0, 255]
    data, model = tree(tmp_path / "data", 2), segformer(tmp_path / "m", 1, ("car", "Car", "sky"))
    (data / "id2label.json").write_text(json.dumps(dict(enumerate(NAMES))))
    found = hf_lwmm.evaluate([model], data)
    assert found is not None and found.confusion is not None
    assert found.confusion[0, :, [0, 3]].sum() == 0  # every pixel is a car's or the sky's


# Names and rows


@pytest.fixture
def misfit(tmp_path: Path) -> Path:
    """A model of three rows whose config.json names two."""
    folder = segformer(tmp_path / "misfit", 1)
    return described(folder, id2label={"0": "road", "1": "sky"}, label2id={"road": 0, "sky": 1})


def test_the_head_decides_how_many_classes_there_are(misfit: Path, tmp_path: Path) -> None:
    said = "misfit: names 2 classes, but its classifier has 3 rows, so the names were left out"
    data, whole = tree(tmp_path / "data", 2), segformer(tmp_path / "whole", 1)
    found, expected = (hf_lwmm.evaluate([model], data) for model in (misfit, whole))
    assert found is not None and expected is not None and np.array_equal(found.counts, expected.counts)
    assert any(said in note and "--labels" in note for note in found.notes)
    done = lwmm("predict", misfit, data / "images", "--output", tmp_path / "out")
    assert done.exit_code == 0 and said in " ".join(done.stderr.split()) and "LABEL_" in done.stdout
    done = lwmm("merge", misfit, whole, "--head", "by-label", "--output", tmp_path / "merged")
    assert done.exit_code == 0 and said in " ".join(done.stderr.split())
    assert "misfit does not name its classes; they were taken to be those of the others" in " ".join(
        done.stderr.split()
    )


def test_an_id_that_is_named_twice_is_refused(misfit: Path, tmp_path: Path) -> None:
    described(misfit, id2label={"0": "road", "00": "wall", "1": "sky", "2": "car"})
    said = r"misfit, config\.json, id2label: has the id 0 twice, as '0' and '00'\. Keep the right one"
    with pytest.raises(hf_lwmm.HfLwmmError, match=said):
        hf_lwmm.evaluate([misfit], tree(tmp_path / "data", 1))


def test_a_merge_names_as_many_classes_as_its_head_has_rows(misfit: Path, tmp_path: Path) -> None:
    from transformers import SegformerForSemanticSegmentation

    other = segformer(tmp_path / "whole", 2)
    for labels, expected in (((), ("LABEL_0", "LABEL_1", "LABEL_2")), ((",".join(NAMES),), NAMES)):
        output = tmp_path / f"merged-{len(labels)}"
        assert lwmm("merge", misfit, other, *(f"--labels={each}" for each in labels), "--output", output).exit_code == 0
        config = SegformerForSemanticSegmentation.from_pretrained(output).config
        assert tuple(config.id2label.values()) == expected and config.label2id[expected[2]] == 2


@pytest.mark.parametrize(
    "entries", [{}, {"num_labels": 5}, {"num_labels": "3"}, {"id2label": ["a"]}, CONTRADICTORY], ids=str
)
def test_a_merge_loads_whatever_number_of_classes_its_config_stated(entries: dict[str, Any], tmp_path: Path) -> None:
    from transformers import SegformerForSemanticSegmentation

    others = {"id2label": None, "label2id": None, **entries}
    nameless, other = described(segformer(tmp_path / "nameless", 1), **others), segformer(tmp_path / "other", 2)
    assert hf_lwmm.load(nameless).classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    for labels, expected in (((), ("LABEL_0", "LABEL_1", "LABEL_2")), ((",".join(NAMES),), NAMES)):
        output = tmp_path / f"merged-{len(labels)}"
        named = (f"--labels={each}" for each in labels)
        assert lwmm("merge", nameless, other, "--head", "by-label", *named, "--output", output).exit_code == 0
        model, report = SegformerForSemanticSegmentation.from_pretrained(output, output_loading_info=True)
        assert not report["mismatched_keys"] and tuple(model.config.id2label.values()) == expected


def test_a_number_of_classes_that_fits_stays_as_it_is(tmp_path: Path) -> None:
    stated = {"id2label": None, "label2id": None, "num_labels": 3}
    models = [described(segformer(tmp_path / f"m{seed}", seed), **stated) for seed in (1, 2)]
    assert lwmm("merge", *models, "--output", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out/config.json").read_bytes() == (models[0] / "config.json").read_bytes()


def test_a_label_set_names_the_rows_that_a_configuration_does_not(misfit: Path, tmp_path: Path) -> None:
    network = NetworkOptions(labels=(",".join(NAMES),))
    assert hf_lwmm.load(misfit, network).classes == NAMES
    unnamed = described(segformer(tmp_path / "unnamed", 2), id2label=None, label2id=None)
    assert hf_lwmm.load(unnamed).classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert hf_lwmm.load(unnamed, network).classes == NAMES
    other = segformer(tmp_path / "other", 3, ("car", "road", "bus"))
    found = plan([misfit, other], head="by-label", labels=(",".join(NAMES),))
    rows = {each.slot: each.rows for each in found.alignment.shared if each.rows}
    assert rows and all(each == {1: (1, -1, 0)} for each in rows.values())


def test_a_network_of_transformers_that_does_not_fit_its_configuration_is_refused(tmp_path: Path) -> None:
    from transformers import SegformerConfig, SegformerForImageClassification

    sizes: dict[str, Any] = {"depths": [1] * 4, "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 3, 4]}
    SegformerForImageClassification(SegformerConfig(**sizes, num_labels=3)).save_pretrained(tmp_path / "m")
    (tmp_path / "m/preprocessor_config.json").write_text('{"image_processor_type": "SegformerImageProcessor"}')
    described(tmp_path / "m", id2label={"0": "x", "1": "y"}, label2id={"x": 0, "y": 1})
    with pytest.raises(CheckpointError, match=r"^m: its weights have other shapes than its config\.json .*id2label"):
        hf_lwmm.load(tmp_path / "m")


def test_models_without_a_common_class_name_are_named(tmp_path: Path) -> None:
    one, two = segformer(tmp_path / "one", 1), segformer(tmp_path / "two", 2, ("a", "b", "c"))
    wanted = "two and one share no class name, so --head by-label matches no row"
    done = merge([one, two], output=tmp_path / "merged", method="isotropic", head="by-label")
    assert [wanted in each for each in done.warnings].count(True) == 1
    name = "decode_head.classifier.weight"
    assert np.array_equal(tensors(tmp_path / "merged")[name], tensors(one)[name])
    some = segformer(tmp_path / "some", 3, ("a", "sky", "c"))
    for head, models in (("shared", [one, two]), ("by-label", [one, some])):
        assert not any("no class name" in each for each in plan(models, head=head).alignment.notes)
