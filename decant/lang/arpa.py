r"""ARPA files of back-off n-gram language models, packed by gzip or not, read and written in bounded memory.

A file is read in blocks of lines that numpy takes apart at once; a block in which something is odd is gone through
again line by line, to say what. Beside a block there are the arrays of the model, and of the section that is being read
its parts, sorted once at its end if they are not sorted already.
"""

import gzip
import logging
import math
import re
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from decant.files import atomic_path
from decant.lang.lexicon import SENTENCE_END, SENTENCE_START
from decant.lang.ngram_model import NgramModel, Section
from decant.text import byte_blocks, fields, is_field, read_fields

log = logging.getLogger(__name__)

SPACE = np.isin(np.arange(256), list(b" \t\n\v\f\r"))
HEADING = re.compile(rb"^[ \t\v\f\r]*\\", re.MULTILINE)
LINES_AT_ONCE = 1 << 16


def write_arpa(model: NgramModel, path: Path) -> None:
    """Writes an ARPA file, packed if its name ends in .gz; sorted, so that a model gives the same bytes.

    Raises ValueError for a word that would not be read back as one.
    """
    if odd := [word for word in model.words if not is_field(word)]:
        raise ValueError(f"{path}: {odd[0]!r} would not be read back as one word; rename it")
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        if temporary.suffix == ".gz":
            with gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
                _write(model, packed)
        else:
            _write(model, file)


def _write(model: NgramModel, file: IO[bytes] | gzip.GzipFile) -> None:
    counts = (f"ngram {order}={len(section.keys)}\n" for order, section in enumerate(model.sections, start=1))
    file.write(f"\\data\\\n{''.join(counts)}".encode())
    words = np.array(model.words, object)
    for order, section in enumerate(model.sections, start=1):
        file.write(f"\n\\{order}-grams:\n".encode())
        line = "%.7g\t" + " ".join(["%s"] * order)
        lines = np.array([f"{line}%.0s\n", f"{line}\t%.7g\n"], object)  # %.0s writes nothing of a back-off weight of 0
        for start in range(0, len(section.keys), LINES_AT_ONCE):
            rows = model.rows(order, start, start + LINES_AT_ONCE)
            backoffs = section.backoffs[start : start + LINES_AT_ONCE] if len(section.backoffs) else np.zeros(len(rows))
            table = np.empty((len(rows), order + 2), object)
            table[:, 0], table[:, -1] = section.log10_probs[start : start + LINES_AT_ONCE], backoffs
            table[:, 1:-1] = words[rows]
            # One formatting of many lines takes half the time of one for each.
            file.write(("".join(lines[(backoffs != 0).astype(int)]) % tuple(table.ravel())).encode())
    file.write(b"\n\\end\\\n")


def read_arpa(path: Path, dtype: type = np.float64) -> NgramModel:
    r"""The model of an ARPA file, packed or not. Text before \data\ is passed over.

    dtype: of its probabilities; float32 needs 16 bytes an n-gram, float64 24 and writes the file's digits again.
    n-grams whose history the file does not list are left out, and the log says how many: Kaldi's graphs cannot have
    them either. Raises ValueError naming file and line for a malformed line, an n-gram given twice or with a word that
    has no unigram, other numbers of n-grams than declared, no \end\, and a model without words, <s> or </s>.
    """
    reader = _Reader(Path(path), dtype)
    for number, block in byte_blocks(path):
        position = 0
        while position < len(block):
            start = position
            if reader.in_ngrams:
                heading = HEADING.search(block, position) if b"\\" in block else None
                position = heading.start() if heading else len(block)
            if position > start:
                reader.add_ngrams(block[start:position], number)
            else:
                position = block.find(b"\n", start) + 1 or len(block)
                if reader.read_line(" ".join(fields(block[start:position].decode(errors="replace"))), number):
                    return reader.model
            number += block.count(b"\n", start, position)
    missing = "\\end\\" if reader.started else "\\data\\"
    raise ValueError(f"{path}: no {missing} line; cut short or not an ARPA file: write or fetch it again")


