"""The Gradio Space on a local Hub: through its own client, and (slow) in a browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpx2
import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi
from PIL import Image

from hf_lwmm.demo import MODELS, upload_model
from hf_lwmm.demo.streets import render
from hf_lwmm.localhub import LocalHub

if TYPE_CHECKING:
    from gradio_client import Client

TOKEN = "token-of-a-visitor"
KNOBS = {"anchor": "first", "method": "layerwise", "start": 0.5, "ramp": "linear"}


@pytest.fixture(scope="module")
def space() -> ModuleType:
    """The Space's module, imported by the process that runs its tests alone: gradio takes long."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
    return import_module("scripts.space.app")


@pytest.fixture(scope="module")
def models(space: ModuleType, _served: LocalHub) -> dict[str, str]:
    """The quick start's two small SegFormers."""
    _served.add_user("visitor", token=TOKEN)
    space.can_sign_in.cache_clear()
    api = HfApi(endpoint=_served.endpoint, token=TOKEN)
    day, synthia = (upload_model(api, folder, "visitor") for folder in sorted(MODELS.iterdir()))
    return {"first": day, "second": synthia}


@pytest.fixture(scope="module")
def app(space: ModuleType, models: dict[str, str]) -> Iterator[str]:
    """The running app's address, on a machine that is logged in as the visitor."""
    space.FRAMES = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        blocks = space.build()
        _, address, _ = blocks.launch(prevent_thread_lock=True, quiet=True, css=space.CSS)
        yield address
        blocks.close()


@pytest.fixture(scope="module")
def client(app: str) -> Client:
    from gradio_client import Client

    return Client(app, verbose=False)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "street.png"
    Image.fromarray(render("night", 3).image).save(path)
    return path


def test_the_plan_is_told_drawn_and_listed(client: Client, models: dict[str, str]) -> None:
    summary, picture, layers = client.predict(**models, **KNOBS, api_name="/plan")
    assert "123 tensors at 109 depth positions" in summary and "100.0% of the anchor's weights" in summary
    assert "visitor/streets-gta@" in summary.split("other:")[0]
    assert picture.startswith('<img width="720" src="data:image/png;base64,')
    rows = layers["data"]
    assert rows[0][:2] == [1, "mit.stage0.embed.proj.weight"] and rows[0][3:] == [0.5, 0.5]
    assert rows[-1][0] == 109 and rows[-1][3:] == [1, 0]


def test_the_merge_is_tried_beside_its_parents(client: Client, models: dict[str, str], street: Path) -> None:
    from gradio_client import handle_file

    *pairs, legend = client.predict(**models, **KNOBS, picture=handle_file(street), api_name="/try")
    (anchor, merge), (other, same) = ([Image.open(path) for path in pair] for pair in pairs)
    assert {picture.size for picture in (anchor, other, merge)} == {Image.open(street).size}
    pixels = [np.asarray(picture).astype(int) for picture in (anchor, other, merge, same)]
    assert (pixels[2] == pixels[3]).all() and all(abs(p - pixels[2]).mean() > 1 for p in pixels[:2])
    rows = re.findall(r"background: (#\w{6})\"></span> (\w+)</td>((?:<td>[\d.]+%</td>){3})", legend)
    assert ("#804080", "road") in [row[:2] for row in rows]  # Cityscapes' colour
    parts = [[float(part) for part in re.findall(r"[\d.]+", row[2])] for row in rows]
    assert all(abs(sum(column) - 100) < 1 for column in zip(*parts, strict=True))


def test_the_merge_is_scored_with_a_verdict(client: Client, models: dict[str, str]) -> None:
    text, of_models, of_classes = client.predict(**models, **KNOBS, api_name="/score")
    assert re.match(r"\*\*(Keep|Take) .+\*\*\n", text) and "2 images of streets" in text
    assert of_models["headers"][:2] == ["model", "mIoU"]
    assert [row[0].partition("@")[0] for row in of_models["data"]] == [*models.values(), "merge"]
    assert "pedestrian" in [row[0] for row in of_classes["data"]]


