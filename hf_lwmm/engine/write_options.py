"""Declare how a merged model is written."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.checkpoints.safetensors_file import MAX_SHARD_SIZE
from hf_lwmm.options import Options, option, parse_size


@dataclass(frozen=True)
class WriteOptions(Options):
    """The options of writing a merged model.

    `max_shard_size` is a number of bytes, or a text such as 5GB.
    """

    overwrite: bool = option(False, "Replace an existing output.")
    allow_nonfinite: bool = option(False, "Merge infinities and NaNs too.")
    max_shard_size: int | str = option(
        MAX_SHARD_SIZE, "Split weights larger than this over several files.", metavar="SIZE", shown="50GB"
    )
    license: str | None = option(None, "License to state in place of the one that follows from the parents'.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_shard_size", parse_size(self.max_shard_size))
        super().__post_init__()

    @property
    def shard_bytes(self) -> int:
        """The largest size of a file of weights, in bytes."""
        return int(self.max_shard_size)
