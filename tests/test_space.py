"""The Gradio Space on a local Hub: through its own client, and (slow) in a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi
from PIL import Image

from hf_lwmm.demo import MODELS, upload_model
from hf_lwmm.demo.streets import render
from hf_lwmm.localhub import LocalHub
from scripts.space.app import build

# Whom gradio signs in where there is no real Hub.
TOKEN = "mock-oauth-token-for-local-dev"
KNOBS = {"anchor": "first", "start": 0.5, "ramp": "linear"}


@pytest.fixture(scope="module")
def models(_served: LocalHub) -> dict[str, str]:
    """The quick start's two small SegFormers."""
    _served.add_user("visitor", token=TOKEN)
    api = HfApi(endpoint=_served.endpoint, token=TOKEN)
    day, synthia = (upload_model(api, folder, "visitor") for folder in sorted(MODELS.iterdir()))
    return {"first": day, "second": synthia}


@pytest.fixture(scope="module")
def app(models: dict[str, str]) -> Iterator[str]:
    """The running app's address."""
    space = build()
    _, address, _ = space.launch(prevent_thread_lock=True, quiet=True)
    yield address
    space.close()


@pytest.fixture(scope="module")
def client(app: str) -> Client:
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
    with Image.open(picture) as drawn:
        assert drawn.width > 1000
    rows = layers["data"]
    assert rows[0][:2] == [1, "mit.stage0.embed.proj.weight"] and rows[0][3:] == [0.5, 0.5]
    assert rows[-1][0] == 109 and rows[-1][3:] == [1, 0]


def test_the_merge_is_tried_beside_its_parents(client: Client, models: dict[str, str], street: Path) -> None:
    seen = client.predict(**models, **KNOBS, picture=handle_file(street), api_name="/try")
    captions = [each["caption"] for each in seen]
    assert [caption.split(":")[0] for caption in captions] == ["anchor", "other", "merge"]
    assert all("%" in caption for caption in captions) and len(set(captions)) == 3
    sizes = {Image.open(each["image"]).size for each in seen}
    assert sizes == {Image.open(street).size}


def test_the_second_model_may_be_the_anchor(client: Client, models: dict[str, str]) -> None:
    summary, _, _ = client.predict(**models, **{**KNOBS, "anchor": "second"}, api_name="/plan")
    assert "visitor/streets-night@" in summary.split("other:")[0]


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("visitor/nothing", "no such model"),
        ("", "empty"),
        ("/etc/passwd", "write org/name"),
        (str(MODELS / "streets-gta"), "write org/name"),
        ("--push", "neither a local path nor a Hub model id"),
    ],
)
def test_what_cannot_be_merged_is_said(client: Client, models: dict[str, str], first: str, message: str) -> None:
    with pytest.raises(AppError, match=message):
        client.predict(first, models["second"], **KNOBS, api_name="/plan")


def test_a_push_needs_a_signed_in_user(client: Client, models: dict[str, str], app: str) -> None:
    arguments = {**models, **KNOBS, "repo": "visitor/pushed", "private": True}
    with pytest.raises(AppError, match="Sign in first"):
        client.predict(**arguments, api_name="/push")
    signed_in = Client(app, verbose=False, headers={"Cookie": _session(app)})
    text = signed_in.predict(**arguments, api_name="/push")
    assert "Pushed to" in text and "visitor/pushed" in text
    info = HfApi(token=TOKEN).model_info("visitor/pushed")
    assert info.private and info.card_data and info.card_data.base_model == [models["first"], models["second"]]
    with pytest.raises(AppError, match="not a member of org"):
        signed_in.predict(**{**arguments, "repo": "org/pushed"}, api_name="/push")


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
    assert gr.__version__.split(".")[0] == head["sdk_version"].split(".")[0]
    assert "hf-lwmm" in (folder / "requirements.txt").read_text()


@pytest.mark.slow
def test_the_app_works_in_a_browser(app: str, models: dict[str, str], street: Path, tmp_path: Path) -> None:
    """From typing two names to a pushed model, in Chromium without a window.

    Needs `chromium` and `chromium-driver` (Debian's packages) and `pip install selenium`; then
    `pytest -m slow tests/test_space.py --basetemp /tmp/space` leaves a picture of every tab there.
    """
    from selenium import webdriver
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    options = webdriver.ChromeOptions()
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1280,1500", f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options, service) as browser:
        wait = WebDriverWait(browser, 120, ignored_exceptions=[StaleElementReferenceException])

        def find(css: str, text: str = "") -> Any:
            """The first element that is to be seen, with a text in it."""
            elements = (e for e in browser.find_elements(By.CSS_SELECTOR, css) if e.is_displayed() and text in e.text)
            return next(elements, None)

        def see(css: str, text: str = "") -> Any:
            return wait.until(lambda _: find(css, text))

        browser.get(app)
        see("button", "Sign in with Hugging Face").click()
        see("button", "Logout (local)")
        see("#first textarea, #first input").send_keys(models["first"])
        see("#second textarea, #second input").send_keys(models["second"])
        see("#plan").click()
        see("#weights img")
        see("body", "123 tensors at 109 depth positions")
        browser.save_screenshot(str(tmp_path / "plan.png"))

        see("button[role=tab]", "Try it").click()
        browser.find_element(By.CSS_SELECTOR, "#picture input[type=file]").send_keys(str(street))
        see("#picture img")
        see("#try").click()
        wait.until(lambda _: len(browser.find_elements(By.CSS_SELECTOR, "#seen img")) >= 3)
        see("#seen", "merge: ")
        browser.save_screenshot(str(tmp_path / "try.png"))

        see("button[role=tab]", "Push").click()
        see("#repo textarea, #repo input").send_keys("visitor/from-the-browser")
        see("#push").click()
        see("#done", "Pushed to")
        browser.save_screenshot(str(tmp_path / "push.png"))
    assert HfApi(token=TOKEN).model_info("visitor/from-the-browser").private
