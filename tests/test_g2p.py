"""Words spelled as they are spoken: a letter, a phone."""

import itertools
import sys
from importlib.util import find_spec

import pytest

from decant.lang.g2p import is_spelled, pronounced_by_g2p, read_g2p, with_g2p, write_g2p
from decant.lang.lexicon import make_lexicon

needs_phonetisaurus = pytest.mark.skipif(find_spec("phonetisaurus") is None, reason="phonetisaurus is not installed")
SOUNDS = {"B": "b_|", "D": "d", "K": "k}", "A": "a", "I": "<i>", "U": "u"}  # phones with its programs' marks


def spoken(word: str) -> tuple[str, ...]:
    return tuple(SOUNDS[letter] for letter in word)


SYLLABLES = ["".join(pair) for pair in itertools.product("BDK", "AIU")]
WORDS = [a + b for a, b in itertools.product(SYLLABLES, SYLLABLES)]
LEXICON = make_lexicon([*((word, spoken(word)) for word in WORDS), ("<UNK>", ("SPN",))])


@needs_phonetisaurus
def test_unseen_words_are_pronounced_by_what_the_lexicon_teaches():
    words = ["BADIKU", "KIKIDA", "DUBABI"]
    assert pronounced_by_g2p(LEXICON, words) == {word: spoken(word) for word in sorted(words)}


@needs_phonetisaurus
def test_words_that_it_makes_join_the_lexicon_and_others_are_named(caplog):
    lexicon, made = with_g2p(LEXICON, ["BADA", "BADIKU", "ZEBRA", "[NOISE]"])
    assert made == {"BADIKU": spoken("BADIKU")}
    assert lexicon.pronunciations == dict(sorted((LEXICON.pronunciations | {"BADIKU": (spoken("BADIKU"),)}).items()))
    assert "G2P cannot pronounce 2 words: ZEBRA, [NOISE]" in caplog.text


@needs_phonetisaurus
def test_a_word_made_for_a_lexicon_with_probabilities_has_probability_one():
    lexicon = make_lexicon(LEXICON.entries(), dict.fromkeys(LEXICON.entries(), 0.5))
    with_made, _ = with_g2p(lexicon, ["BADIKU"])
    assert with_made.log_probs("BADIKU") == (0.0,)


def test_a_lexicon_that_has_all_words_stays_as_it_is():
    assert with_g2p(LEXICON, WORDS) == (LEXICON, {})


def test_without_phonetisaurus_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonetisaurus", None)
    with pytest.raises(ValueError, match="needs the package phonetisaurus; pip install phonetisaurus, or set it to"):
        with_g2p(LEXICON, ["BADIKU"])


@pytest.mark.parametrize(("word", "spelled"), [
    ("DON'T", True), ("\u00e9t\u00e9", True), ("<UNK>", False), ("[NOISE]", False), ("3", False), ("A|B", False)])
def test_what_a_spelled_word_is(word, spelled):
    assert is_spelled(word) is spelled


def test_the_file_of_made_words_is_read_back(tmp_path):
    write_g2p({"BADIKU": spoken("BADIKU"), "A": ("a",)}, tmp_path / "g2p.txt")
    assert (tmp_path / "g2p.txt").read_text() == "A a\nBADIKU b_| a d <i> k} u\n"
    assert read_g2p(tmp_path / "g2p.txt") == {"A", "BADIKU"}