class _Reader:
    """What is known of a file so far: `model` has its whole sections, `parts` what was read of the next one."""

    def __init__(self, path: Path, dtype: type) -> None:
        self.path, self.dtype = path, dtype
        self.declared: list[int] = []  # [n - 1]: number of n-grams
        self.started = self.in_ngrams = False
        self.words: list[bytes] = []  # as the file lists them
        self.numbers: dict[bytes, int] = {}  # their places in the model
        self.model = NgramModel.from_arrays((), ())
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def read_line(self, line: str, number: int) -> bool:
        r"""Takes in a line outside the lists of n-grams; whether it is \end\."""
        try:
            if not self.started:
                self.started = line == "\\data\\"
            elif line.startswith("\\"):
                self._end_section(heading=line)
                self.in_ngrams = True
                return line == "\\end\\"
            elif match := re.fullmatch(rf"ngram {len(self.declared) + 1} ?= ?(\d+)", line):
                self.declared.append(int(match[1]))
            elif line:
                raise ValueError(f"found '{line}' where 'ngram {len(self.declared) + 1}=<number>' should stand")
        except ValueError as error:
            raise error if isinstance(error, _Misplaced) else ValueError(f"{self.path}:{number}: {error}") from None
        return False

    def add_ngrams(self, lines: bytes, number: int) -> None:
        """Takes in lines of n-grams, the first of which is the file's line `number`."""
        order = self.model.order + 1
        text = np.frombuffer(lines, np.uint8)
        space = SPACE[text]
        starts = np.flatnonzero(~space & np.append(True, space[:-1]))  # of the lines' fields
        newlines = np.append(np.flatnonzero(text == ord("\n")), len(text))
        widths = np.diff(np.searchsorted(starts, newlines), prepend=0)
        first = (np.cumsum(widths) - widths)[widths > 0]
        widths = widths[widths > 0]
        weighted = (widths == order + 2) & (order < len(self.declared))
        if not ((widths == order + 1) | weighted).all():
            self._explain(lines, number)
        table, backoffs = np.array(lines.split(), object), np.zeros(len(first))
        try:
            if order == 1:
                lines.decode()
            probs = _floats(table[first])
            backoffs[weighted] = _floats(table[first[weighted] + order + 1])
        except ValueError:
            self._explain(lines, number)
        if not (np.isfinite(probs) & (probs <= 0) & np.isfinite(backoffs)).all():
            self._explain(lines, number)
        if order == 1:
            self.words += table[first + 1].tolist()
            keys = np.arange(len(first))  # their order, which is that of the words, is known at the section's end
        else:
            rows = np.stack([np.fromiter(map(self.numbers.get, table[first + 1 + place].tolist(), repeat(-1)),
                                         np.int64, len(first)) for place in range(order)], axis=1)
            if (rows < 0).any():
                self._explain(lines, number)
            histories = self.model.places(rows[:, :-1])
            keys = np.where(histories < 0, -1, histories * len(self.numbers) + rows[:, -1])
        self.parts.append((keys, probs.astype(self.dtype), backoffs.astype(self.dtype)))

    def _explain(self, lines: bytes, number: int) -> NoReturn:
        """Raises ValueError for the first of these lines that is none of an n-gram."""
        order, is_longest = self.model.order + 1, self.model.order + 1 == len(self.declared)
        for place, line in enumerate(lines.split(b"\n"), start=number):
            try:
                _check_ngram([field.decode() for field in line.split()], order, self.numbers, is_longest)
            except UnicodeDecodeError as error:
                raise ValueError(f"{self.path}:{place}: not UTF-8 text ({error.reason}); convert the file with iconv"
                                 ) from None
            except ValueError as error:
                raise ValueError(f"{self.path}:{place}: {error}") from None
        raise AssertionError(f"{self.path}:{number}: nothing is wrong with these lines")

    def _end_section(self, heading: str) -> None:
        """Puts the section that has been read into the model. Raises ValueError unless it is complete and `heading` is
        what follows it."""
        order = self.model.order + self.in_ngrams
        if self.in_ngrams:
            keys, probs, backoffs = _joined(self.parts, self.dtype)
            self.parts = []
            words = self.model.words
            if order == 1:
                words = tuple(sorted(word.decode() for word in set(self.words)))
                self.numbers = {word.encode(): number for number, word in enumerate(words)}
                keys = np.fromiter(map(self.numbers.__getitem__, self.words), np.int64, len(self.words))
            num_lines, listed = len(keys), keys >= 0
            if not listed.all():
                log.warning("%s: left out %d of %d %d-grams, whose history has no line of its own", self.path,
                            num_lines - listed.sum(), num_lines, order)
            if not (keys[1:] > keys[:-1]).all() or not listed.all():
                sort = np.argsort(keys, kind="stable")[num_lines - listed.sum():]
                self._check_once(keys, sort, words, order)
                keys, probs, backoffs = keys[sort], probs[sort], backoffs[sort]
            section = Section(keys, probs, backoffs if order < len(self.declared) else backoffs[:0])
            self.model = NgramModel.from_arrays(words, (*self.model.sections, section))
            if num_lines != self.declared[order - 1]:
                raise ValueError(f"{num_lines} {order}-grams end here, but \\data\\ declares "
                                 f"{self.declared[order - 1]}; the file is damaged: write or fetch it again")
        _check_heading(order, len(self.declared), heading, self.model.words)

    def _check_once(self, keys: np.ndarray, sort: np.ndarray, words: tuple[str, ...], order: int) -> None:
        """Raises ValueError, with its line, for a key that stands twice; the lines are searched for in the file."""
        again = sort[1:][keys[sort[1:]] == keys[sort[:-1]]]
        if not len(again):
            return
        wanted, found = int(again.min()), None
        for place, line in read_fields(self.path):
            if line[0].startswith("\\"):
                found = -1 if line == [f"\\{order}-grams:"] else None
            elif found is not None:
                found += 1
                if found == wanted:
                    raise _Misplaced(f"{place}: the n-gram '{' '.join(line[1 : order + 1])}' stands here a second "
                                     "time; remove one of its lines")