def test_the_pair_that_is_there_shows_what_the_readme_shows(client: Client, space: ModuleType) -> None:
    # The README's merge is the method that is chosen here at first, and its 32 frames are those that are drawn here.
    fields = {each["label"]: each.get("parameter_default") for each in _parameters(client, "/score")}
    assert fields["Method"] == "isotropic"
    first, second = (Image.open(path) for path in sorted(space._streets("fog", frames=2).glob("images/*")))
    assert np.array_equal(first, render("fog", 200_000).image) and np.array_equal(second, render("fog", 200_001).image)
    names = [path.name for path in sorted(space._streets("evening", "fog", frames=11).glob("images/*"))]
    assert names[9:12] == ["evening-09.png", "evening-10.png", "fog-00.png"]  # which give the README's intervals, too


def _parameters(client: Client, endpoint: str) -> list[dict[str, Any]]:
    described = client.view_api(return_format="dict", print_info=False)
    assert isinstance(described, dict)
    parameters: list[dict[str, Any]] = described["named_endpoints"][endpoint]["parameters"]
    return parameters


def test_pairs_are_offered_that_are_there(space: ModuleType, models: dict[str, str]) -> None:
    pair = list(models.values())
    assert space.offered([*space.PAIRS, pair]) == [space.PAIRS[0], pair]  # the local Hub has none of NVIDIA's


def test_the_app_starts_without_a_token_and_says_how_to_push(
    space: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "get_token", lambda: None)
    space.can_sign_in.cache_clear()
    blocks = space.build()
    assert not blocks.expects_oauth
    why, button = space.may_push(None)
    assert "hf auth login" in why and not button.interactive
    space.can_sign_in.cache_clear()
    blocks.close()


def test_models_that_come_with_the_package_are_known_by_their_names(client: Client, space: ModuleType) -> None:
    summary, _, _ = client.predict(*space.PAIRS[0], **KNOBS, api_name="/plan")
    assert "anchor: streets-gta" in summary and str(MODELS) not in summary


def test_the_second_model_may_be_the_anchor(client: Client, models: dict[str, str]) -> None:
    summary, _, _ = client.predict(**models, **{**KNOBS, "anchor": "second"}, api_name="/plan")
    assert "visitor/streets-night@" in summary.split("other:")[0]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("visitor/nothing", "no model of this name that everyone may read. Check the name.$"),
        ("", "empty"),
        ("/etc/passwd", "write org/name"),
        (str(MODELS / "streets-gta"), "write org/name"),
        ("--push", "neither a local path nor a Hub model id"),
    ],
)
def test_what_cannot_be_merged_is_said(client: Client, models: dict[str, str], first: str, message: str) -> None:
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError, match=message):
        client.predict(first, models["second"], **KNOBS, api_name="/plan")


def test_a_push_needs_a_signed_in_user(client: Client, space: ModuleType, models: dict[str, str], app: str) -> None:
    why, button = space.may_push(None)
    assert "Sign in" in why and not button.interactive
    arguments = {**models, **KNOBS, "repo": "visitor/pushed", "private": True}
    assert "**Not pushed.** Sign in first" in client.predict(**arguments, api_name="/push")
    signed_in = type(client)(app, verbose=False, headers={"Cookie": _session(app)})
    text = signed_in.predict(**arguments, api_name="/push")
    assert "Pushed to" in text and "visitor/pushed" in text
    info = HfApi(token=TOKEN).model_info("visitor/pushed")
    assert info.private and info.card_data and info.card_data.base_model == [models["first"], models["second"]]
    # What went wrong stays on the page.
    failed = signed_in.predict(**{**arguments, "repo": "org/pushed"}, api_name="/push")
    assert failed.startswith("**Not pushed.** ") and "not a member of org" in failed


