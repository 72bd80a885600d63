"""What is on disk, and not in the system's memory alone. The standard library only: steps/stage.py takes no time."""

import errno
import os
from pathlib import Path


def sync(path: Path) -> None:
    """Returns when the file, or the names in the folder, would survive a power cut (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # some network file systems, of folders
            raise
    finally:
        os.close(descriptor)


def sync_all(directory: Path) -> None:
    """The same of a folder and all that is in it."""
    for path in [*directory.rglob("*"), directory]:
        if path.is_dir() or path.is_file():
            sync(path)
