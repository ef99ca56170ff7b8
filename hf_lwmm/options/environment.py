"""Check the settings of the environment that the stock client reads when it is imported."""

from __future__ import annotations

import contextlib
import os

from hf_lwmm.errors import HubError


def check_environment() -> None:
    """Refuse settings of the stock client that would keep it from being imported or used. Raises HubError."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0")
        with contextlib.suppress(ValueError):
            if int(value) >= 0:
                continue
        raise HubError(f"{name}: must be a whole number of seconds, not {value!r}.")
