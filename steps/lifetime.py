"""Processes that end when the one that started them does, however that ends: Linux's parent-death signal.

    python steps/lifetime.py PROGRAM ARGUMENT ...

asks for it and becomes `python PROGRAM ARGUMENT ...`: the signal outlives an exec, so that there is no moment, as of
long imports, in which the program would live on. The environment variable DECANT_PARENT names the process to end with.
"""

import ctypes
import os
import signal
import sys

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """parent: the process-id of the one that started this process; ends at once if that has gone already."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    end_with_parent(int(os.environ["DECANT_PARENT"]))
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
