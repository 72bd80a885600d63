"""Kaldi archives of float matrices and of integer vectors: written through kaldi_io, read by numpy.

An archive is two files: `x.ark` holds the values, and `x.scp` has a line `key x.ark:offset` for each, sorted by
key as bytes. Here an scp names its archives relative to its own folder, so that an experiment can be moved as a
whole; Kaldi's tools look from the folder in which they run, so run them in the scp's.
Letters: T rows (frames), F columns.
"""

import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from decant.files import atomic_path
from decant.text import byte_lines, is_field

_environment = os.environ.copy()
os.environ["KALDI_ROOT"] = os.curdir  # a folder that exists: otherwise kaldi_io prints a banner
import kaldi_io  # noqa: E402

os.environ.update(_environment)  # kaldi_io has put Kaldi's folders in front of PATH
if "KALDI_ROOT" not in _environment:
    del os.environ["KALDI_ROOT"]

# kaldi_io reads inside assert statements, which PYTHONOPTIMIZE takes out: what follows them is then misread.
# Kaldi's mark of a matrix: its numbers
MATRICES: dict[bytes, np.dtype] = {b"FM ": np.dtype("<f4"), b"DM ": np.dtype("<f8")}
Read = TypeVar("Read")
INTEGER = np.dtype([("size", "i1"), ("value", "<i4")])  # Kaldi writes each number after its size
# What else may begin at an offset, and what makes of it what is read here.
FOREIGN = {
    rb"\0BCM[ 23]": "a compressed matrix; write it anew by `copy-feats --compress=false scp:OLD.scp ark,scp:NEW.ark,"
                    "NEW.scp`",
    rb"\0B[FD]V ": "a vector of floats, not a matrix or integers",
    rb"\s*[\[\d-]": "text; write it anew in binary by `copy-feats scp:OLD.scp ark,scp:NEW.ark,NEW.scp`, or "
                    "`copy-int-vector` for labels",
}


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
        try:
            key, place = (part.decode() for part in [*line.split(maxsplit=1), b"", b""][:2])
        except UnicodeDecodeError as error:
            raise ValueError(f"{scp}:{number}: not UTF-8 text ({error.reason}); make the file again") from error
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

    Raises FileNotFoundError, and ValueError where the archive is truncated or holds something else, named where it is
    a compressed matrix or text.
    """
    return _read(place, _read_matrix)


def read_int_vector(place: str) -> np.ndarray:
    """The int32 vector [T] at `archive:offset`; raises what `read_matrix` does."""
    return _read(place, _read_int_vector)


def read_num_rows(places: Mapping[str, str]) -> dict[str, int]:
    """T of each matrix, by what `read_scp` gave; raises what `read_matrix` does."""
    return {key: _read(place, _read_shape)[0] for key, place in places.items()}


def read_matrices(scp: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(key, matrix [T, F]) of each line of an scp, in its order; raises what `read_scp` and `read_matrix` do."""
    return _read_all(scp, _read_matrix)


def read_int_vectors(scp: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(key, int32 vector [T]) of every line of an scp, in its order; raises what `read_matrices` does."""
    return _read_all(scp, _read_int_vector)


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
    numbers = np.empty(len(vector), INTEGER)
    numbers["size"], numbers["value"] = 4, vector
    file.write(b"\0B\4" + struct.pack("<i", len(vector)) + numbers.tobytes())


def _read_shape(file: BufferedReader) -> tuple[int, int, np.dtype]:
    mark, numbers = file.read(5), file.read(10)
    if mark[:2] != b"\0B" or mark[2:] not in MATRICES or len(numbers) < 10 or numbers[0] != 4 or numbers[5] != 4:
        raise ValueError("no matrix of floats")
    rows, columns = struct.unpack("<xixi", numbers)
    return rows, columns, MATRICES[mark[2:]]


def _read_matrix(file: BufferedReader) -> np.ndarray:
    rows, columns, kind = _read_shape(file)
    return _read_values(file, rows * columns if min(rows, columns) >= 0 else -1, kind).reshape(rows, columns)


def _read_int_vector(file: BufferedReader) -> np.ndarray:
    header = file.read(7)
    if header[:3] != b"\0B\4" or len(header) < 7:
        raise ValueError("no vector of integers")
    [count] = struct.unpack("<i", header[3:])
    numbers = _read_values(file, count, INTEGER)
    if (numbers["size"] != 4).any():
        raise ValueError("integers of another size than 4 bytes")
    return np.ascontiguousarray(numbers["value"])


def _read_values(file: BufferedReader, count: int, kind: np.dtype) -> np.ndarray:
    if not 0 <= count * kind.itemsize <= os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError(f"{count} values are not there")
    values = np.empty(count, kind)
    file.readinto(values.view(np.uint8).data)
    return values


def _read(place: str, read: Callable[[BufferedReader], Read]) -> Read:
    archive, _, offset = place.rpartition(":")
    if not os.path.isfile(archive):
        raise FileNotFoundError(f"{archive}: no such archive; run the stage that writes it again")
    with open(archive, "rb") as file:
        file.seek(int(offset))
        begins = file.peek(8)[:8]
        try:
            return read(file)
        except ValueError as error:
            for form, name in FOREIGN.items():
                if re.match(form, begins):
                    raise ValueError(f"{archive}: at byte {offset} is {name}") from error
            raise ValueError(f"{archive}: truncated or damaged at byte {offset} ({error}); run the stage that "
                             "writes it again") from error


def _read_all(scp: Path, read: Callable[[BufferedReader], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    for key, place in read_scp(scp).items():
        try:
            value = _read(place, read)
        except (ValueError, FileNotFoundError) as error:
            raise type(error)(f"{scp}: cannot read {key}: {error}") from error
        yield key, value
