"""Call the stock client: retry what may pass with time, and translate its errors.

Nothing here reads an endpoint, a token or a cache path, so HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the cache mean
what they always mean.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from hf_lwmm.errors import HubError, first_line
from hf_lwmm.files.nearest import nearest_path
from hf_lwmm.hub.refs import ModelRef

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

_T = TypeVar("_T")
_ATTEMPTS = 5
_ATTEMPTS_IN_SILENCE = 2  # each takes as long as the client waits for an answer
_LONGEST_WAIT = 60.0  # seconds
# How names of files end, and those of repositories do not.
_OF_FILES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt", ".json", ".yaml", ".yml", ".md", ".txt")
_RETRIED = (408, 429, 500, 502, 503, 504)
# What the stock client raises where an answer is no JSON, or of another shape than the Hub's are.
_SENSELESS = (ValueError, TypeError, LookupError, AttributeError, AssertionError, RecursionError)


def client() -> HfApi:
    """Return the stock client, which introduces itself as hf-lwmm and does not wait for a silent Hub without end."""
    return _client_class()(library_name="hf-lwmm")


@cache
def _client_class() -> type[HfApi]:
    from huggingface_hub import DatasetInfo, HfApi, ModelInfo, constants

    class Client(HfApi):
        def model_info(self, repo_id: str, *, timeout: float | None = None, **options: Any) -> ModelInfo:
            """Return what the Hub says of a model, within the time that downloads have if no other is given."""
            return super().model_info(repo_id, timeout=timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT, **options)

        def dataset_info(self, repo_id: str, *, timeout: float | None = None, **options: Any) -> DatasetInfo:
            """Return what the Hub says of a data set, as `model_info`."""
            return super().dataset_info(repo_id, timeout=timeout or constants.HF_HUB_DOWNLOAD_TIMEOUT, **options)

    return Client


def call(ref: ModelRef, function: Callable[[], _T], file: str | None = None) -> _T:
    """Return what a call of the stock client about a model, or one of its files, returns; retried and translated.

    Raises:
        HubError: if the Hub refuses or cannot be reached; the message names the model and says what to do.
    """
    with _translated(ref, file):
        return retry(function)


def read(ref: ModelRef, function: Callable[[], _T], file: str | None = None) -> _T:
    """Return what `call` does, for a call that only reads, which the client does with the help of its cache.

    Raises:
        HubError: as `call`, and if the cache cannot be used, or the Hub's answer makes no sense.
    """
    with readable(str(ref)), disk_errors(ref):
        return call(ref, function, file)


def retry(function: Callable[[], _T]) -> _T:
    """Call a function until it succeeds or fails for good.

    Rate limits are waited for as long as the Hub asks; server errors and broken connections are tried again after a
    pause that doubles each time. After the fifth attempt, or the second without an answer, the error is raised as it
    is.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return function()
        except Exception as error:
            pause = _pause(error, 0.5 * 2**attempt) if attempt < _most_attempts(error) else None
            if pause is None:
                raise
        time.sleep(min(pause, _LONGEST_WAIT))
    raise AssertionError


def _pause(error: BaseException | None, usual: float) -> float | None:
    """The seconds before another attempt, as many as the Hub asks for or else the usual; None if none would help."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RevisionResolutionError,
    )

    if isinstance(error, (LocalEntryNotFoundError, RevisionResolutionError)):  # of what the client met on its way
        return None if _is_away(error.__cause__) else _pause(error.__cause__, usual)
    if isinstance(error, HfHubHTTPError):
        if getattr(error.response, "status_code", None) not in _RETRIED:
            return None
        asked = error.response.headers.get("Retry-After", "")
        return float(asked) if asked.isdecimal() else usual
    passing = isinstance(error, transport_errors()) and not isinstance(error, OfflineModeIsEnabled)
    return usual if passing else None


def _is_away(error: BaseException | None) -> bool:
    """True if nobody answers at the Hub's address: a machine without a connection need not wait for the cache."""
    import httpx2

    return isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))


def _most_attempts(error: BaseException) -> int:
    """The number of attempts, fewer where a server took a request and did not answer it in time."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not any(isinstance(each, httpx2.ReadTimeout) for each in (error, error.__cause__)):
        return _ATTEMPTS
    # For a file the client itself has asked several times, for minutes.
    return 1 if isinstance(error, LocalEntryNotFoundError) else _ATTEMPTS_IN_SILENCE


def raise_if_away(error: BaseException | None) -> None:
    """Raise the error of a call if nobody answers at the Hub's address, so that no other call need be made."""
    if error is not None and _is_away(error):
        raise error


def transport_errors() -> tuple[type[Exception], ...]:
    """Return the errors of connections, which may pass with time; the stock client does not wrap httpx2's."""
    import httpx2

    return (httpx2.TransportError, ConnectionError, TimeoutError)


