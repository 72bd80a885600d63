"""The same function over many arguments, in several processes."""

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import torch

from decant.progress import progress


def parallel_map(function: Callable, arguments: Sequence[tuple], jobs: int, desc: str) -> Iterator[Any]:
    """function(*a) for every tuple `a` of arguments, in their order, with a progress bar.

    Works in `jobs` processes, or in this one if `jobs` is 1; each computes with one thread, so that results do
    not depend on `jobs`. The function must be importable, and a program that calls this needs its
    `if __name__ == "__main__"`. What the function raises is raised here, and ends the work.
    """
    jobs = min(jobs, len(arguments))
    if jobs <= 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from progress((function(*a) for a in arguments), len(arguments), desc)
        finally:
            torch.set_num_threads(threads)
        return
    with _workers(jobs) as pool:
        yield from progress(pool.map(function, *zip(*arguments, strict=True)), len(arguments), desc)


def parallel_stream(function: Callable, arguments: Iterable[tuple], jobs: int) -> Iterator[Any]:
    """The same in `jobs` processes for arguments that are made as they are needed, in this process: so many are taken
    that every worker has work, and no more."""
    with _workers(jobs) as pool:
        waiting: deque[Future] = deque()
        for a in arguments:
            waiting.append(pool.submit(function, *a))
            if len(waiting) > 2 * jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _workers(jobs: int) -> ProcessPoolExecutor:
    # Forked from a server that has only imported modules: a fork of this process would copy torch's threads and CUDA's
    # state in the middle of whatever they do, and a new interpreter takes seconds to import torch.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "decant.hmm.gmm", "decant.hmm.alignment"])
    logs = [log.baseFilename for log in logging.getLogger().handlers if isinstance(log, logging.FileHandler)]
    return ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(logs,))


def _start_worker(logs: list[str]) -> None:
    """Gives a worker one thread, its parent's log files, and an end when its parent ends."""
    torch.set_num_threads(1)
    if logs:
        logging.basicConfig(level=logging.INFO, format="%(message)s",
                            handlers=[logging.StreamHandler(), *map(logging.FileHandler, logs)])
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
