"""Files that are either whole or not there."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    A process killed inside the block leaves `path` as it was, and so does a full disk; its OSError names the file. The
    temporary name starts with a dot and ends as `path` does, so that writers that look at the suffix work.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
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
