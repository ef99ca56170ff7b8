"""Check the settings of the environment that the stock client reads when it is imported."""

from __future__ import annotations

import os

from hf_lwmm.errors import HubError


def check_environment() -> None:
    """Refuse settings of the stock client that would keep it from being imported. Raises HubError."""
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        value = os.environ.get(name, "0")
        try:
            int(value)
        except ValueError:
            raise HubError(f"{name}: must be a whole number of seconds, not {value!r}.") from None