def _session(app: str) -> str:
    """The cookie of a user who has signed in; it is for https alone, so that a stock client would keep it back."""
    answer = httpx2.get(f"{app}login/huggingface", follow_redirects=False)
    while "set-cookie" not in answer.headers:
        answer = httpx2.get(str(answer.next_request.url) if answer.next_request else app, follow_redirects=False)
    return answer.headers["set-cookie"].split(";")[0]


def test_the_folder_is_a_space(tmp_path: Path) -> None:
    folder = Path(__file__).parents[1] / "scripts" / "space"
    head = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert head["sdk"] == "gradio" and (folder / head["app_file"]).is_file()
    assert head["hf_oauth"] is True and head["hf_oauth_scopes"] == ["contribute-repos"]  # no more than a push needs
    assert version("gradio").split(".")[0] == head["sdk_version"].split(".")[0]
    assert "hf-lwmm" in (folder / "requirements.txt").read_text()


@pytest.mark.slow
def test_the_app_works_in_a_browser(app: str, models: dict[str, str], street: Path, tmp_path: Path) -> None:
    """From the pair that is there to a pushed model, in Chromium without a window, wide and as on a telephone.

    Needs `chromium` and `chromium-driver` (Debian's packages) and `pip install selenium`; then
    `pytest -m slow tests/test_space.py --basetemp /tmp/space` leaves a picture of every tab there.
    """
    from browser import chromium, overflow, resize
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    with chromium(tmp_path / "profile") as browser:
        wait = WebDriverWait(browser, 120, ignored_exceptions=[WebDriverException])  # the page changes

        def find(css: str, text: str = "") -> Any:
            """The first element that is to be seen, with a text in it."""
            elements = (e for e in browser.find_elements(By.CSS_SELECTOR, css) if e.is_displayed() and text in e.text)
            return next(elements, None)

        def see(css: str, text: str = "") -> Any:
            return wait.until(lambda _: find(css, text))

        def press(css: str, text: str = "") -> None:
            wait.until(lambda _: (element := find(css, text)) is not None and element.click() is None)

        def open_tab(name: str) -> None:
            press("button[role=tab]", name)

        def keep(name: str) -> None:
            resize(browser, 390, 2400)
            assert overflow(browser) <= 0 and see("h1").size["width"] > 300, name
            browser.save_screenshot(str(tmp_path / f"{name}-telephone.png"))
            resize(browser, 1280, 1500)
            browser.save_screenshot(str(tmp_path / f"{name}.png"))

        def write(field: str, text: str) -> None:
            box = see(f"{field} textarea, {field} input")
            box.clear()
            box.send_keys(text)

        resize(browser, 1280, 1500)
        browser.get(app)
        open_tab("Push")
        see("#why", "Sign in above to push")
        assert not see("#push").is_enabled()
        keep("signed-out")
        press("button", "Sign in with Hugging Face")
        see("button", "Logout (visitor)")

        open_tab("Try it")
        press("#try")  # the pair and the picture that are there
        see("#legend", "road")
        wait.until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, "#by-anchor img")) >= 2)
        keep("try")
        open_tab("Scores")
        press("#score")
        see("#verdict", "Intervals are 95 %")
        see("#classes", "pedestrian")
        keep("scores")
        press("#method label", "layerwise")
        wait.until(lambda _: find("#verdict") is None and find("#classes") is None)  # they are of another choice
        keep("another-choice")

        write("#first", models["first"])
        write("#second", models["second"])
        open_tab("Plan")
        press("#plan")
        see("#weights img")
        see("body", "123 tensors at 109 depth positions")
        keep("plan")
        open_tab("Push")
        see("#why", "as visitor")
        write("#repo", "visitor/from-the-browser")
        press("#push")
        see("#done", "Pushed to")
        keep("push")
    assert HfApi(token=TOKEN).model_info("visitor/from-the-browser").private
