"""Files that are either whole or not there."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from decant.disk import sync


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    A process killed inside the block leaves `path` as it was, and so does a power cut, and a full disk; its OSError
    names the file. The temporary name starts with a dot and ends as `path` does, so that writers that look at the
    suffix work.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        sync(temporary)  # or its name could be on disk before its contents
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file. Raises OSError naming it if the disk is full."""
    with atomic_path(path) as temporary:
        try:
            save_file({name: x.detach().cpu().contiguous() for name, x in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from error


def read_array(path: Path) -> np.ndarray:
    """A .npy file, read from disk as it is used. Raises ValueError naming a damaged file."""
    try:
        # Mode "c" (copy on write) maps the file and still lets torch share the memory.
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: truncated or damaged ({error}); run the stage that writes it again") from error
