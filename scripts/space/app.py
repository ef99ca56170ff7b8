"""A Space: choose two models, see the plan of their merge, try the merge on a picture, and push it under your own name.

`python scripts/space/app.py` runs it on this machine.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import hf_lwmm
from hf_lwmm import Knobs, Layerwise

RAMPS = ("linear", "cosine", "step")
ROWS = 200  # of the layer table, spread over the depth
ABOUT = """# Merge two segmentation models

Layer by layer: the first layers are averaged, the last are the anchor's
([Layer-wise Model Merging](https://arxiv.org/abs/2409.15813)). No training, and the merge costs as much at inference as
one model. The same on the command line: `hf-lwmm merge A B --anchor A --push`.
"""


def build() -> gr.Blocks:
    """Return the whole app."""
    with gr.Blocks(title="hf-lwmm", delete_cache=(3600, 3600)) as app:
        with gr.Row():
            gr.Markdown(ABOUT)
            gr.LoginButton(scale=0, min_width=280)  # here, as signing in reloads the page
        with gr.Row():
            first = gr.Textbox(label="First model", placeholder="org/name[@revision][:file]", elem_id="first")
            second = gr.Textbox(label="Second model", placeholder="org/name[@revision][:file]", elem_id="second")
            anchor = gr.Radio(
                ["first", "second"], value="first", label="Anchor", info="Gives the task, the classes and the head."
            )
        with gr.Row():
            start = gr.Slider(0, 0.95, value=0, step=0.05, label="Start", info="Part of the depth with equal weights.")
            ramp = gr.Dropdown(RAMPS, value="linear", label="Ramp", info="How the other model fades.")
        choice = [first, second, anchor, start, ramp]
        with gr.Tab("Plan"):
            see = gr.Button("Show the plan", variant="primary", elem_id="plan")
            summary = gr.Markdown()
            weights = gr.Image(show_label=False, type="pil", elem_id="weights")
            layers = gr.Dataframe(headers=["position", "slot", "shape", "anchor", "other"], label="Layers")
            see.click(show_plan, choice, [summary, weights, layers], api_name="plan")
        with gr.Tab("Try it"):
            picture = gr.Image(label="Picture", type="pil", elem_id="picture")
            try_it = gr.Button("Merge and try", variant="primary", elem_id="try")
            seen = gr.Gallery(label="Anchor, other model and merge", columns=3, object_fit="contain", elem_id="seen")
            try_it.click(merge_and_try, [*choice, picture], seen, api_name="try")
        with gr.Tab("Push"):
            gr.Markdown(
                "The merge becomes a new repository of yours, with a card and a recipe to make it again. "
                "The app reaches no other repository of yours."
            )
            repo = gr.Textbox(label="Repository", placeholder="you/name", elem_id="repo")
            private = gr.Checkbox(label="Private", value=True)
            send = gr.Button("Merge and push", variant="primary", elem_id="push")
            done = gr.Markdown(elem_id="done")
            send.click(push, [*choice, repo, private], done, api_name="push")
    return app


def show_plan(
    first: str, second: str, anchor: str, start: float, ramp: str
) -> tuple[str, Image.Image, list[list[Any]]]:
    """Return a summary of the plan, a picture of its layer weights, and its layers."""
    models, index = _chosen(first, second, anchor)
    try:
        plan = hf_lwmm.plan(models, models[index], knobs=_knobs(start, ramp))
    except hf_lwmm.HfLwmmError as error:
        raise gr.Error(str(error)) from None
    drawn = io.BytesIO()
    hf_lwmm.plot_layer_weights(plan, drawn)
    alignment = plan.alignment
    shared = alignment.shared_parameters / alignment.anchor_parameters
    summary = (
        f"**{len(alignment.shared):,} tensors at {alignment.positions:,} depth positions are merged: {shared:.1%} "
    )
    summary += "of the anchor's weights.**\n\n"
    for role, place in (("anchor", index), ("other", 1 - index)):
        slots = plan.checkpoints[place].slot_map
        summary += f"- {role}: {plan.labels[place]}, {slots.architecture} ({slots.layout})\n"
    rows = []
    for slot in alignment.shared[:: 1 + len(alignment.shared) // ROWS]:
        parts = plan.slot_weights(slot) or {}
        shape = "x".join(map(str, slot.shape))
        rows.append([slot.position, slot.slot, shape, round(parts[index], 4), round(parts[1 - index], 4)])
    return summary, Image.open(drawn), rows


def merge_and_try(
    first: str, second: str, anchor: str, start: float, ramp: str, picture: Image.Image | None
) -> list[tuple[Image.Image, str]]:
    """Return the picture as the anchor, the other model and their merge see it, each with its most frequent classes."""
    models, index = _chosen(first, second, anchor)
    if picture is None:
        raise gr.Error("Choose a picture first.")
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        work = Path(folder)
        picture.convert("RGB").save(work / "picture.png")
        try:
            hf_lwmm.merge(models, models[index], knobs=_knobs(start, ramp), output=work / "merged")
            tried = [("anchor", models[index]), ("other", models[1 - index]), ("merge", work / "merged")]
            seen = []
            for role, model in tried:
                found = hf_lwmm.predict(model, [work / "picture.png"], work / role, key=False).done[0]
                parts = ", ".join(f"{name} {part:.0%}" for name, part in list(found.parts.items())[:4])
                with Image.open(found.files[0]) as overlay:
                    seen.append((overlay.convert("RGB"), f"{role}: {parts}"))
        except hf_lwmm.HfLwmmError as error:
            raise gr.Error(str(error)) from None
    return seen


def push(
    first: str,
    second: str,
    anchor: str,
    start: float,
    ramp: str,
    repo: str,
    private: bool,
    token: gr.OAuthToken | None,
) -> str:
    """Merge again under the user's own name, in a process of its own that alone knows the user's token."""
    models, index = _chosen(first, second, anchor)
    if token is None:
        raise gr.Error("Sign in first: the merge is pushed as you.")
    target = _repository(repo, "The repository")
    arguments = ["merge", *models, "--anchor", models[index], "--start", str(start), "--ramp", ramp, "--push", target]
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:  # where a merge whose push fails is kept, too
        ran = subprocess.run(
            [sys.executable, "-m", "hf_lwmm", *arguments, *(["--private"] if private else [])],
            env={**os.environ, "HF_TOKEN": token.token, "TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    if ran.returncode:
        said = ran.stderr.strip().removeprefix("Error: ").partition(" What was to be pushed is whole")[0]
        raise gr.Error(said or "The push failed.")
    return "\n\n".join(ran.stdout.strip().splitlines())


def _knobs(start: float, ramp: str) -> Knobs:
    return Knobs(method=Layerwise(start=float(start), ramp=ramp))


def _chosen(first: str, second: str, anchor: str) -> tuple[list[str], int]:
    """Return the two models, which may only be on the Hub, and the index of the anchor."""
    models = [_repository(first, "The first model"), _repository(second, "The second model")]
    return models, 0 if anchor == "first" else 1


def _repository(text: str, what: str) -> str:
    try:
        ref = hf_lwmm.parse_ref(text or "")
    except hf_lwmm.HfLwmmError as error:
        raise gr.Error(f"{what}: {error}") from None
    if ref.is_local:  # this machine's files are nobody's business
        raise gr.Error(f"{what}: write org/name.")
    return str(ref)


if __name__ == "__main__":
    build().launch()
