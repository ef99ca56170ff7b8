"""Changed torch files are read, or refused by a CheckpointError: never anything else, in little time and memory.

A longer run, and one case of it alone:

    python tests/test_fuzz_torch_files.py --count 100000 [--seed 1] [--seeds folder-of-torch-files] [--log log.txt]
    python tests/test_fuzz_torch_files.py --case 12345
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch_files import (
    Made,
    Named,
    both,
    bytes_of,
    floats,
    legacy,
    module,
    opened,
    ordered,
    pickled,
    storage,
    tensor,
    zipped,
)

from hf_lwmm.checkpoints.inert_pickle import _STEPS
from hf_lwmm.errors import CheckpointError

SECONDS, MEGABYTES = 5, 256
STEPS = b"".join(_STEPS)
EDGES = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
# A pickle's bytes, and how the file around it is made, whose checksums then are right.
Parts = tuple[bytes, Callable[[bytes], bytes]]


def trees() -> dict[str, Any]:
    """The content of a file, small."""
    first, second = storage("0", 6), storage("1", 4)
    state = {
        "conv.weight": tensor(first, (2, 3)),
        "conv.turned": tensor(first, (3, 2), (1, 3)),
        "bn.scale": tensor(second, ()),
        "bn.wide": tensor(second, (2, 3), (1, 0), 1),
        "none": tensor(second, (0, 5)),
    }
    pairs = [[name, value] for name, value in state.items()]
    block = module({"weight": state["conv.weight"]}, buffers={"mean": state["bn.scale"]})
    named = {0: "road", 1: "sky"}
    return {
        "plain": ordered(state),
        "python 2": Made(Named("collections", "OrderedDict"), (pairs,)),
        "container": {
            "state_dict": ordered(state),
            "epoch": 3,
            "meta": {"CLASSES": ("road", "sky"), "time": "now"},
            "optimizer": {"state": {0: {"step": 1, "exp_avg": state["conv.weight"]}}, "param_groups": [{"lr": 0.1}]},
        },
        "module": {"model": module(None, {"a": block, "b": module(None, {"c": block})}, names=named), "ema": None},
    }


def seeds(folder: Path | None = None) -> tuple[list[bytes], list[Parts]]:
    """Small files without damage, and such in parts; those of a folder too."""
    data = {"0": floats(1, 2, 3, 4, 5, 6), "1": floats(7, 8, 9, 10)}
    counted = {key: (len(each) // 4, each) for key, each in data.items()}
    whole: list[bytes] = []
    parts: list[Parts] = []
    for tree in trees().values():
        for protocol in (2, 3, 4, 5):
            whole += [both(tree, data, zip_file, protocol) for zip_file in (True, False)]
            content = pickled(tree, protocol)
            parts.append((content, lambda changed: zipped(changed, data)))
            parts.append((content, lambda changed: legacy(changed, counted)))
    if folder is not None:
        whole += [path.read_bytes() for path in sorted(folder.iterdir())]
    return whole, parts


def flip(content: bytearray, draw: random.Random, other: bytes) -> None:
    for _ in range(draw.choice((1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def cut(content: bytearray, draw: random.Random, other: bytes) -> None:
    del content[draw.randrange(len(content)) :]


def splice(content: bytearray, draw: random.Random, other: bytes) -> None:
    content[draw.randrange(len(content)) :] = other[draw.randrange(len(other)) :]


def number(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Write another number over a few bytes, as lengths and places are written."""
    size = draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(content))
    value = draw.choice((draw.choice(EDGES), draw.randrange(2 * len(content)))) % (1 << 8 * size)
    content[place : place + size] = value.to_bytes(size, draw.choice(("little", "little", "big")))


