"""Spell the addresses of repositories and files on the Hub in use."""

from __future__ import annotations


def model_page(repo_id: str, commit: str | None = None) -> str:
    """Return the address of a model, at a commit if one is given."""
    return _page(repo_id, commit)


def data_page(repo_id: str, commit: str | None = None) -> str:
    """Return the address of a data set, at a commit if one is given."""
    return _page(f"datasets/{repo_id}", commit)


def file_address(repo_id: str, name: str, commit: str = "main", *, shown: bool = False) -> str:
    """Return the address of a file of a model: of its bytes, or of the page that shows it."""
    return f"{_page(repo_id, None)}/{'blob' if shown else 'resolve'}/{commit}/{name}"


def _page(path: str, commit: str | None) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{path}" + (f"/tree/{commit}" if commit else "")
