"""Declare which files a merge is written as; a recipe records it."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.checkpoints.safetensors_file import MAX_SHARD_SIZE
from hf_lwmm.options import Options, option, parse_size

FORMATS = ("transformers", "safetensors", "torch")


@dataclass(frozen=True)
class FileOptions(Options):
    """The kind and the size of the files of a merge.

    With the format "transformers" the merge is a repository that transformers loads, if the network is known: tensors
    have the network's names, and what the anchor lacks of configuration, image processor and code is written. With
    "safetensors" they have the names in the anchor's file. With "torch" the merge is a copy of the anchor's own torch
    files, with all that they hold besides, in which only the bytes of merged tensors differ. `max_shard_size` is a
    number of bytes, or a text such as 5GB; it is for safetensors files.
    """

    format: str = option(
        "transformers",
        "Repository for transformers, safetensors with the anchor's names, or the anchor's torch file with new values.",
        choices=FORMATS,
    )
    max_shard_size: int | str = option(
        MAX_SHARD_SIZE, "Split weights larger than this over several files.", metavar="SIZE", shown="50GB"
    )

    def __post_init__(self) -> None:
        size = parse_size(self.max_shard_size, "--max-shard-size")
        if size != self.max_shard_size:  # else it may be the default, which needs no more checks
            object.__setattr__(self, "max_shard_size", size)
        super().__post_init__()

    @property
    def shard_bytes(self) -> int:
        """The largest size of a file of weights, in bytes."""
        return int(self.max_shard_size)
