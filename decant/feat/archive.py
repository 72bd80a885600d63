"""Kaldi archives of float matrices and of integer vectors, through kaldi_io.

An archive is two files: `x.ark` holds the values, and `x.scp` has a line `key x.ark:offset` for each, sorted by
key as bytes. Here an scp names its archives relative to its own folder, so that an experiment can be moved as a
whole; Kaldi's tools look from the folder in which they run, so run them in the scp's.
Letters: T rows (frames), F columns.
"""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from decant.files import atomic_path
from decant.text import byte_lines, is_field

_environment = os.environ.copy()
os.environ["KALDI_ROOT"] = os.curdir  # a folder that exists: otherwise kaldi_io prints a banner
import kaldi_io  # noqa: E402

os.environ.update(_environment)  # kaldi_io has put Kaldi's folders in front of PATH
if "KALDI_ROOT" not in _environment:
    del os.environ["KALDI_ROOT"]

# What kaldi_io raises at a value that is truncated, damaged, of another type, or compressed (TypeError, numpy 2).
BROKEN = (ValueError, TypeError, AssertionError, kaldi_io.UnknownMatrixHeader, kaldi_io.BadInputFormat)


def write_matrices(prefix: Path, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes `prefix`.ark and `prefix`.scp from (key, matrix [T, F]), float32 or float64.

    Neither file is there before both are whole. Raises ValueError for a key that is not one word, or does not
    come after the last one in the order of bytes.
    """
    _write(prefix, items, kaldi_io.write_mat)


def write_int_vectors(prefix: Path, items: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes `prefix`.ark and `prefix`.scp from (key, integers [T]), such as alignments, as `write_matrices`."""
    _write(prefix, items, _write_int_vector)


def read_scp(scp: Path) -> dict[str, str]:
    """Where each key's value is: `archive:offset`, the archive's path joined to the scp's folder.

    Raises FileNotFoundError, and ValueError for an empty file, a line of another form (a shell command, a range
    of rows), and a duplicate key.
    """
    scp = Path(scp)
    if not scp.is_file():
        raise FileNotFoundError(f"{scp}: no such file; run the stage that writes it first")
    places = {}
    for number, line in enumerate(byte_lines(scp), start=1):
        key, place = (part.decode() for part in [*line.split(maxsplit=1), b"", b""][:2])
        if "|" in place:
            raise ValueError(f"{scp}:{number}: {place!r} is a shell command, which is never run; write its output to "
                             "an archive")
        if not re.fullmatch(r".+:\d+", place):
            raise ValueError(f"{scp}:{number}: expected `key archive:offset`, found {line.decode()!r}; make the file "
                             "again")
        if key in places:
            raise ValueError(f"{scp}:{number}: {key} is there twice; make the file again")
        places[key] = str(scp.parent / place)
    if not places:
        raise ValueError(f"{scp}: the file is empty; run the stage that writes it again")
    return places


def read_matrix(place: str) -> np.ndarray:
    """The matrix [T, F] at `archive:offset`, in the precision in which it was written.

    Raises FileNotFoundError, and ValueError where the archive is truncated or holds something else.
    """
    return _read(place, kaldi_io.read_mat)


def read_matrices(scp: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(key, matrix [T, F]) of each line of an scp, in its order; raises what `read_scp` and `read_matrix` do."""
    return _read_all(scp, kaldi_io.read_mat)


def read_int_vectors(scp: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(key, int32 vector [T]) of every line of an scp, in its order; raises what `read_matrices` does."""
    return _read_all(scp, kaldi_io.read_vec_int)


def merge_scp(parts: Iterable[Path], out: Path) -> None:
    """Writes one scp, sorted, for the archives that parallel jobs wrote; raises ValueError if two share a key."""
    merged: dict[str, str] = {}
    for part in parts:
        places = read_scp(part)
        if twice := merged.keys() & places.keys():
            raise ValueError(f"{part}: {min(twice)} is in an earlier part too; give each key to one job")
        merged |= places
    with atomic_path(out) as path:
        lines = (f"{key} {os.path.relpath(merged[key], Path(out).parent)}\n" for key in sorted(merged))
        path.write_text("".join(lines), encoding="utf-8")


def _write(
    prefix: Path, items: Iterable[tuple[str, np.ndarray]], write: Callable[[BinaryIO, np.ndarray], None]
) -> None:
    ark, scp = Path(f"{prefix}.ark"), Path(f"{prefix}.scp")
    last = ""
    # The scp is renamed last: where it is, its archive is whole.
    with atomic_path(scp) as scp_path, atomic_path(ark) as ark_path:
        with scp_path.open("w", encoding="utf-8") as lines, ark_path.open("wb") as values:
            for key, value in items:
                if not is_field(key) or key <= last:
                    raise ValueError(f"{ark}: the key {key!r} cannot follow {last!r}; keys are single words, "
                                     "unique and sorted as bytes")
                values.write(f"{key} ".encode())  # kaldi_io would write it as Latin-1
                lines.write(f"{key} {ark.name}:{values.tell()}\n")
                write(values, value)
                last = key
        scp.unlink(missing_ok=True)  # an old scp must not outlive its archive


def _write_int_vector(file: BinaryIO, vector: np.ndarray) -> None:
    """Kaldi's vector<int32>: each number after its size. kaldi_io takes a second to write a million of them."""
    numbers = np.empty(len(vector), dtype=[("size", "i1"), ("value", "<i4")])
    numbers["size"], numbers["value"] = 4, vector
    file.write(b"\0B\4" + struct.pack("<i", len(vector)) + numbers.tobytes())


def _read(place: str, read: Callable[[BinaryIO], np.ndarray]) -> np.ndarray:
    archive, _, offset = place.rpartition(":")
    if not os.path.isfile(archive):
        raise FileNotFoundError(f"{archive}: no such archive; run the stage that writes it again")
    with open(archive, "rb") as file:
        file.seek(int(offset))
        try:
            if file.peek(2)[:2] != b"\0B":  # kaldi_io would take it for text, and nothing for an empty vector
                raise ValueError("no binary value")
            return np.array(read(file))  # a copy: what kaldi_io returns is read-only
        except BROKEN as error:
            raise ValueError(f"{archive}: truncated or damaged at byte {offset} ({error!r}); run the stage that "
                             "writes it again") from error


def _read_all(scp: Path, read: Callable[[BinaryIO], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for key, place in read_scp(scp).items():
        try:
            value = _read(place, read)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{scp}: cannot read {key}: {error}") from error
        yield key, value
