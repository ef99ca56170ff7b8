"""A Space: choose two models, see the plan of their merge, try and score the merge, and push it under your own name.

`python scripts/space/app.py` runs it on this machine.
"""

from __future__ import annotations

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
from gradio.utils import get_space
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError
from PIL import Image

import hf_lwmm
from hf_lwmm import Knobs, Layerwise, demo

Pair = tuple[Image.Image, Image.Image]
Table = dict[str, list[Any]]
# The first models come with hf-lwmm, so that the app can be tried without waiting for a download. Of the others, those
# are offered that are on the Hub that the app talks to.
PAIRS = [
    ["streets-gta", "streets-night"],
    ["nvidia/segformer-b0-finetuned-cityscapes-1024-1024", "nvidia/segformer-b0-finetuned-cityscapes-512-1024"],
]
FORM = "org/name, also with @revision or :file; streets-gta and streets-night come with the app"
FRAMES = 16  # of each of two styles, to score on
METHODS = ("isotropic", "layerwise")
RAMPS = ("linear", "cosine", "step")
ROWS = 200  # of the layer table, spread over the depth
ABOUT = """# Merge two segmentation models

No training, and the merge costs as much at inference as one model. `isotropic` averages all shared layers, for
pictures that are new to both models, or mixed of what each of them knows. `layerwise` averages the first layers and
keeps the last of the anchor ([Layer-wise Model Merging](https://arxiv.org/abs/2409.15813)), for the anchor's own kind
of pictures. On the command line, `hf-lwmm merge A B --anchor A --method isotropic --push` makes and pushes the merge
that is chosen here at first; `--method layerwise --start 0.5 --ramp cosine` makes others.
"""
# On a telephone tables and the figure keep their size, and are scrolled sideways in their frame.
CSS = """
.wide { overflow-x: auto; }
.wide img { max-width: none; }
.wide td, .wide th { padding: 4px 8px !important; white-space: nowrap; }
.sideways { display: none; }
@media (max-width: 640px) { .sideways { display: block; } }
"""
SIDEWAYS = "*Wide tables and figures can be pushed sideways.*"


def build() -> gr.Blocks:
    """Return the whole app."""
    with gr.Blocks(title="hf-lwmm", delete_cache=(3600, 3600)) as app:
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(ABOUT)
            if can_sign_in():
                gr.LoginButton(scale=0, min_width=280)  # here, as signing in reloads the page
        choice = _choices()
        with gr.Tab("Plan"):
            see = gr.Button("Show the plan", variant="primary", elem_id="plan")
            with gr.Column(visible=False) as plan:
                summary = gr.Markdown()
                gr.Markdown(SIDEWAYS, elem_classes="sideways")
                weights = gr.HTML(elem_id="weights", elem_classes="wide", padding=False)
                layers = gr.Dataframe(headers=["position", "slot", "shape", "anchor", "other"], label="Layers")
            seen = see.click(show_plan, choice, [summary, weights, layers], api_name="plan")
        with gr.Tab("Try it"):
            pictures = [str(path) for path in _streets("gta", "night", "evening", "fog", frames=1).glob("images/*")]
            picture = gr.Image(sorted(pictures)[0], label="Picture", type="pil", elem_id="picture", height=320)
            gr.Examples([[path] for path in sorted(pictures)], picture, label="Rendered streets", elem_id="pictures")
            try_it = gr.Button("Merge and try", variant="primary", elem_id="try")
            with gr.Column(visible=False) as trial:
                with gr.Row():
                    by_anchor = gr.ImageSlider(
                        label="Left: the anchor. Right: the merge.", type="pil", elem_id="by-anchor"
                    )
                    by_other = gr.ImageSlider(
                        label="Left: the other. Right: the merge.", type="pil", elem_id="by-other"
                    )
                legend = gr.HTML(elem_id="legend", elem_classes="wide", padding=False)
            tried = try_it.click(merge_and_try, [*choice, picture], [by_anchor, by_other, legend], api_name="try")
        with gr.Tab("Scores"):
            gr.Markdown(
                f"{2 * FRAMES} rendered streets in the evening and in fog, with labels: {', '.join(demo.CLASSES)}. "
                "Models of other classes cannot be scored on them."
            )
            measure = gr.Button("Merge and score", variant="primary", elem_id="score")
            with gr.Column(visible=False) as scores:
                verdict = gr.Markdown(elem_id="verdict")
                gr.Markdown(SIDEWAYS, elem_classes="sideways")
                of_models = gr.Dataframe(label="Models, in per cent", elem_id="models")
                of_classes = gr.Dataframe(label="Classes, in per cent", elem_id="classes")
            scored = measure.click(merge_and_score, choice, [verdict, of_models, of_classes], api_name="score")
        with gr.Tab("Push"):
            why = gr.Markdown(elem_id="why")
            repo = gr.Textbox(label="Repository", placeholder="you/name", elem_id="repo")
            private = gr.Checkbox(label="Private", value=True)
            send = gr.Button("Merge and push", variant="primary", interactive=False, elem_id="push")
            with gr.Column(visible=False) as outcome:
                done = gr.Markdown(elem_id="done")
            sent = send.click(push, [*choice, repo, private], done, api_name="push")
        _show_while_current([(seen, plan), (tried, trial), (scored, scores), (sent, outcome)], choice)
        picture.change(lambda: gr.Column(visible=False), None, trial, api_name=False)
        app.load(may_push, None, [why, send], api_name=False)
    return app


