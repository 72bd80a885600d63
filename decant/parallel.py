"""The same function over many arguments, in several processes."""

import logging
import multiprocessing
import multiprocessing.util
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.context import BaseContext
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch

from decant.progress import progress

MAX_TEMPORARY_FOLDER = 70  # bytes; multiprocessing adds /pymp-XXXXXXXX/listener-XXXXXXXX
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def parallel_map(function: Callable, arguments: Sequence[tuple], jobs: int, desc: str) -> Iterator[Any]:
    """function(*a) for every tuple `a` of arguments, in their order, with a progress bar.

    Works in `jobs` processes, or in this one if `jobs` is 1; each computes with one thread, so that results do
    not depend on `jobs`. The function must be importable, and a program that calls this needs its
    `if __name__ == "__main__"`. What the function raises is raised here, and ends the work.
    """
    with Workers(min(jobs, len(arguments))) as workers:
        yield from workers.map(function, arguments, desc)


class Workers:
    """`jobs` processes for one `parallel_map` after another; none if `jobs` is 1 or less."""

    def __init__(self, jobs: int):
        self._pool = _workers(jobs) if jobs > 1 else None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown()

    def map(self, function: Callable, arguments: Sequence[tuple], desc: str) -> Iterator[Any]:
        """As `parallel_map`."""
        if self._pool:
            yield from progress(self._pool.map(function, *zip(*arguments, strict=True)), len(arguments), desc)
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield from progress((function(*a) for a in arguments), len(arguments), desc)
        finally:
            torch.set_num_threads(threads)


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
    context = forkserver("torch", "decant.hmm.gmm", "decant.hmm.alignment")
    logs = [log.baseFilename for log in logging.getLogger().handlers if isinstance(log, logging.FileHandler)]
    return ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(logs,))


def forkserver(*modules: str) -> BaseContext:
    """Where processes are forked from a server that has only imported modules: a fork of this process would copy
    torch's threads and CUDA's state in the middle of whatever they do, and a new interpreter takes seconds to import
    torch. Raises OSError where there is no folder for its socket."""
    _find_room_for_sockets()
    ForkingPickler.register(torch.Tensor, _by_value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    return context


def _find_room_for_sockets() -> None:
    """multiprocessing's sockets have files in its temporary folder, whose names may have 107 bytes in all (sun_path);
    where TMPDIR is too long for that, a shorter folder is taken, for them alone."""
    if len(os.fsencode(tempfile.gettempdir())) <= MAX_TEMPORARY_FOLDER:
        return
    before, tempfile.tempdir = tempfile.tempdir, None
    try:
        tempfile.tempdir = next(folder for folder in SHORT_FOLDERS if os.access(folder, os.W_OK | os.X_OK))
        multiprocessing.util.get_temp_dir()  # from now on it is this one
    except StopIteration:
        raise OSError(f"{before}: this name is too long for the sockets of several processes, and none of "
                      f"{', '.join(SHORT_FOLDERS)} takes files; set TMPDIR to a folder of a shorter name, or --jobs "
                      "to 1") from None
    finally:
        tempfile.tempdir = before


def _by_value(x: torch.Tensor) -> tuple:
    """How a tensor goes to another process: through the pipe, as arrays do, where torch takes shared memory, of which a
    container often has 64 MB."""
    return _tensor, (x.detach().numpy(),)


def _tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).clone()  # aligned as torch aligns


def end_with_parent() -> None:
    """For a worker: one whose parent was killed would wait for work for ever, or go on writing."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _start_worker(logs: list[str]) -> None:
    """Gives a worker one thread, its parent's log files, and an end when its parent ends."""
    torch.set_num_threads(1)
    ForkingPickler.register(torch.Tensor, _by_value)
    if logs:
        logging.basicConfig(level=logging.INFO, format="%(message)s",
                            handlers=[logging.StreamHandler(),
                                      *(logging.FileHandler(log, encoding="utf-8") for log in logs)])
    end_with_parent()


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
