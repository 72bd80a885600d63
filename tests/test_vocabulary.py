import logging
import re
from pathlib import Path

import pytest

from decant.feat.data_dir import Utterance
from decant.lang.lexicon import LexiconConfig, make_lexicon
from decant.lang.vocabulary import check_unknown, cover_words, known_words

LEXICON = make_lexicon([("A", ("EY",)), ("TO", ("T", "UW"))])
TEXT = Path("data/train/text")
SPOKEN_NOISE = LexiconConfig(unknown_words="spoken_noise")


def utterance(name: str, words: str) -> Utterance:
    return Utterance(name, "speaker", Path("a.wav"), tuple(words.split(" ")))


def fails_with(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def test_a_lexicon_that_has_all_words_stays_as_it_is():
    assert cover_words(LEXICON, [utterance("u1", "A TO A")], TEXT, SPOKEN_NOISE) is LEXICON


def test_missing_words_are_named_with_their_first_utterance_and_the_others_are_counted():
    with fails_with("data/train/text: words missing from the lexicon: V (utterance u2), W (utterance u2), "
                    "X (utterance u2), Y (utterance u3), Z (utterance u3) and 1 more; add their pronunciations or "
                    "remove the utterances, or set lexicon.unknown_words to spoken_noise"):
        cover_words(LEXICON, [utterance("u2", "A V W X"), utterance("u3", "V Y Z Q")], TEXT, LexiconConfig())


@pytest.mark.parametrize("word", ["\ufeffTO", "TO\u200b", "TO\u00a0", "T\u039f", "\uff34O"])
def test_a_missing_word_that_looks_like_one_of_the_lexicon_is_named_with_code_points(word):
    points = " ".join(f"U+{ord(c):04X}" for c in word)
    with fails_with(f"{word} ({points}, which looks like TO, U+0054 U+004F) (utterance u2)"):
        cover_words(LEXICON, [utterance("u2", word)], TEXT, LexiconConfig())


def test_words_that_train_lacks_are_taken_for_spoken_noise_where_the_setting_says_so(caplog):
    caplog.set_level(logging.INFO)
    lexicon = cover_words(LEXICON, [utterance("u1", "A V A TO"), utterance("u2", "V TO W A")], TEXT, SPOKEN_NOISE)
    assert lexicon.pronunciations == LEXICON.pronunciations | {"<UNK>": (("SPN",),)}
    assert lexicon.phones == ("SIL", "EY", "SPN", "T", "UW")
    assert caplog.messages == [
        "data/train/text: 3 of 8 words (37.5%), 2 different ones, are not in the lexicon, such as V, W",
        "data/train/text: words that the lexicon lacks are taken for <UNK>"]
    assert known_words(["A", "V"], lexicon) == ["A", "<UNK>"]
    assert known_words(["A", "V"], LEXICON) == ["A", "V"]


def test_an_unknown_word_that_the_lexicon_has_already_keeps_its_pronunciation():
    lexicon = make_lexicon([*LEXICON.entries(), ("<UNK>", ("NSN",))])
    assert cover_words(lexicon, [utterance("u1", "A V")], TEXT, SPOKEN_NOISE) is lexicon


def test_the_unknown_word_of_a_lexicon_with_probabilities_has_probability_one():
    lexicon = make_lexicon([("A", ("EY",))], {("A", ("EY",)): 0.5})
    covered = cover_words(lexicon, [utterance("u1", "A V")], TEXT, SPOKEN_NOISE)
    assert covered.probabilities == {("A", ("EY",)): 0.5, ("<UNK>", ("SPN",)): 1.0}


def test_a_transcript_in_another_case_is_refused_and_the_case_named():
    with fails_with("data/dev/text: 3 of 3 words (100.0%), 2 different ones, are not in the lexicon, such as a, to, "
                    "more than lexicon.max_unknown = 0.5 allows; in upper case 3 of them would be: write the "
                    "transcripts and the lexicon in the same case"):
        check_unknown(LEXICON, [utterance("u1", "a to a")], Path("data/dev/text"), LexiconConfig())


def test_train_in_another_case_does_not_become_all_noise():
    with fails_with("data/train/text: 2 of 2 words (100.0%)"):
        cover_words(LEXICON, [utterance("u1", "a to")], TEXT, SPOKEN_NOISE)


def test_as_many_unknown_words_as_the_setting_allows_are_counted_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    check_unknown(LEXICON, [utterance("u1", "A V")], Path("data/dev/text"), LexiconConfig())
    assert caplog.messages == [
        "data/dev/text: 1 of 2 words (50.0%), 1 different ones, are not in the lexicon, such as V"]
    with fails_with("more than lexicon.max_unknown = 0.4 allows; add their pronunciations to the lexicon, or raise it"):
        check_unknown(LEXICON, [utterance("u1", "A V")], Path("data/dev/text"), LexiconConfig(max_unknown=0.4))


def test_settings_that_make_no_sense_are_refused():
    with fails_with("unknown_words is 'drop'; known are refuse, spoken_noise and g2p"):
        LexiconConfig(unknown_words="drop")
    with fails_with("max_unknown is 7.3; it is a share, from 0 to 1"):
        LexiconConfig(max_unknown=7.3)
