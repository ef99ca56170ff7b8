"""ESPNetv2, the example of a network of one's own, and the grouping of its outputs into the classes of CamVid."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from reference import assert_equals_reference, reference, seeded_image
from seeded import seeded

from hf_lwmm.networks.grouping import grouped

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.networks import espnetv2


def test_the_example_equals_the_original_code() -> None:
    network = espnetv2.s05({}, espnetv2.OUTPUTS).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    kinds = {name: "int64" if name.endswith("tracked") else "float32" for name in shapes}
    network.load_state_dict({n: torch.from_numpy(seeded(n, shape, kinds[n])) for n, shape in shapes.items()})
    with torch.inference_mode():
        assert_equals_reference(network(seeded_image(64, 96)), reference("espnetv2_s0.5")["logits"])


def test_every_class_of_the_examples_data_set_has_its_outputs() -> None:
    used = [name for members in espnetv2.CAMVID.groups.values() for name in members]
    assert sorted([*used, "background"]) == sorted(espnetv2.OUTPUTS)
    assert len(espnetv2.CAMVID.classes) == 11


def test_grouped_logits_give_the_summed_probabilities_of_the_groups() -> None:
    logits = torch.randn(2, 5, 3, 4)
    sums = logits.softmax(1)
    expected = torch.stack([sums[:, 0] + sums[:, 3], sums[:, 2]], 1)
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(grouped(logits, [(0, 3), (2,)]).softmax(1), expected)