def _choices() -> list[gr.components.Component]:
    """The fields that say what is merged, and how."""
    with gr.Row():
        first = gr.Textbox(PAIRS[0][0], label="First model", info=FORM, elem_id="first")
        second = gr.Textbox(PAIRS[0][1], label="Second model", info=FORM, elem_id="second")
        anchor = gr.Radio(
            ["first", "second"], value="first", label="Anchor", info="Gives the task, the classes and the head."
        )
    gr.Examples(offered(PAIRS), [first, second], label="Pairs to start with", elem_id="pairs")
    with gr.Row():
        method = gr.Radio(
            METHODS, value=METHODS[0], label="Method", info="How the layers are merged.", elem_id="method"
        )
        start = gr.Slider(
            0, 0.95, value=0, step=0.05, label="Start", info="Part of the depth with equal weights.", visible=False
        )
        ramp = gr.Dropdown(RAMPS, value="linear", label="Ramp", info="How the other model fades.", visible=False)

    def show_options(chosen: str) -> tuple[gr.Slider, gr.Dropdown]:
        return gr.Slider(visible=chosen == "layerwise"), gr.Dropdown(visible=chosen == "layerwise")

    method.change(show_options, method, [start, ramp], api_name=False)
    return [first, second, anchor, method, start, ramp]


def _show_while_current(results: Sequence[tuple[Any, gr.Column]], choice: Sequence[Any]) -> None:
    """Show the results of each event in their place once they are there, and hide them when the choice changes."""
    for event, place in results:
        event.success(lambda: gr.Column(visible=True), None, place, api_name=False)
    running, places = zip(*results, strict=True)
    changes = [field.change for field in choice]

    def hide() -> list[gr.Column]:
        return [gr.Column(visible=False) for _ in places]

    gr.on(changes, hide, None, list(places), cancels=list(running), api_name=False)


