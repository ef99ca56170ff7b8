"""What is wrong in a description of a network of one's own is said when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from hf_lwmm import NetworkDescription
from hf_lwmm.errors import PlanError

OUTPUTS = ("lane", "kerb", "sky", "car", "bonnet")
GROUPS = {"road": ["lane", "kerb"], "sky": ["sky"], "car": ["car"]}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"outputs": ("lane", "lane")}, "outputs must be different texts"),
        ({"groups": {"road": ["lane", "path"]}}, "'path' in the group 'road' is no output of it"),
        ({"groups": {"road": ["lane"], "way": ["lane"]}}, "the output 'lane' is in two groups, 'road' and 'way'"),
        ({"groups": {"road": "lane"}}, "the group 'road' must be a list of outputs"),
        ({"outputs": ()}, "groups are of outputs, and outputs has no names"),
        ({"channel_order": "RBG"}, "channel_order is RGB or BGR, not 'RBG'"),
        ({"outputs": "lane", "groups": {}}, "outputs must be different texts, not 'lane'"),
        ({"outputs": 5, "groups": {}}, "outputs must be different texts"),
        ({"outputs": set(OUTPUTS)}, "outputs must be different texts"),
        ({"outputs": iter(OUTPUTS)}, "outputs must be different texts"),
        ({"groups": ["lane"]}, "groups are lists of outputs by names"),
        ({"groups": {1: ["lane"]}}, "groups are lists of outputs by names"),
        ({"groups": {"road": 5}}, "the group 'road' must be a list of outputs"),
        ({"groups": {"road": ["lane", "lane"]}}, "the group 'road' has an output twice"),
        ({"channel_order": None}, "channel_order is RGB or BGR"),
        ({"align_corners": "no"}, "align_corners is True or False, not 'no'"),
        ({"size": (240,)}, r"size is \(height, width\)"),
        ({"size": 512}, r"size is \(height, width\), not 512"),
        ({"size": ("512", 512)}, r"size is \(height, width\)"),
        ({"size": (True, True)}, r"size is \(height, width\)"),
        ({"size": {512, 1024}}, r"size is \(height, width\)"),
        ({"image_std": (0.2, 0.2, 0)}, "image_std above 0"),
        ({"image_std": 0.2}, "image_std above 0"),
        ({"image_mean": (float("nan"), 0.5, 0.5)}, "image_mean and image_std are 3 numbers"),
        ({"image_mean": (10**400, 0.5, 0.5)}, "image_mean and image_std are 3 numbers"),
        ({"image_mean": "0.5"}, "image_mean and image_std are 3 numbers"),
    ],
)
def test_descriptions_are_checked(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        NetworkDescription(**{"outputs": OUTPUTS, "groups": GROUPS, **changed})