def directory(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Change a number of a zip directory, or of the end of it."""
    places = [m.start() for m in re.finditer(rb"PK[\1\3\5\6][\2\4\6\7]", content)]
    if not places:
        return number(content, draw, other)
    place, size = draw.choice(places) + draw.randrange(4, 46), draw.choice((2, 4, 4))
    old = int.from_bytes(content[place : place + size], "little")
    value = draw.choice((draw.choice(EDGES), old + draw.choice((-1, 1, 4, -64)), old * 2)) % (1 << 8 * size)
    content[place : place + size] = value.to_bytes(size, "little")
    return None


def repeat(content: bytearray, draw: random.Random, other: bytes) -> None:
    begin = draw.randrange(len(content))
    piece = content[begin : begin + draw.choice((1, 4, 16, 64))]
    place = draw.randrange(len(content))
    content[place:place] = piece * draw.choice((1, 2, 50))


def drop(content: bytearray, draw: random.Random, other: bytes) -> None:
    begin = draw.randrange(len(content))
    del content[begin : begin + draw.choice((1, 2, 4, 16, 64))]


def step(content: bytearray, draw: random.Random, other: bytes) -> None:
    """Put other steps of the pickle machine into it, or over its own."""
    for _ in range(draw.choice((1, 2, 4))):
        place = draw.randrange(len(content))
        content[place : place + draw.choice((0, 1))] = bytes([draw.choice(STEPS)])


CHANGES: tuple[Callable[[bytearray, random.Random, bytes], None], ...]
CHANGES = (flip, cut, splice, number, repeat, drop)


def changed(case: str, whole: Sequence[bytes], parts: Sequence[Parts]) -> bytes:
    """The file of a case."""
    draw = random.Random(case)
    inside = draw.random() < 0.5
    first, make = draw.choice(parts) if inside else (draw.choice(whole), bytes)
    other = draw.choice(parts)[0] if inside else draw.choice(whole)
    content = bytearray(first)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        change = draw.choice((*CHANGES, step, step, step) if inside else (*CHANGES, directory, directory))
        if content:
            change(content, draw, other)
    return make(bytes(content))


def outcome(content: bytes) -> str:
    """The outcome of reading a file in full."""
    try:
        bytes_of(opened(content))
    except CheckpointError as error:
        head = str(error).removeprefix("a.pth: ")
        return " ".join(head.removeprefix("its pickle cannot be read: ").split()[:2])[:40]
    return "read"


def fuzz(count: int, seed: int, folder: Path | None, log: Path | None) -> dict[str, Any]:
    """Read `count` changed files; gives what came of them, the longest case and the peak of memory."""
    whole, parts = seeds(folder)
    assert {outcome(content) for content in whole} == {"read"}
    found: Counter[str] = Counter()
    others: list[str] = []
    slowest = (0.0, "")
    for i in range(count):
        case = f"{seed}:{i}"
        content = changed(case, whole, parts)
        began = time.process_time()
        signal.alarm(60)
        try:
            found[outcome(content)] += 1
        except Exception as error:  # which is what is looked for
            others.append(f"{case} {type(error).__name__}: {str(error)[:200]}")
        signal.alarm(0)
        slowest = max(slowest, (time.process_time() - began, case))
        if log is not None and (i + 1) % 1000 == 0:
            log.write_text(f"{i + 1} of {count}; slowest {slowest}; others {others[:20]}\n")
    status = Path("/proc/self/status").read_text()  # resource.getrusage counts the process that started this one, too
    peak = int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) // 1024
    return {"found": dict(found.most_common()), "others": others, "slowest": slowest, "megabytes": peak}


def _too_long(signal: int, frame: Any) -> None:
    raise TimeoutError("takes more than a minute")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int)
    parser.add_argument("--seeds", type=Path)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    if options.case is not None:
        content = changed(f"{options.seed}:{options.case}", *seeds(options.seeds))
        print(content, outcome(content), sep="\n")
    else:
        print(json.dumps(fuzz(options.count, options.seed, options.seeds, options.log), indent=1))


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_changed_files_are_read_or_refused_in_little_time_and_memory(count: int) -> None:
    ran = subprocess.run([sys.executable, __file__, "--count", str(count)], capture_output=True, text=True, check=True)
    result = json.loads(ran.stdout)
    assert result["others"] == []
    assert result["slowest"][0] < SECONDS and result["megabytes"] < MEGABYTES
    counts = result["found"]
    assert sum(counts.values()) == count and 0 < counts["read"] < count and len(counts) > 20


if __name__ == "__main__":
    main()
