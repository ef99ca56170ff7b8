"""The options of carrying a sweep out."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.options import Options, option, parse_size


@dataclass(frozen=True)
class SweepRun(Options):
    """The options of finding candidates, of confirming the best, and of spreading them over workers."""

    search: int = option(0, "Try this many start, alpha and ramp in place of the grid (TPE).", minimum=0, metavar="N")
    seed: int = option(0, "Seed of --search.", minimum=0)
    confirm: str | None = option(
        None, "Score the best candidate once more on this split, which did not choose it.", metavar="SPLIT"
    )
    jobs: int | None = option(None, "Processes that score candidates, or workers of --ray.", minimum=1)
    cache_images: int | str = option(
        10**9, "Memory for images that are read and prepared once for all candidates.", metavar="SIZE", shown="1GB"
    )
    ray: str | None = option(
        None, "Address of a Ray cluster that scores candidates; local starts one.", metavar="ADDRESS"
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "cache_images", parse_size(self.cache_images, "--cache-images", minimum=0))
        super().__post_init__()

    @property
    def cache_bytes(self) -> int:
        """The memory of each process for images, in bytes."""
        return int(self.cache_images) // (self.jobs or 1)
