r"""Text files as Kaldi reads them: UTF-8, lines that a newline ends, fields between ASCII white space.

The one definition of white space for all that is read and written: space, \t, \n, \v, \f, \r. Python's own `str.split`
and `splitlines` split at more (a no-break space, U+2028, U+0085, \x1c), so that a word would be two in one file and
one in another. A byte order mark at a file's beginning is no part of its text.
"""

import gzip
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BYTE_ORDER_MARK = "\ufeff"
_GZIP = b"\x1f\x8b"  # a gzip file's first bytes
# Beyond what Unicode's compatibility forms make the same: marks of quotation and dashes; Cyrillic and Greek letters.
_SAME_LOOKS = str.maketrans(
    "\u2018\u2019\u02bc\u2032\u2010\u2012\u2013\u2014\u2212"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0430\u0435\u043e\u0440\u0441\u0443\u0445"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf",
    "''''-----ABEKMHOPCTXaeopcyxABEZHIKMNOPTYXo")


def fields(line: str) -> list[str]:
    """The fields of a line."""
    return re.findall(r"\S+", line, re.ASCII)


def is_field(text: str) -> bool:
    """Whether a text is read back the same where it is written as one field."""
    return re.fullmatch(r"\S+", text, re.ASCII) is not None and not text.startswith(BYTE_ORDER_MARK)


@contextmanager
def _unpacked(path: Path) -> Iterator[BinaryIO]:
    """A file to read bytes from; gzip, known by the file's first bytes or its name, is unpacked.

    Raises FileNotFoundError, and ValueError for a damaged gzip file.
    """
    try:
        with open(path, "rb") as file:
            packed = Path(path).suffix == ".gz" or file.peek(len(_GZIP)).startswith(_GZIP)
            yield gzip.GzipFile(fileobj=file) if packed else file  # type: ignore[misc]  # GzipFile is one
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); write or fetch it again") from error


def byte_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file without their newline, nor a byte order mark at its beginning; gzip is unpacked.

    Raises FileNotFoundError, and ValueError for a damaged gzip file.
    """
    with _unpacked(path) as file:
        for number, line in enumerate(file):
            yield (line if number else line.removeprefix(BYTE_ORDER_MARK.encode())).removesuffix(b"\n")


def byte_blocks(path: Path, size: int = 1 << 20) -> Iterator[tuple[int, bytes]]:
    """The same in blocks of whole lines with their newlines, of about `size` bytes: the number of a block's first line,
    from 1, and the block. Raises what `byte_lines` does."""
    with _unpacked(path) as file:
        number, rest = 1, b""
        while read := file.read(size):
            if number == 1 and not rest:
                read = read.removeprefix(BYTE_ORDER_MARK.encode())
            block, newline, rest = (rest + read).rpartition(b"\n")
            if newline:
                yield number, block + newline
                number += block.count(b"\n") + 1
        if rest:
            yield number, rest


def read_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """("file:line", fields) of each line, of a blank one no fields.

    Raises what `byte_lines` does, and ValueError for text that is not UTF-8.
    """
    for number, line in enumerate(byte_lines(path), start=1):
        place, split = f"{path}:{number}", line.split()  # bytes split at ASCII white space alone
        try:
            yield place, b" ".join(split).decode().split(" ") if split else []  # faster than to decode each field
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: not UTF-8 text ({error.reason}); convert the file with iconv") from error


def read_fields(path: Path) -> Iterator[tuple[str, list[str]]]:
    """("file:line", fields) of each line that is not blank; raises what `read_lines` does."""
    return (line for line in read_lines(path) if line[1])


def shown(text: str, others: Iterable[str] = ()) -> str:
    """A text for a message: with its code points if it holds characters that cannot be seen, or looks like one of
    `others` that is not the same; with those of the other, too."""
    looks, ascii = _looks(text), text.isascii()
    twin = next((other for other in others  # two words of ASCII look alike only if they are the same
                 if other != text and not (ascii and other.isascii()) and _looks(other) == looks), None)
    if twin is not None:
        return f"{text} ({code_points(text)}, which looks like {twin}, {code_points(twin)})"
    return text if text.isprintable() else f"{text} ({code_points(text)})"


def code_points(text: str) -> str:
    """U+0041 U+00A0 ..."""
    return " ".join(f"U+{ord(character):04X}" for character in text)


def _looks(text: str) -> str:
    """The same for texts that look alike: compatibility forms, without what cannot be seen."""
    composed = unicodedata.normalize("NFKC", text)
    return "".join(c for c in composed if unicodedata.category(c)[0] not in "CZ").translate(_SAME_LOOKS)
