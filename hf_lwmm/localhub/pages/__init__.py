"""Pages for people: the repositories, and each with its card, files, history and discussions.

They have the Hub's own addresses, no scripts, and nothing from elsewhere.
"""

from hf_lwmm.localhub.pages.rendering import refused
from hf_lwmm.localhub.pages.style import stylesheet
from hf_lwmm.localhub.pages.views import (
    blob,
    commit,
    commits,
    discussion,
    discussions,
    index,
    namespace,
    repositories,
    repository,
    sign_in,
    tree,
)

__all__ = [
    "blob",
    "commit",
    "commits",
    "discussion",
    "discussions",
    "index",
    "namespace",
    "refused",
    "repositories",
    "repository",
    "sign_in",
    "stylesheet",
    "tree",
]
