"""The Hub: references to models, and reading and pushing through the stock client."""

from hf_lwmm.hub.addresses import data_page, file_address, model_page
from hf_lwmm.hub.client import ListedModel, Source, fetch, list_models, resolve
from hf_lwmm.hub.hashes import content_names, file_hashes, sha256, stamp
from hf_lwmm.hub.local_folder import is_inside
from hf_lwmm.hub.pushing import (
    Pushed,
    PushOptions,
    Replacement,
    check_apart,
    check_push,
    push_folder,
    target_repo,
    whoami,
)
from hf_lwmm.hub.range_requests import RangesRefusedError
from hf_lwmm.hub.refs import ModelRef, Ref, is_repo_id, parse_hub_ref, parse_ref
from hf_lwmm.hub.remote_file import RemoteFile, fetch_together, open_remote
from hf_lwmm.hub.telling_names import telling_names

__all__ = [
    "ListedModel",
    "ModelRef",
    "PushOptions",
    "Pushed",
    "RangesRefusedError",
    "Ref",
    "RemoteFile",
    "Replacement",
    "Source",
    "check_apart",
    "check_push",
    "content_names",
    "data_page",
    "fetch",
    "fetch_together",
    "file_address",
    "file_hashes",
    "is_inside",
    "is_repo_id",
    "list_models",
    "model_page",
    "open_remote",
    "parse_hub_ref",
    "parse_ref",
    "push_folder",
    "resolve",
    "sha256",
    "stamp",
    "target_repo",
    "telling_names",
    "whoami",
]
