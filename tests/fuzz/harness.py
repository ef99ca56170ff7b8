"""Change files again and again, and hold what the package makes of them against what must hold.

What is read of a changed file is right, or an HfLwmmError says what is wrong; each takes little time and memory.

    python tests/fuzz/harness.py TARGET --count 100000 [--seed 1] [--seeds folder-of-more-files] [--log log.txt]
    python tests/fuzz/harness.py TARGET --case 12345
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from hf_lwmm.errors import HfLwmmError

SECONDS, MEGABYTES = 5, 512
# Where each target is made, by a function that takes an empty folder.
TARGETS = {
    "torch": "torch_target:torch_file",
    "safetensors": "weight_targets:safetensors_file",
    "measurements": "weight_targets:measurements",
    "index": "folder_targets:index",
    "config": "folder_targets:config",
    "network": "network_targets:config",
    "processor": "network_targets:processor",
    "card": "folder_targets:card",
    "recipe": "document_targets:recipe",
    "labels": "document_targets:labels",
    "objects": "document_targets:objects",
    "picture": "picture_targets:label",
}


@dataclass(frozen=True)
class Target:
    """A kind of file: undamaged ones, how they are changed, and a function that reads one and checks what it got.

    The function gives a word for what was read, and raises AssertionError where that is wrong.
    """

    seeds: Sequence[bytes]
    change: Callable[[bytes, random.Random, bytes], bytes]
    check: Callable[[bytes], str]


def make(name: str, folder: Path) -> Target:
    """Make a target, whose files lie in an empty folder."""
    module, function = TARGETS[name].split(":")
    target: Target = getattr(importlib.import_module(f"fuzz.{module}"), function)(folder)
    return target


def outcome(target: Target, content: bytes) -> str:
    """The word for what came of a file."""
    try:
        return target.check(content)
    except HfLwmmError as error:
        text = str(error)
        assert text.strip() and "Traceback" not in text, "an error without words"
        return " ".join(re.sub(r"\S*[\d/'\"]\S*", "", text).split()[1:6])[:50]


def case(target: Target, name: str) -> bytes:
    """The changed file of a case."""
    draw = random.Random(name)
    return target.change(draw.choice(target.seeds), draw, draw.choice(target.seeds))


def write_anew(path: Path, content: bytes) -> None:
    """Write a file in place of one that a case before wrote; to cut that one short would wait for the disk."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def fuzz(target: Target, count: int, seed: int, log: Path | None = None) -> dict[str, Any]:
    """Read `count` changed files; gives what came of them, the longest case and the peak of memory."""
    for content in target.seeds:
        assert outcome(target, content) == "read", outcome(target, content)
    found: Counter[str] = Counter()
    others: list[str] = []
    slowest = (0.0, "")
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of what ran before
    handler = signal.signal(signal.SIGALRM, _too_long)
    for index in range(count):
        name = f"{seed}:{index}"
        content = case(target, name)
        began = time.process_time()
        signal.alarm(60)
        try:
            found[outcome(target, content)] += 1
        except Exception as error:  # which is what is looked for
            others.append(f"{name} {type(error).__name__}: {str(error)[:300]}")
        signal.alarm(0)
        slowest = max(slowest, (time.process_time() - began, name))
        if log is not None and (index + 1) % 1000 == 0:
            log.write_text(f"{index + 1} of {count}; slowest {slowest}; others {len(others)} {others[:20]}\n")
    signal.signal(signal.SIGALRM, handler)
    peak = _memory("VmHWM") - before
    return {"found": dict(found.most_common()), "others": others, "slowest": slowest, "megabytes": peak}


def _memory(field: str) -> int:
    """Memory of this process in MiB; resource.getrusage counts the process that started this one, too."""
    return int(re.findall(rf"{field}:\s*(\d+)", Path("/proc/self/status").read_text())[0]) // 1024


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError("takes more than a minute")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="run one case, and show its file and what came of it")
    parser.add_argument("--seeds", type=Path, help="folder of more undamaged files")
    parser.add_argument("--log", type=Path, help="file for the state of a long run")
    options = parser.parse_args()
    log = options.log.absolute() if options.log else None
    more = [path.read_bytes() for path in sorted(options.seeds.iterdir())] if options.seeds else []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        target = make(options.target, Path(folder))
        target = Target([*target.seeds, *more], target.change, target.check)
        if options.case is not None:
            content = case(target, f"{options.seed}:{options.case}")
            print(content)
            print(outcome(target, content))
        else:
            print(json.dumps(fuzz(target, options.count, options.seed, log), indent=1))


if __name__ == "__main__":
    main()