@contextlib.contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn the errors that mean that the Hub was not reached into a HubError; `what` begins its message."""
    import httpx2
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise HubError(f"{what} needs the Hub, and offline mode is on. Unset HF_HUB_OFFLINE.") from None
    except (ImportError, httpx2.InvalidURL) as error:  # of a client that is made for the proxies of the environment
        if isinstance(error, ModuleNotFoundError):
            raise
        raise HubError(f"{what}: {_no_proxy()}") from error
    except httpx2.ReadTimeout as error:
        raise HubError(
            f"{what}: the Hub does not answer. Try again later, or set HF_HUB_DOWNLOAD_TIMEOUT to more seconds."
        ) from error
    except (httpx2.RequestError, ConnectionError, TimeoutError) as error:  # redirections without end are one, too
        raise HubError(
            f"{what}: the Hub cannot be reached ({str(error).rstrip('.')}). Check the connection and HF_ENDPOINT."
        ) from error


def _no_proxy() -> str:
    """The reason why no client can be made for the proxies of the environment, whose values may hold passwords."""
    proxies = ("http_proxy", "https_proxy", "all_proxy")
    stated = {name: value for name, value in os.environ.items() if value and name.lower() in proxies}
    names = ", ".join(stated) or "NO_PROXY or HF_ENDPOINT"
    if any(value.startswith("socks") for value in stated.values()) and not find_spec("socksio"):
        return f"{names}: a SOCKS proxy needs socksio, which is not installed: pip install socksio"
    return f"{names}: not an address of a proxy such as http://host:3128. Correct it, or unset it."


@contextlib.contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn the stock client's errors of answers that make no sense, as those of other servers, into a HubError."""
    try:
        yield
    except _SENSELESS as error:
        why = first_line(error).rstrip(".")
        raise HubError(
            f"{what}: the answer of {_endpoint()} cannot be read ({why}). Check HF_ENDPOINT and proxies."
        ) from error


@contextlib.contextmanager
def disk_errors(what: object) -> Iterator[None]:
    """Turn errors of the disk that the cache is on into a HubError that says what to do."""
    try:
        yield
    except OSError as error:
        raise HubError(
            f"{what}: the cache cannot be used ({error.strerror or first_line(error).rstrip('.')}). "
            "Free some space, or set HF_HUB_CACHE to a folder on another disk."
        ) from error


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _misspelt(ref: ModelRef) -> str:
    """A sentence on the local path that a reference may mean, empty if there is none like it."""
    near = nearest_path(ref.repo_id or "")
    return f"{ref}: there is no such file or folder; did you mean {near}?" if near else ""


@contextlib.contextmanager
def _translated(ref: ModelRef, file: str | None) -> Iterator[None]:
    """Turn the client's errors into a HubError that names the model and says what to do."""
    from huggingface_hub import errors

    with reaching(str(ref)):
        try:
            yield
        except errors.GatedRepoError as error:
            raise HubError(
                f"{ref}: gated. Accept its conditions on its page, then log in with `hf auth login`."
            ) from error
        except errors.RepositoryNotFoundError as error:
            if near := _misspelt(ref):
                raise HubError(f"{near} Nor does the Hub show this token a model of that name.") from error
            if str(ref.repo_id).lower().endswith(_OF_FILES):
                raise HubError(f"{ref}: there is no such file here, nor a model of that name on the Hub.") from error
            raise HubError(
                f"{ref}: no such model on the Hub, or it is private and this token may not read it. "
                "Check the name, or log in with `hf auth login`."
            ) from error
        except errors.RevisionNotFoundError as error:
            raise HubError(f"{ref}: the repository has no revision {ref.revision!r}.") from error
        except (errors.LocalEntryNotFoundError, errors.RevisionResolutionError, errors.OfflineModeIsEnabled) as error:
            what, near, cause = f"{ref}{f' ({file})' if file else ''}", _misspelt(ref), error.__cause__
            if isinstance(cause, errors.HfHubHTTPError):
                raise HubError(f"{near} {_answered(what, cause)}".lstrip()) from error
            if near:
                raise HubError(
                    f"{near} As a model of the Hub it is not in the cache, and the Hub is out of reach."
                ) from error
            if cause is not None and not _is_away(cause) and _pause(cause, 0) is not None:
                raise cause from None  # answers that break off, or do not come: `reaching` says which
            raise HubError(
                f"{what}: no file or folder of this machine, not in the cache, and the Hub cannot be reached (offline "
                "mode?)."
            ) from error
        except errors.EntryNotFoundError as error:
            raise HubError(f"{ref}: has no file {file!r} at this revision.") from error
        except errors.HFValidationError as error:
            raise HubError(f"{ref}: not a valid model id: {error}") from error
        except errors.HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) == 412:
                raise HubError(
                    f"{ref}: somebody else changed it meanwhile, so nothing was committed. Push again."
                ) from error
            raise HubError(_answered(str(ref), error)) from error


def _answered(what: str, error: HfHubHTTPError) -> str:
    """The message of an answer that is an error of the Hub."""
    status = getattr(error.response, "status_code", "no")
    text = (error.server_message or str(error).splitlines()[0]).rstrip(".")
    remedy = " Log in with `hf auth login`, or set HF_TOKEN." if status == 401 else ""
    return f"{what}: the Hub answered {status}: {text}.{remedy}"
