"""Score candidates in this process, in several, or on a Ray cluster; the results are the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import FrameType, TracebackType
from typing import Any, Protocol

import torch

from hf_lwmm.errors import HfLwmmError, MergeError, SweepError, naming_extras
from hf_lwmm.sweeping.grid import Candidate, Skipped
from hf_lwmm.sweeping.run_options import SweepRun
from hf_lwmm.sweeping.scorer import CandidateScorer, Scored, SweepSetup

_worker: _Worker  # of a worker process
_ended = False  # True in a worker process that was told to end


class Workers(Protocol):
    """A context that scores candidates and returns them in the order in which they are done."""

    def __enter__(self) -> Workers: ...

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Scored | Skipped]:
        """Score candidates; one whose merge fails is skipped with the reason."""


def workers(scorer: CandidateScorer, run: SweepRun) -> Workers:
    """Return a cluster or processes, if either is asked for, and else the scorer itself in this process."""
    if run.ray is not None:
        return Cluster(scorer.setup, run.ray, run.jobs)
    return Processes(scorer.setup, run.jobs) if run.jobs is not None and run.jobs > 1 else Here(scorer)


class Here:
    """This process."""

    def __init__(self, scorer: CandidateScorer) -> None:
        self._scorer = scorer

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Scored | Skipped]:
        return (_raised(_attempt(self._scorer, candidate)) for candidate in candidates)


class Processes:
    """Processes of this machine, each of which opens the models itself and takes its part of the cores."""

    def __init__(self, setup: SweepSetup, jobs: int) -> None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        self._others = set(multiprocessing.active_children())
        self._pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _begin, (setup, threads))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.terminate()

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Scored | Skipped]:
        try:
            for future in as_completed([self._pool.submit(_score, candidate) for candidate in candidates]):
                yield _raised(future.result())
        except BrokenProcessPool:
            raise SweepError("A worker process was killed, perhaps for want of memory. Try fewer --jobs.") from None


class Cluster:
    """Actors on a Ray cluster: `jobs` of them, or one for each CPU (GPU, where networks run on these).

    The models have to be on the Hub, or at the same paths on every node. `address` is as for `ray.init`; "local" starts
    a cluster on this machine.

    Raises:
        ExtraError: if Ray is not installed.
        SweepError: if there is no such cluster.
    """

    def __init__(self, setup: SweepSetup, address: str, jobs: int | None) -> None:
        with naming_extras("--ray"):
            import ray

        self._ray: Any = ray
        self._setup, self._address, self._jobs = setup, address, jobs
        self._own = not ray.is_initialized()
        self._pool: Any = None

    def __enter__(self) -> Cluster:
        if self._own:
            try:
                _check_reachable(self._address)
                self._ray.init(address=self._address, log_to_driver=False, logging_level="error")
            except (OSError, ValueError, RuntimeError) as error:
                raise SweepError(f"--ray {self._address}: no cluster there: {str(error).splitlines()[0]}") from None
        return self

    def __exit__(self, *raised: object) -> None:
        if self._own:
            self._ray.shutdown()

    def score(self, candidates: Sequence[Candidate]) -> Iterator[Scored | Skipped]:
        try:
            self._pool = self._pool or self._actors()
            yield from map(_raised, self._pool.map_unordered(lambda actor, one: actor.score.remote(one), candidates))
        except self._ray.exceptions.RayError as error:
            raise SweepError(f"--ray {self._address}: a worker was lost: {str(error).splitlines()[0]}") from None

    def _actors(self) -> Any:
        from ray.util import ActorPool

        kind = "GPU" if self._setup.network.device.startswith("cuda") else "CPU"
        count = self._jobs or int(self._ray.cluster_resources().get(kind, 1))
        actor = self._ray.remote(_Worker).options(num_cpus=1, num_gpus=int(kind == "GPU"))
        pool: Any = ActorPool([actor.remote(self._setup, 1) for _ in range(count)])
        return pool


def _check_reachable(address: str) -> None:
    """Raise OSError if nobody answers at host:port; Ray itself goes on asking for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


class _Worker:
    """A scorer in a process of its own, opened with its first candidate, so that its errors come back as they are."""

    def __init__(self, setup: SweepSetup, threads: int) -> None:
        self._setup = setup
        self._scorer: CandidateScorer | None = None
        torch.set_num_threads(threads)

    def score(self, candidate: Candidate) -> Scored | Skipped | HfLwmmError:
        try:
            self._scorer = self._scorer or CandidateScorer(self._setup)
        except HfLwmmError as error:
            return error
        return _attempt(self._scorer, candidate)


def _begin(setup: SweepSetup, threads: int) -> None:
    """Prepare a worker process."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    signal.signal(signal.SIGTERM, _end)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = _Worker(setup, threads)


def _end(number: int, frame: FrameType | None) -> None:
    global _ended
    _ended = True
    sys.exit()  # removes temporary folders; in the middle of a candidate the pool takes it for the candidate's result


def _end_with_parent() -> None:
    """End this process with its parent. A killed parent does not stop its workers, which would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


def _score(candidate: Candidate) -> Scored | Skipped | HfLwmmError:
    if _ended:
        sys.exit()
    return _worker.score(candidate)


def _attempt(scorer: CandidateScorer, candidate: Candidate) -> Scored | Skipped | HfLwmmError:
    """Score a candidate; an error that ends the sweep is returned, since those of other processes lose their kind."""
    try:
        return scorer.score(candidate)
    except MergeError as error:
        return Skipped(candidate, error.lines[0])
    except HfLwmmError as error:
        return error


def _raised(found: Scored | Skipped | HfLwmmError) -> Scored | Skipped:
    if isinstance(found, HfLwmmError):
        raise found
    return found
