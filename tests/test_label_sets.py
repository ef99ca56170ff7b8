"""Label sets are what their sources say, and classes match by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from hypothesis import given
from hypothesis import strategies as st

from hf_lwmm.errors import DatasetError, PlanError
from hf_lwmm.labels import label_sets, match_classes, normalise, raw_label_set, read_label_set

CITY = label_sets()["cityscapes19"]


def test_the_label_sets_have_as_many_classes_as_their_names_say() -> None:
    sizes = {name: len(labels.classes) for name, labels in label_sets().items()}
    assert sizes == {
        "cityscapes19": 19, "synthia16": 16, "synthia13": 13, "mapillary": 66, "voc": 21, "ade20k": 150,
        "camvid11": 11, "camvid32": 32, "foggy-cityscapes8": 8, "office31": 31, "office-home": 65,
    }  # fmt: skip
    for labels in label_sets().values():
        assert len(set(map(normalise, labels.classes))) == len(labels.classes)
        assert set(labels.things) <= set(labels.classes)
        assert len(labels.colours) in (0, len(labels.classes)) and len(set(labels.colours)) == len(labels.colours)
        for groups in labels.ids.values():
            raw = [number for group in groups for number in group]
            assert len(groups) == len(labels.classes) and len(set(raw)) == len(raw) and max(raw) < 255


def test_cityscapes_is_what_its_own_scripts_say() -> None:
    trained = sorted(
        (label for label in cityscapes_labels if 0 <= label.trainId < 255), key=lambda label: label.trainId
    )
    assert CITY.classes == tuple(label.name for label in trained)
    assert CITY.colours == tuple(label.color for label in trained)
    assert CITY.things == tuple(label.name for label in trained if label.hasInstances)
    for scheme in ("cityscapes", "gta"):
        table = CITY.table(scheme)
        for label in cityscapes_labels:
            assert table[label.id] == (label.trainId if label.trainId >= 0 else 255)  # -1, a licence plate, too
        assert (table[34:] == 255).all()


def test_synthias_protocols_are_parts_of_cityscapes() -> None:
    rows = {name: [CITY.classes.index(c) for c in label_sets()[name].classes] for name in ("synthia16", "synthia13")}
    assert rows["synthia16"] == [*range(9), *range(10, 14), 15, 17, 18]
    assert rows["synthia13"] == [*range(3), *range(6, 9), *range(10, 14), 15, 17, 18]
    table = CITY.table("synthia")
    own = {1: "sky", 2: "building", 3: "road", 4: "sidewalk", 8: "car", 10: "person", 17: "rider", 21: "wall"}
    assert {raw: CITY.classes[table[raw]] for raw in own} == own and table[0] == 255


def test_vistas_and_camvid_fold_into_coarser_classes_by_name() -> None:
    def folded(target: str, scheme: str, source: str) -> dict[str, set[str]]:
        fine, coarse = label_sets()[source].classes, label_sets()[target]
        return {c: {fine[raw] for raw in group} for c, group in zip(coarse.classes, coarse.ids[scheme], strict=True)}

    vistas = folded("cityscapes19", "mapillary", "mapillary")
    assert vistas["road"] == {"Road", "Lane Marking - General", "Manhole"} and vistas["train"] == {"On Rails"}
    assert vistas["rider"] == {"Bicyclist", "Motorcyclist", "Other Rider"} and vistas["bicycle"] == {"Bicycle"}
    camvid = folded("camvid11", "camvid32", "camvid32")
    assert camvid["building"] == {"Archway", "Bridge", "Building", "Tunnel", "Wall"}
    assert camvid["bicyclist"] == {"Bicyclist", "Motorcycle Scooter"} and camvid["sky"] == {"Sky"}
    assert not any("Void" in group for group in camvid.values())
    vistas66, ade = raw_label_set("mapillary66"), raw_label_set("ade20k")
    assert vistas66 and vistas66.name == "mapillary" and ade and ade.table("ade20k")[150] == 149


def test_label_sets_are_read_from_files_and_lists(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("# mine\nroad\n\nsky\n")
    (tmp_path / "classes.json").write_text('["road", "sky"]')
    (tmp_path / "classes.yaml").write_text("# mine\n- road\n- 'sky'\n")
    (tmp_path / "config.json").write_text('{"id2label": {"1": "sky", "0": "road"}}')
    for name in ("classes.txt", "classes.json", "classes.yaml", "config.json"):
        assert read_label_set(tmp_path / name).classes == ("road", "sky")
    assert read_label_set("road, sky").classes == read_label_set(["road", "sky"]).classes == ("road", "sky")
    with pytest.raises(PlanError, match=r"is not a label set \(cityscapes19, .*office-home.*no such file"):
        read_label_set("cityscapes20")
    (tmp_path / "twice").write_text("road\nRoad\n")
    with pytest.raises(PlanError, match="names a class twice"):
        read_label_set(tmp_path / "twice")


def test_labels_need_no_heavy_library() -> None:
    code = "import sys, hf_lwmm.labels as l; l.label_sets(); print({'torch', 'datasets'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@given(st.permutations(range(19)), st.sampled_from([str.title, str.upper, lambda name: name.replace(" ", "_")]))
def test_classes_match_by_name_in_any_order_and_spelling(order: list[int], spelt: Any) -> None:
    data = [spelt(CITY.classes[index]) for index in order]
    table = match_classes(CITY.classes, data, "m", "d")
    assert [order[row] for row in table[:19]] == list(range(19)) and (table[19:] == 255).all()


def test_one_thing_may_have_two_names() -> None:
    camvid = label_sets()["camvid11"].classes
    table = match_classes(CITY.classes, camvid, "m", "d")
    found = {model: camvid[row] for model, row in zip(CITY.classes, table, strict=False) if row != 255}
    assert found["sidewalk"] == "pavement" and found["person"] == "pedestrian" and found["vegetation"] == "tree"
    assert "rider" not in found and "truck" not in found
    # A name that is there comes before one that means the same.
    assert match_classes(["tree", "vegetation"], ["vegetation", "tree"], "m", "d")[:2].tolist() == [1, 0]
    assert match_classes(["tree"], ["vegetation"], "m", "d")[0] == 0


def test_a_model_of_other_classes_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"m \(LABEL_0, .*\) and d \(road, .*\) share no class name\. --labels"):
        match_classes([f"LABEL_{i}" for i in range(19)], CITY.classes, "m", "d")
    with pytest.raises(DatasetError, match="share only bike and bottle as class names"):
        match_classes(label_sets()["voc"].classes, label_sets()["office31"].classes, "m", "d")
