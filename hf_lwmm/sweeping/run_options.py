"""The options of carrying a sweep out."""

from __future__ import annotations

from dataclasses import dataclass

from hf_lwmm.options import Options, option


@dataclass(frozen=True)
class SweepRun(Options):
    """The options of finding candidates, of confirming the best, and of spreading them over workers."""

    search: int = option(
        0, "Replace the grid by this many trials of start, alpha and ramp (TPE).", minimum=0, metavar="N"
    )
    seed: int = option(0, "Seed of --search.", minimum=0)
    confirm: str | None = option(
        None, "Score the best candidate once more on this split, which did not choose it.", metavar="SPLIT"
    )
    jobs: int | None = option(None, "Processes that score candidates, or workers of --ray.", minimum=1)
    ray: str | None = option(
        None, "Address of a Ray cluster that scores candidates; local starts one.", metavar="ADDRESS"
    )
