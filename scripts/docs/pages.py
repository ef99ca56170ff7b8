"""Complete the site while mkdocs builds it: pages that lie elsewhere in the repository, and tables made from the code.

mkdocs calls the functions whose names begin with `on_` (see `hooks` in mkdocs.yml).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from posixpath import dirname, normpath, relpath

import generated
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Files of the repository that are pages of the site, too, and the page that each becomes.
BORROWED: Mapping[str, str] = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "hf_lwmm/methods/README.md": "method.md",
    "hf_lwmm/layouts/README.md": "layouts.md",
    "hf_lwmm/networks/README.md": "networks.md",
    "hf_lwmm/data/README.md": "data.md",
    "hf_lwmm/evaluation/README.md": "evaluation.md",
    "model_cards/README.md": "model-cards.md",
    "model_cards/streets.md": "streets.md",
    "model_cards/uda-bench.md": "bench.md",
    "model_cards/real-bench.md": "real-bench.md",
    "model_cards/uda-bench-alike.md": "bench-alike.md",
}
_ORIGINS = {page: source for source, page in BORROWED.items()}
_GENERATED: Mapping[str, Callable[[], str]] = {
    "knobs": generated.knobs,
    "commands": generated.commands,
    "recipe": generated.recipe,
    "api": generated.api,
}
# What stands between the marks is for readers of the file itself, and gives way to what is made from the code.
_MARKER = re.compile(r"<!-- generated: (\w+) -->.*?<!-- end -->", re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the borrowed pages, and the pictures of the model cards."""
    for source, page in BORROWED.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / "model_cards").rglob("*.png")):
        files.append(File.generated(config, picture.relative_to(ROOT).as_posix(), abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tables made from code, and turn links between files of the repository into links of the site."""
    here = page.file.src_uri
    origin = _ORIGINS.get(here, f"docs/{here}")
    filled = _MARKER.sub(lambda marker: _GENERATED[marker[1]](), markdown)
    return _LINK.sub(lambda link: _link(link[1], link[2] or "", origin, here, str(config.repo_url)), filled)


def _link(target: str, fragment: str, origin: str, here: str, repository: str) -> str:
    """The site's link to what a file of the repository links to."""
    path = normpath(f"{dirname(origin)}/{target}" if dirname(origin) else target)
    if path in BORROWED:
        return relpath(BORROWED[path], dirname(here) or ".") + fragment
    if path.startswith("docs/") and (ROOT / path).is_file():
        return relpath(path.removeprefix("docs/"), dirname(here) or ".") + fragment
    if path.endswith(".png") and (ROOT / path).is_file():
        return relpath(path, dirname(here) or ".")
    if (ROOT / path).exists():
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{repository.rstrip('/')}/{kind}/main/{path}{fragment}"
    return target + fragment  # mkdocs reports it
