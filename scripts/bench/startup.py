"""Time until a command or an import is there: medians, and how much each takes more than bare Python.

    python scripts/bench/startup.py [--runs 15]

The commands take turns, so that a busy machine slows all of them. The first round, which may compile and read from
disk, does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HF_LWMM = str(Path(sys.executable).with_name("hf-lwmm"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hf-lwmm --help": [HF_LWMM, "--help"],
    "hf-lwmm merge --help": [HF_LWMM, "merge", "--help"],
    "import hf_lwmm": [sys.executable, "-c", "import hf_lwmm"],
}
# Packages are compiled when they are installed; a checkout is, in the first round.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    rounds = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(options.runs + 1)][1:]
    bare, *_ = COMMANDS
    for name in COMMANDS:
        median = statistics.median(times[name] for times in rounds)
        more = statistics.median(times[name] - times[bare] for times in rounds)
        print(f"{name:22}{median:.3f} s" + (f", {more:.3f} s more than bare Python" if name != bare else ""))


if __name__ == "__main__":
    main()