class _Misplaced(ValueError):
    """An error whose message names its own line."""


def _joined(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
            dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    empty: tuple[np.ndarray, ...] = (np.zeros(0, np.int64), np.zeros(0, dtype), np.zeros(0, dtype))
    keys, probs, backoffs = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
    return keys, probs, backoffs


def _floats(texts: np.ndarray) -> np.ndarray:
    return np.fromiter(map(float, texts.tolist()), np.float64, len(texts))


def _check_heading(order: int, orders: int, heading: str, words: tuple[str, ...]) -> None:
    """Raises ValueError unless `heading` follows the section of n-grams of `order` words, or with 0 the numbers of
    n-grams; and for a model without words, <s> or </s>."""
    if not orders or (order == 1 and set(words) <= {SENTENCE_START, SENTENCE_END}):
        raise ValueError("the language model holds no words; estimate it from a text that is not empty")
    for symbol in (SENTENCE_START, SENTENCE_END):
        if order == 1 and symbol not in words:
            raise ValueError(f"no unigram {symbol}; estimate the language model from whole sentences")
    expected = f"\\{order + 1}-grams:" if order < orders else "\\end\\"
    if heading != expected:
        raise ValueError(f"found {heading} where {expected} should stand")


def _check_ngram(line: list[str], order: int, words: Mapping[bytes, int], is_longest: bool) -> None:
    """Raises ValueError for a line that is none of an n-gram of `order` known words."""
    has_backoff = len(line) == order + 2 and not is_longest
    if line and len(line) != order + 1 + has_backoff:
        raise ValueError(f"{len(line)} fields; a {order}-gram's line holds a log10 probability, {order} "
                         f"word(s) and {'nothing else' if is_longest else 'at most a back-off weight'}")
    if unknown := [word for word in line[1 : order + 1] if order > 1 and word.encode() not in words]:
        raise ValueError(f"the word {unknown[0]!r} has no unigram")
    prob, backoff = float(line[0]) if line else 0.0, float(line[-1]) if has_backoff else 0.0
    if not -math.inf < prob <= 0 or not math.isfinite(backoff):
        raise ValueError(f"log10 probability {prob:g}, back-off weight {backoff:g}: both should be finite, "
                         "the first not above 0")
