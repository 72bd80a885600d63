"""The lock on an experiment folder: one run at a time."""

import errno
import fcntl
import os
import sys
from pathlib import Path


def take_lock(path: Path) -> int:
    """Locks the experiment folder for this process, the shell that takes its place, and the stages that inherit it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path.parent}: another run is working here; wait for it, or take another --exp") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        print(f"warning: {path.parent}: this file system has no locks ({error.strerror}): nothing keeps a second run "
              "from working here at the same time; see to it that there is none", file=sys.stderr)
    os.set_inheritable(lock, True)
    return lock
