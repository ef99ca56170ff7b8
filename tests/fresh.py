"""Code in processes of its own that need not import what is slow to import: they are forks of one that has done so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_FORKS = """
import json, os, sys, traceback
{first}
for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    for number, name in enumerate(("/dev/null", order["out"], order["err"])):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.argv, status = ["-c", *order["arguments"]], 0
    try:
        exec(compile(order["code"], "<string>", "exec"), {{"__name__": "__main__"}})
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
"""


@dataclass(frozen=True)
class Ran:
    returncode: int
    stdout: str
    stderr: str


class Forks:
    """A process that has run some code, usually imports, and whose forks run other code after it."""

    def __init__(self, first: str) -> None:
        command = [sys.executable, "-c", _FORKS.format(first=first)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Forks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its stdin, which ends it
            pass

    def run(
        self, code: str, *arguments: object, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Ran:
        """Run code in a fork, which has this process's environment and finds the arguments in `sys.argv[1:]`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
            order = {
                "code": code,
                "arguments": [*map(str, arguments)],
                "folder": str(folder or Path.cwd()),
                "environment": {**os.environ, **(environment or {})},
                "out": out.name,
                "err": err.name,
            }
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return Ran(status, out.read(), err.read())
