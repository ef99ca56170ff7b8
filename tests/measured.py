"""Read torch files, each in a process of its own, and tell what came of it, in what time and memory.

    PYTHONPATH=. python tests/measured.py FILE...

One line of JSON for each file: its name, outcome ("read", or an error's text), seconds of the processor and megabytes.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path

from torch_files import bytes_of, opened

from hf_lwmm.errors import CheckpointError


def outcome(path: Path) -> str:
    try:
        bytes_of(opened(path))
    except CheckpointError as error:
        return str(error)
    return "read"


def main() -> None:
    for path in map(Path, sys.argv[1:]):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # seconds: it outlives whoever stops waiting for it
            text = outcome(path)  # another exception ends the child
            os.write(writing, text.encode("utf-8", "backslashreplace")[:60_000])
            os._exit(0)
        os.close(writing)
        _, status, used = os.wait4(child, 0)
        with os.fdopen(reading, "rb") as pipe:
            text = pipe.read().decode() if status == 0 else f"ended with {status}"
        seconds, megabytes = used.ru_utime + used.ru_stime, used.ru_maxrss // 1024
        print(json.dumps({"name": path.name, "outcome": text, "seconds": seconds, "megabytes": megabytes}), flush=True)


if __name__ == "__main__":
    main()
