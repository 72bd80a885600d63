"""What transducers call the words and phones of a lexicon: their numbers, and the marks that tell homophones apart."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from decant.files import atomic_path
from decant.lang.lexicon import BACKOFF, EPSILON, SENTENCE_END, SENTENCE_START, Lexicon, Pronunciation
from decant.text import is_field


def disambiguated(lexicon: Lexicon,
                  heard_as: Mapping[str, str] | None = None) -> tuple[list[tuple[str, Pronunciation]], int]:
    """(word, pronunciation) pairs of which none is another one's beginning, and the number N of marks used.

    So marked, the transducer from phones to words can be determinized. As by Kaldi's add_lex_disambig.pl, a
    pronunciation that several words share or that begins a longer one ends in a disambiguation symbol: #1 at
    its first word, #2 at its second, ... up to #N. heard_as: the one phone that stands for all those between which
    the HMM states may not tell (Kaldi's tell all phones); without it every phone stands for itself.
    """
    entries = lexicon.entries()
    heard = heard_as or {phone: phone for phone in lexicon.phones}
    sounds = [tuple(heard[phone] for phone in phones) for _, phones in entries]
    num_words = Counter(sounds)
    beginnings = {sound[:length] for sound in num_words for length in range(1, len(sound))}
    num_marks: Counter[Pronunciation] = Counter()
    marked = []
    for (word, phones), sound in zip(entries, sounds, strict=True):
        if num_words[sound] > 1 or sound in beginnings:
            num_marks[sound] += 1
            marked.append((word, (*phones, f"#{num_marks[sound]}")))
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
    """Writes OpenFst's text format: a symbol and its number a line. Raises ValueError for a symbol that would not be
    read back as one."""
    if odd := [symbol for symbol in symbols if not is_field(symbol)]:
        raise ValueError(f"{path}: {odd[0]!r} would not be read back as one symbol; rename it")
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for symbol, number in symbols.items():
            print(symbol, number, file=file)
