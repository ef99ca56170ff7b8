"""A Space: choose two models, see the plan of their merge, try and score the merge, and push it under your own name.

`python scripts/space/app.py` runs it on this machine.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import hf_lwmm
from hf_lwmm import Knobs, Layerwise, demo

Pair = tuple[Image.Image, Image.Image]
Table = dict[str, list[Any]]
# The first models come with hf-lwmm, so that the app can be tried without waiting for a download.
PAIRS = [
    ["streets-gta", "streets-night"],
    ["nvidia/segformer-b0-finetuned-cityscapes-1024-1024", "nvidia/segformer-b0-finetuned-cityscapes-640-1280"],
]
FORM = "org/name, also with @revision or :file"
FRAMES = 8  # of each of two styles, to score on
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
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(ABOUT)
            gr.LoginButton(scale=0, min_width=280)  # here, as signing in reloads the page
        with gr.Row():
            first = gr.Textbox(PAIRS[0][0], label="First model", info=FORM, elem_id="first")
            second = gr.Textbox(PAIRS[0][1], label="Second model", info=FORM, elem_id="second")
            anchor = gr.Radio(
                ["first", "second"], value="first", label="Anchor", info="Gives the task, the classes and the head."
            )
        gr.Examples(PAIRS, [first, second], label="Pairs to start with", elem_id="pairs")
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
            pictures = [str(path) for path in _streets("gta", "night", "evening", "fog", frames=1).glob("images/*")]
            picture = gr.Image(sorted(pictures)[0], label="Picture", type="pil", elem_id="picture", height=320)
            gr.Examples([[path] for path in sorted(pictures)], picture, label="Rendered streets", elem_id="pictures")
            try_it = gr.Button("Merge and try", variant="primary", elem_id="try")
            with gr.Row():
                by_anchor = gr.ImageSlider(label="Left: the anchor. Right: the merge.", type="pil", elem_id="by-anchor")
                by_other = gr.ImageSlider(label="Left: the other. Right: the merge.", type="pil", elem_id="by-other")
            legend = gr.HTML(elem_id="legend", padding=False)
            try_it.click(merge_and_try, [*choice, picture], [by_anchor, by_other, legend], api_name="try")
        with gr.Tab("Scores"):
            gr.Markdown(
                f"{2 * FRAMES} rendered streets in the evening and in fog, with labels: {', '.join(demo.CLASSES)}. "
                "Models of other classes cannot be scored on them."
            )
            measure = gr.Button("Merge and score", variant="primary", elem_id="score")
            verdict = gr.Markdown(elem_id="verdict")
            of_models = gr.Dataframe(label="Models, in per cent", elem_id="models")
            of_classes = gr.Dataframe(label="Classes, in per cent", elem_id="classes")
            measure.click(merge_and_score, choice, [verdict, of_models, of_classes], api_name="score")
        with gr.Tab("Push"):
            why = gr.Markdown(elem_id="why")
            repo = gr.Textbox(label="Repository", placeholder="you/name", elem_id="repo")
            private = gr.Checkbox(label="Private", value=True)
            send = gr.Button("Merge and push", variant="primary", interactive=False, elem_id="push")
            done = gr.Markdown(elem_id="done")
            send.click(push, [*choice, repo, private], done, api_name="push")
        app.load(may_push, None, [why, send], api_name=False)
    return app


@lru_cache
def _streets(*styles: str, frames: int) -> Path:
    """A folder of rendered streets with their labels, which is there as long as the app."""
    folder = Path(tempfile.mkdtemp(prefix="hf-lwmm-")) / "streets"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for style in styles:
        for number in range(frames):
            scene = demo.render(style, number)
            Image.fromarray(scene.image).save(folder / "images" / f"{style}-{number}.png")
            Image.fromarray(scene.labels).save(folder / "labels" / f"{style}-{number}.png")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(demo.CLASSES))), encoding="utf-8")
    return folder


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
) -> tuple[Pair, Pair, str]:
    """Return what the merge sees in a picture, beside the anchor and beside the other model, and a legend in HTML."""
    if picture is None:
        raise gr.Error("Choose a picture first.")
    with _merged(first, second, anchor, start, ramp) as tried:
        work = tried["merge"].parent
        picture.convert("RGB").save(work / "picture.png")
        overlays, legend = {}, dict[str, tuple[str, dict[str, float]]]()
        for role, model in tried.items():
            found = hf_lwmm.predict(model, [work / "picture.png"], work / f"seen by {role}", key=False).done[0]
            with Image.open(found.files[0]) as overlay, Image.open(found.files[1]) as labels:
                overlays[role] = overlay.convert("RGB")
                ids, palette = labels.getcolors(256) or [], labels.getpalette() or []
            # The classes are sorted by their parts, and those of one size by their ids.
            for name, (_, index) in zip(found.parts, sorted(ids, key=lambda each: (-each[0], each[1])), strict=True):
                colour = "#" + bytes(palette[3 * index : 3 * index + 3]).hex()
                legend.setdefault(name, (colour, {}))[1][role] = found.parts[name]
    merge = overlays["merge"]
    return (overlays["anchor"], merge), (overlays["other"], merge), _legend(legend, list(tried))


def _legend(classes: dict[str, tuple[str, dict[str, float]]], roles: list[str]) -> str:
    """A table of classes with their colours, and the parts of the picture that each model gives them."""
    rows = "".join(
        f'<tr><td><span style="display: inline-block; width: 1em; height: 1em; background: {colour}"></span> '
        f"{escape(name)}</td>{''.join(f'<td>{parts.get(role, 0):.1%}</td>' for role in roles)}</tr>"
        for name, (colour, parts) in classes.items()
    )
    return f"<table><tr><th>class</th>{''.join(f'<th>{role}</th>' for role in roles)}</tr>{rows}</table>"


def merge_and_score(first: str, second: str, anchor: str, start: float, ramp: str) -> tuple[str, Table, Table]:
    """Score the anchor, the other model and their merge on rendered streets.

    Returns:
        The verdict and what was scored, and the scores of the models and of the classes.
    """
    with _merged(first, second, anchor, start, ramp) as tried:
        report = hf_lwmm.evaluate(list(tried.values()), str(_streets("evening", "fog", frames=FRAMES)))
    verdict = f"**{report.verdict.sentence}**\n\n" if report.verdict else ""
    return verdict + report.summary, _table(*report.of_models()), _table(*report.of_classes())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return {"headers": list(header), "data": [list(row) for row in rows]}


@contextmanager
def _merged(first: str, second: str, anchor: str, start: float, ramp: str) -> Iterator[dict[str, Any]]:
    """A context with the anchor, the other model and their merge, whose folder is alone in one that vanishes."""
    models, index = _chosen(first, second, anchor)
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        try:
            hf_lwmm.merge(models, models[index], knobs=_knobs(start, ramp), output=Path(folder) / "merge")
            yield {"anchor": models[index], "other": models[1 - index], "merge": Path(folder) / "merge"}
        except hf_lwmm.HfLwmmError as error:
            raise gr.Error(str(error)) from None


def may_push(profile: gr.OAuthProfile | None) -> tuple[str, gr.Button]:
    """Say who pushes, or why nobody can, and switch the button to it."""
    if profile is None:
        why = "**Sign in above to push.** The merge is pushed under your name, with your own rights."
        return why, gr.Button(interactive=False)
    why = (
        f"Signed in as {profile.username}. The merge becomes a new repository of yours, with a card and a recipe to "
        "make it again. The app reaches no other repository of yours."
    )
    return why, gr.Button(interactive=True)


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
    """Return the two models and the index of the anchor."""
    models = [_model(first, "The first model"), _model(second, "The second model")]
    return models, 0 if anchor == "first" else 1


def _model(text: str, what: str) -> str:
    """Return a model on the Hub, or one that comes with hf-lwmm."""
    known = {folder.name: str(folder) for folder in demo.MODELS.iterdir()}
    return known.get(text) or _repository(text, what)


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
