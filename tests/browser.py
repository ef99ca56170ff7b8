"""A browser for tests: Chromium without a window."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def chromium(profile: Path) -> Any:
    """Return a Chromium that keeps its files in `profile`, and ends with the context that it is."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
        "disable-component-update", "disable-sync", "window-size=1280,1500", f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def resize(browser: Any, width: int, height: int = 900) -> None:
    """Give the page a size, below 500 that of a telephone."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def overflow(browser: Any) -> int:
    """Return by how many pixels the page is wider than the window."""
    wide: int = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    return wide
