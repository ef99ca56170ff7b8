"""The local Hub's pages for people, over real HTTP, and (slow) in a browser."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_requests import BOB, TOKEN, Reply, commit, hub_of_two, send, small

from hf_lwmm.localhub import LocalHub

CARD = b"""---
license: mit
base_model: [local/other, javascript:alert(1)]
tags: ["<script>tag</script>"]
---
# A card <script>document.title = "owned"</script>

<img src="x.png" onerror="document.title = 'owned'"> <svg onload="document.title = 'owned'"></svg>
<a href="java&#10;script:alert(1)">a</a> [b](javascript:alert(1)) [c](data:text/html,x) <iframe src="/"></iframe>
<style>body { display: none }</style><form action="/api/repos/create"><input name="a"></form>
<p style="color: red">red</p>

<details><summary>A fold</summary>

| left | right |
| :-- | --: |
| 1 | 2 |

</details>

![A plot](plots/a%20b.png) [notes](sub/n%C3%B6te.txt#end) [up](../../secret) [root](/local/pub) [out](https://example.com/)

```python
1 < 2
```
"""
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>document.title='owned'</script></svg>"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """local's repositories pub, with a card and files, and priv; bob may not know of priv."""
    with hub_of_two(tmp_path_factory.mktemp("pages") / "hub") as hub:
        assert send(hub, "POST", "/api/repos/create", {"name": "priv", "private": True}, TOKEN).status == 200
        files = {
            "README.md": CARD,
            "plots/a b.png": b"\x89PNG",
            "pic.svg": SVG,
            "page.html": b"<script>alert(1)</script>",
            "sub/n\u00f6te.txt": "gr\u00fcn <b>".encode(),
            "sub/<b>&'\"#?%2F.txt": b"odd",
            "latin.txt": "gr\u00fcn".encode("latin-1"),
            "long.md": b"# long\n" * 20_000,
            "huge.txt": b"x" * 2**19,
            "nearly.txt": b"x" * 999_700,
            "raw.bin": b"\0\1",
        }
        changes = [small(path, content) for path, content in files.items()]
        assert commit(hub, "local/pub", *changes, token=TOKEN).status == 200
        assert commit(hub, "local/priv", small("README.md", b"# Hidden"), token=TOKEN).status == 200
        yield hub


def page(hub: LocalHub, path: str, token: str = "", status: int = 200) -> str:
    """The page at a path, as a browser with this token gets it."""
    reply = seen(hub, path, token)
    assert reply.status == status and reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.body.decode()


def seen(hub: LocalHub, path: str, token: str = "", method: str = "GET") -> Reply:
    basic = base64.b64encode(f"anybody:{token}".encode()).decode()
    return send(hub, method, path, headers={"Authorization": f"Basic {basic}"} if token else {})


def test_the_index_lists_what_the_visitor_may_see(hub: LocalHub) -> None:
    assert all("/local/pub" in page(hub, path) for path in ("/", "/models", "/local"))
    for path in ("/", "/models", "/local"):
        assert "priv" not in page(hub, path) and "priv" not in page(hub, path, BOB)
        assert 'href="/local/priv"' in page(hub, path, TOKEN)
    assert "There are none that you may see" in page(hub, "/datasets")


def test_a_card_is_rendered_with_its_tables_folds_and_pictures(hub: LocalHub) -> None:
    text = page(hub, "/local/pub")
    assert '<img src="/local/pub/resolve/main/plots/a%20b.png" alt="A plot">' in text
    assert 'href="/local/pub/blob/main/sub/n%C3%B6te.txt#end"' in text and 'href="/local/pub"' in text
    assert "<details><summary>A fold</summary>" in text and '<td align="right">2</td>' in text
    assert "1 &lt; 2" in text and 'href="https://example.com/"' in text
    assert "license: mit" not in text and '<a href="/local/other">' in text


def test_a_card_does_nothing_in_a_browser(hub: LocalHub) -> None:
    text = page(hub, "/local/pub")
    assert not re.search(r"<(script|style|iframe|form|input|svg)|\son\w+=|style=|href=\"(java|data:t)", text)
    assert "&lt;script&gt;tag" in text


def test_files_are_listed_and_shown(hub: LocalHub) -> None:
    text = page(hub, "/local/pub/tree/main")
    assert text.index("plots/</a>") < text.index("README.md</a>") and "50 bytes" in text
    assert "524 kB" in text and "1 MB" in text and "1e+03" not in text
    odd = "sub/%3Cb%3E%26%27%22%23%3F%252F.txt"
    assert f'href="/local/pub/blob/main/{odd}"' in page(hub, "/local/pub/tree/main/sub")
    assert "<pre>odd</pre>" in page(hub, f"/local/pub/blob/main/{odd}")
    assert "gr\u00fcn &lt;b&gt;" in page(hub, "/local/pub/blob/main/sub/n%C3%B6te.txt")
    latin = page(hub, "/local/pub/blob/main/latin.txt")
    assert "gr\ufffdn" in latin and "not UTF-8" in latin
    assert "<pre># long" in page(hub, "/local/pub/blob/main/long.md")
    assert "too large to be shown" in page(hub, "/local/pub/blob/main/huge.txt")
    assert "not text" in page(hub, "/local/pub/blob/main/raw.bin")
    assert '<img src="/local/pub/resolve/main/pic.svg"' in page(hub, "/local/pub/blob/main/pic.svg")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("plots/a%20b.png", "image/png"),
        ("pic.svg", "image/svg+xml"),
        ("page.html", "application/octet-stream"),
        ("README.md", "application/octet-stream"),
    ],
)
def test_only_pictures_open_in_a_browser_and_these_sandboxed(hub: LocalHub, path: str, kind: str) -> None:
    reply = send(hub, "GET", f"/local/pub/resolve/main/{path}")
    assert (reply.status, reply.headers["content-type"]) == (200, kind)
    assert "sandbox" in reply.headers["content-security-policy"]
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_the_history_leads_to_what_each_commit_changed(hub: LocalHub) -> None:
    history = page(hub, "/local/pub/commits/main")
    found = re.search(r'href="(/local/pub/commit/\w{40})"', history)
    assert found and "initial commit" in history
    assert re.search(r"README\.md</a></td><td class=\"number\">added", page(hub, found[1]))