def offered(pairs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Return the pairs whose models come with hf-lwmm or are on the Hub."""
    return [list(pair) for pair in pairs if all(map(_there, pair))]


def _there(model: str) -> bool:
    try:
        return model in _own_models() or HfApi().repo_exists(model)
    except Exception:  # whatever keeps the Hub out of reach: the app starts without it
        return False


@lru_cache
def can_sign_in() -> bool:
    """Return True in a Space, and on a machine with a token of a person, whom gradio takes for the visitor."""
    if get_space() is not None:
        return True
    try:
        return get_token() is not None and HfApi().whoami()["type"] == "user"
    except Exception:  # as above, or the token has expired
        return False


@lru_cache
def _streets(*styles: str, frames: int) -> Path:
    """A folder of rendered streets with their labels, in the order of the demo's, which is there as long as the app."""
    folder = Path(tempfile.mkdtemp(prefix="hf-lwmm-")) / "streets"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for style in styles:
        for number in range(frames):
            scene = demo.render(style, demo.FIRST_SCENE + number)
            Image.fromarray(scene.image).save(folder / "images" / f"{style}-{number:02}.png")
            Image.fromarray(scene.labels).save(folder / "labels" / f"{style}-{number:02}.png")
    (folder / "id2label.json").write_text(json.dumps(dict(enumerate(demo.CLASSES))), encoding="utf-8")
    return folder


def show_plan(
    first: str, second: str, anchor: str, method: str, start: float, ramp: str
) -> tuple[str, str, list[list[Any]]]:
    """Return a summary of the plan, a picture of its layer weights in HTML, and its layers."""
    models, index = _chosen(first, second, anchor)
    try:
        plan = hf_lwmm.plan(models, models[index], knobs=_knobs(method, start, ramp))
    except hf_lwmm.HfLwmmError as error:
        raise _refusal(error) from None
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
    return summary, plan.plot().to_html(), rows


def merge_and_try(
    first: str, second: str, anchor: str, method: str, start: float, ramp: str, picture: Image.Image | None
) -> tuple[Pair, Pair, str]:
    """Return what the merge sees in a picture, beside the anchor and beside the other model, and a legend in HTML."""
    if picture is None:
        raise _problem("Choose a picture first.")
    with _merged(first, second, anchor, method, start, ramp) as tried:
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


def merge_and_score(
    first: str, second: str, anchor: str, method: str, start: float, ramp: str
) -> tuple[str, Table, Table]:
    """Score the anchor, the other model and their merge on rendered streets.

    Returns:
        The verdict and what was scored, and the scores of the models and of the classes.
    """
    with _merged(first, second, anchor, method, start, ramp) as tried:
        report = hf_lwmm.evaluate(list(tried.values()), str(_streets("evening", "fog", frames=FRAMES)))
    verdict = f"**{report.verdict.sentence}**\n\n" if report.verdict else ""
    return verdict + report.summary, _table(*report.of_models()), _table(*report.of_classes())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return {"headers": list(header), "data": [list(row) for row in rows]}


@contextmanager
def _merged(first: str, second: str, anchor: str, method: str, start: float, ramp: str) -> Iterator[dict[str, Any]]:
    """A context with the anchor, the other model and their merge, whose folder is alone in one that vanishes."""
    models, index = _chosen(first, second, anchor)
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:
        try:
            hf_lwmm.merge(models, models[index], knobs=_knobs(method, start, ramp), output=Path(folder) / "merge")
            yield {"anchor": models[index], "other": models[1 - index], "merge": Path(folder) / "merge"}
        except hf_lwmm.HfLwmmError as error:
            raise _refusal(error) from None


def _refusal(error: hf_lwmm.HfLwmmError) -> gr.Error:
    """The error as a visitor can use it, who has no terminal."""
    said = str(error)
    if isinstance(error.__cause__, RepositoryNotFoundError):  # so are private and gated ones
        said = f"{said.partition(': ')[0]}: the Hub has no model of this name that everyone may read. Check the name."
    return _problem(said)


def _problem(text: str) -> gr.Error:
    """A message that stays until it is closed."""
    return gr.Error(text, duration=None, print_exception=False)


def may_push(profile: gr.OAuthProfile | None) -> tuple[str, gr.Button]:
    """Say who pushes, or why nobody can, and switch the button to it."""
    if not can_sign_in():
        why = (
            "**This machine is not logged in to the Hub.** To push from here, run `hf auth login` or set HF_TOKEN, and "
            "start the app again."
        )
        return why, gr.Button(interactive=False)
    if profile is None:
        why = (
            "**Sign in above to push.** That loads the page anew: choose the models again then. The merge is pushed "
            "under your name, with your own rights."
        )
        return why, gr.Button(interactive=False)
    if get_space() is None:
        why = f"Signed in on this machine: the merge is pushed with its own token, as {profile.username}."
        return why, gr.Button(interactive=True)
    why = (
        f"Signed in as {profile.username}. The merge becomes a new repository of yours, with a card and a recipe to "
        "make it again. The app reaches no other repository of yours."
    )
    return why, gr.Button(interactive=True)


def push(
    first: str,
    second: str,
    anchor: str,
    method: str,
    start: float,
    ramp: str,
    repo: str,
    private: bool,
    token: gr.OAuthToken | None,
) -> str:
    """Merge again under the user's own name, in a process of its own that alone knows the user's token.

    Returns:
        What was done, or why nothing was pushed.
    """
    models, index = _chosen(first, second, anchor)
    if token is None:
        return "**Not pushed.** Sign in first: the merge is pushed as you."
    if not repo.strip():
        raise _problem("Name the repository to push to: you/name.")
    target = _repository(repo, "The repository")
    options = ["--method", method, *(["--start", str(start), "--ramp", ramp] if method == "layerwise" else [])]
    arguments = ["merge", *models, "--anchor", models[index], *options, "--push", target]
    own = get_token() if get_space() is None else token.token  # outside of Spaces gradio's is a mock
    with tempfile.TemporaryDirectory(prefix="hf-lwmm-") as folder:  # where a merge whose push fails is kept, too
        ran = subprocess.run(
            [sys.executable, "-m", "hf_lwmm", *arguments, *(["--private"] if private else [])],
            env={**os.environ, "HF_TOKEN": own or "", "TMPDIR": folder},
            capture_output=True,
            text=True,
        )
    if ran.returncode:
        said = ran.stderr.strip().removeprefix("Error: ").partition(" What was to be pushed is whole")[0]
        return f"**Not pushed.** {said}"
    return "\n\n".join(ran.stdout.strip().splitlines())


def _knobs(method: str, start: float, ramp: str) -> Knobs:
    return Knobs(method=Layerwise(start=float(start), ramp=ramp) if method == "layerwise" else method)


def _chosen(first: str, second: str, anchor: str) -> tuple[list[str], int]:
    """Return the two models and the index of the anchor."""
    models = [_model(first, "The first model"), _model(second, "The second model")]
    return models, 0 if anchor == "first" else 1


def _model(text: str, what: str) -> str:
    """Return a model on the Hub, or one that comes with hf-lwmm."""
    return _own_models().get(text) or _repository(text, what)


@lru_cache
def _own_models() -> dict[str, str]:
    """The folders of the models that come with hf-lwmm, by name."""
    return {folder.name: str(folder) for folder in demo.MODELS.iterdir()}


def _repository(text: str, what: str) -> str:
    try:
        ref = hf_lwmm.parse_ref(text or "")
    except hf_lwmm.HfLwmmError as error:
        raise _problem(f"{what}: {error}") from None
    if ref.is_local:  # this machine's files are nobody's business
        raise _problem(f"{what}: write org/name.")
    return str(ref)


if __name__ == "__main__":
    build().launch(css=CSS)