def test_discussions_and_pull_requests_have_pages(hub: LocalHub) -> None:
    assert "There are no discussions" in page(hub, "/local/pub/discussions")
    body = {"title": "<i>Why?</i>", "pullRequest": True}
    assert send(hub, "POST", "/api/models/local/pub/discussions", body, BOB).status == 200
    assert "&lt;i&gt;Why?" in page(hub, "/local/pub/discussions")
    assert "/local/pub/tree/refs%2Fpr%2F1" in page(hub, "/local/pub/discussions/1")
    at = page(hub, "/local/pub/tree/refs%2Fpr%2F1")
    assert "at refs/pr/1" in at and "/local/pub/blob/refs%2Fpr%2F1/README.md" in at


def test_links_lead_to_headings(hub: LocalHub) -> None:
    assert '<h1 id="a-card' in page(hub, "/local/pub", TOKEN)
    assert commit(hub, "local/pub", small("a.md", b"[x](#use-it)\n\n## Use it!"), token=TOKEN).status == 200
    shown = page(hub, "/local/pub/blob/main/a.md", TOKEN)
    assert 'href="#use-it"' in shown and '<h2 id="use-it">' in shown


def test_a_card_without_text_says_so(hub: LocalHub) -> None:
    bare = {"name": "bare", "type": "dataset"}
    assert send(hub, "POST", "/api/repos/create", bare, TOKEN).status == 200
    metadata = small("README.md", b"---\nlicense: mit\n---\n")
    assert commit(hub, "local/bare", metadata, token=TOKEN, kind="dataset").status == 200
    assert "The card has metadata alone" in page(hub, "/datasets/local/bare", TOKEN)


@pytest.mark.parametrize("rest", ["", "/tree/main", "/blob/main/README.md", "/commits/main", "/discussions"])
def test_a_private_repository_is_as_one_that_does_not_exist(hub: LocalHub, rest: str) -> None:
    for token in ("", BOB):
        hidden, missing = (page(hub, f"/local/{name}{rest}", token, 404) for name in ("priv", "none"))
        assert hidden.replace("priv", "none") == missing
    assert "private" in page(hub, f"/local/priv{rest}", TOKEN)


def test_a_gated_repository_says_so(hub: LocalHub) -> None:
    assert send(hub, "POST", "/api/repos/create", {"name": "gated"}, TOKEN).status == 200
    assert send(hub, "PUT", "/api/models/local/gated/settings", {"gated": "auto"}, TOKEN).status == 200
    assert "This repository is gated" in page(hub, "/local/gated", status=403)
    assert "bob has no access" in page(hub, "/local/gated/tree/main", BOB, 403)
    assert "no card" in page(hub, "/local/gated", TOKEN)


@pytest.mark.parametrize(
    "path",
    [
        "/local/pub/blob/main/../../../../users.json",
        "/local/pub/blob/main/..%2F..%2Fusers.json",
        "/local/pub/tree/main/none",
        "/local/pub/tree/none",
        "/local/pub/commit/%3Cscript%3E",
        "/local/..%2F..",
        "/datasets/local/pub",
        "/local/pub/discussions/x",
        "/nobody",
        "/style.css/x",
    ],
)
def test_what_is_not_there_is_said_on_a_page(hub: LocalHub, path: str) -> None:
    assert "<script" not in page(hub, path, status=404)


def test_signing_in_is_the_browsers_and_leads_back(hub: LocalHub) -> None:
    assert 'href="/login?next=/local/priv"' in page(hub, "/local/priv", status=404)
    asked = seen(hub, "/login?next=/local/priv")
    assert asked.status == 401 and asked.headers["www-authenticate"].startswith("Basic ")
    assert seen(hub, "/login?next=/local/priv", "wrong").headers["www-authenticate"].startswith("Basic ")
    home = f"http://127.0.0.1:{hub.port}/"
    for place, leads in {"/local/priv": "local/priv", "//evil.org": "evil.org", "https://evil.org": "https:"}.items():
        reply = seen(hub, f"/login?next={place}", TOKEN)
        assert reply.status == 303 and reply.headers["location"].startswith(home + leads)


def test_what_a_browser_sends_by_itself_changes_nothing(hub: LocalHub) -> None:
    for method, path in (("POST", "/api/repos/create"), ("GET", "/api/models/local/priv"), ("GET", "/api/whoami-v2")):
        assert seen(hub, path, TOKEN, method).status == 401
    assert seen(hub, "/local/priv/resolve/main/README.md", TOKEN).body == b"# Hidden"
    assert seen(hub, "/local/priv/resolve/main/README.md", BOB).status == 404


@pytest.mark.slow
def test_the_pages_in_a_browser(hub: LocalHub, tmp_path: Path) -> None:
    """A hostile card on a wide screen and on a telephone, and signing in.

    Needs `chromium` and `chromium-driver`, as `test_space.py`; `--basetemp` keeps the pictures of the pages.
    """
    from browser import chromium, overflow, resize
    from selenium.webdriver.common.by import By

    with chromium(tmp_path / "profile") as browser:
        for name, width in (("wide", 1200), ("telephone", 390)):
            resize(browser, width)
            for path in ("", "/local/pub", "/local/pub/tree/main", "/local/pub/commits/main"):
                browser.get(f"{hub.endpoint}{path}")
                browser.save_screenshot(str(tmp_path / f"{name}{path.replace('/', '-')}.png"))
                assert "owned" not in browser.title
                assert overflow(browser) <= 0
        browser.get(f"{hub.endpoint}/local/pub/blob/main/pic.svg")
        assert browser.execute_script("return document.querySelector('img').naturalWidth") == 9
        browser.get(f"{hub.endpoint}/local/pub/resolve/main/pic.svg")
        assert "owned" not in browser.title
        browser.get(f"{hub.endpoint}/local/priv")
        assert "nothing here that you may see" in browser.find_element(By.TAG_NAME, "h1").text
        browser.get(f"{hub.endpoint.replace('//', f'//anybody:{TOKEN}@')}/login?next=/local/priv")
        assert "Hidden" in browser.find_element(By.TAG_NAME, "article").text
