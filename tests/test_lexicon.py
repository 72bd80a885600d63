import gzip
import logging
import re
from pathlib import Path

import pytest

from decant.lang.lexicon import (
    Lexicon,
    make_lexicon,
    position_dependent,
    pronounce_words,
    read_lexicon,
    read_phone_set,
    write_lexicon,
)
from decant.lang.symbols import disambiguated, phone_symbols, word_symbols, write_symbol_table

TEXT = "TO T UW\nA EY\nA AH\n"
LEXICON = Lexicon({"A": (("EY",), ("AH",)), "TO": (("T", "UW"),)}, ("SIL", "AH", "EY", "T", "UW"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def fails_with(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def test_words_and_phones_are_sorted_and_pronunciations_keep_the_order_of_the_file(tmp_path):
    lexicon = read_lexicon(write(tmp_path / "lexicon.txt", TEXT))
    assert lexicon == LEXICON
    assert list(lexicon.pronunciations) == ["A", "TO"]


def test_words_are_sorted_as_utf8_bytes(tmp_path):
    # U+10400 is the byte F0 in UTF-8, after U+FF21, EF; in UTF-16 it would come before.
    lexicon = read_lexicon(write(tmp_path / "lexicon.txt", "\U00010400 X\n\uff21 X\na X\nÉ X\nB X\n"))
    assert list(lexicon.pronunciations) == ["B", "a", "É", "\uff21", "\U00010400"]


def test_only_ascii_white_space_separates_fields(tmp_path):
    lexicon = read_lexicon(write(tmp_path / "lexicon.txt", "A\u00a0B\t EY  B IY\r\n\n"))
    assert lexicon.pronunciations == {"A\u00a0B": (("EY", "B", "IY"),)}


def test_a_written_lexicon_is_read_back_the_same(tmp_path):
    write_lexicon(LEXICON, tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "A EY\nA AH\nTO T UW\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == LEXICON


def test_a_packed_lexicon_is_read_like_a_plain_one(tmp_path):
    (tmp_path / "lexicon.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert read_lexicon(tmp_path / "lexicon.txt.gz") == LEXICON


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("B 2 IY", "B has the number 2 where 3 of 4 lines have a phone; give all pronunciations"),
        ("B IY 2", "the phone 2 of B is a number"),
        ("B\u2028C IY", "'B\\u2028C' (U+0042 U+2028 U+0043) holds a character at which lines end elsewhere"),
        ("B\x85 IY", "'B\\x85' (U+0042 U+0085) holds a character at which lines end elsewhere"),
        ("B\x1c IY", "'B\\x1c' (U+0042 U+001C) holds a character at which lines end elsewhere"),
        ("\ufeffB IY", "'\\ufeffB' (U+FEFF U+0042) holds a character at which lines end elsewhere"),
        ("B", "the word B has no phones"),
        ("<eps> EY", "the word <eps> is a reserved symbol"),
        ("<s> EY", "the word <s> is a reserved symbol"),
        ("</s> EY", "the word </s> is a reserved symbol"),
        ("#0 EY", "the word #0 is a reserved symbol"),
        ("B IY #1", "the phone #1 of B is a reserved symbol"),
        ("B IY <eps>", "the phone <eps> of B is a reserved symbol"),
        ("B IY SIL", "the silence phone SIL stands in B"),
        ("B B IY", "the phone B of B is not in the phone set"),
    ],
)
def test_a_bad_entry_is_named_by_file_and_line(tmp_path, line, message):
    path = write(tmp_path / "lexicon.txt", f"{TEXT}{line}\n")
    with fails_with(f"{path}:4: {message.format(path=path)}"):
        read_lexicon(path, phone_set={"T", "UW", "EY", "AH", "IY", "SIL"})


def test_text_that_is_not_utf8_is_named_by_file_and_line(tmp_path):
    (tmp_path / "lexicon.txt").write_bytes(b"A EY\nCAF\xc9 K AE F EY\n")
    with fails_with(f"{tmp_path}/lexicon.txt:2: not UTF-8"):
        read_lexicon(tmp_path / "lexicon.txt")


def test_an_empty_lexicon_and_an_empty_phone_set_are_errors(tmp_path):
    path = write(tmp_path / "empty.txt", "\n")
    with fails_with(f"{path}: no words"):
        read_lexicon(path)
    with fails_with(f"{path}: no phones"):
        read_phone_set(path)


def test_a_phone_set_may_list_several_phones_a_line(tmp_path):
    assert read_phone_set(write(tmp_path / "phones.txt", "SIL\nAH0 AH1\n")) == {"SIL", "AH0", "AH1"}


PROBABLE = Lexicon(LEXICON.pronunciations, LEXICON.phones,
                   {("A", ("EY",)): 1.0, ("A", ("AH",)): 0.25, ("TO", ("T", "UW")): 0.9})


@pytest.mark.parametrize("text", [
    "TO 0.9 T UW\nA 1.0 EY\nA .25 AH\n",  # Kaldi's lexiconp.txt
    "TO\t0.9\tT UW\nA\t1\tEY\nA\t2.5e-1\tAH\n",
    "TO\t0.9\t0.1\t1.2\t0.8\tT UW\nA\t1.0\tEY\nA\t0.25\t0.5\t1\t1\tAH\n",  # MFA's, with silence where it is known
])
def test_a_column_of_numbers_is_the_probability_of_each_pronunciation(tmp_path, text):
    assert read_lexicon(write(tmp_path / "lexicon.txt", text)) == PROBABLE


def test_probabilities_are_written_and_read_back_the_same(tmp_path):
    write_lexicon(PROBABLE, tmp_path / "lexicon.txt")
    assert (tmp_path / "lexicon.txt").read_text() == "A 1.0 EY\nA 0.25 AH\nTO 0.9 T UW\n"
    assert read_lexicon(tmp_path / "lexicon.txt") == PROBABLE


def test_probabilities_stay_with_pronunciations_that_tell_their_position():
    marked = position_dependent(PROBABLE)
    assert marked.probabilities == {("A", ("EY_S",)): 1.0, ("A", ("AH_S",)): 0.25, ("TO", ("T_B", "UW_E")): 0.9}
    assert marked.log_probs("A") == pytest.approx((0.0, -1.3863), abs=1e-4)
    assert position_dependent(LEXICON).log_probs("A") == (0.0, 0.0)


@pytest.mark.parametrize(("line", "message"), [
    ("B IY", "B has no number where 3 of 4 lines have a probability; give all pronunciations a probability, or none"),
    ("B 1.5 IY", "B has the probability 1.5; it has to be above 0, and at most 1"),
    ("B 0 IY", "B has the probability 0; it has to be above 0, and at most 1"),
    ("B 0.5 2 IY", "the phone 2 of B is a number"),
    ("B 0.5", "the word B has no phones"),
    ("A 0.5 EY", "A is pronounced the same on {path}:2, with the probability 1 in place of 0.5; remove one line"),
])
def test_a_bad_line_among_probabilities_is_named_by_file_and_line(tmp_path, line, message):
    path = write(tmp_path / "lexiconp.txt", f"TO 0.9 T UW\nA 1.0 EY\nA 0.25 AH\n{line}\n")
    with fails_with(f"{path}:4: {message.format(path=path)}"):
        read_lexicon(path)


def test_a_line_given_twice_counts_once_and_is_counted_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "lexicon.txt", f"{TEXT}A EY\nA  EY\n")
    assert read_lexicon(path) == LEXICON
    assert caplog.messages == [f"{path}: 2 lines repeat another and count once: A, A"]


def test_silence_words_are_left_out_and_counted_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = write(tmp_path / "lexicon.txt", f"!SIL SIL\n<SIL> SIL\n{TEXT}")
    assert read_lexicon(path) == LEXICON
    assert caplog.messages == [f"{path}: 2 words of silence alone are left out, as silence between words is modelled "
                               "without the lexicon: !SIL, <SIL>"]


def test_cmudicts_comments_and_numbered_pronunciations_are_read_for_what_they_are(tmp_path):
    path = write(tmp_path / "cmudict", f";;; # CMUdict -- Major Version\n;;; \n{TEXT}A(1) AA\nTO(2) T AH\nB(2) B IY\n")
    assert read_lexicon(path).pronunciations == {  # B is not there without its number
        "A": (("EY",), ("AH",), ("AA",)), "B(2)": (("B", "IY"),), "TO": (("T", "UW"), ("T", "AH"))}


def test_a_byte_order_mark_is_no_part_of_the_first_word(tmp_path):
    (tmp_path / "lexicon.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_lexicon(tmp_path / "lexicon.txt") == LEXICON


@pytest.mark.parametrize("word", ["A B", "A\u2028B", "\ufeffA", ";;;A", "A(2)", "<sil>", ""])
def test_a_lexicon_that_would_not_be_read_back_the_same_is_not_written(tmp_path, word):
    phones = ("SIL",) if word == "<sil>" else ("X",)
    with fails_with(f"{tmp_path}/lexicon.txt"):
        write_lexicon(make_lexicon([("A", ("EY",)), (word, phones)]), tmp_path / "lexicon.txt")
    assert not list(tmp_path.iterdir())


def test_a_symbol_that_would_not_be_read_back_as_one_is_not_written(tmp_path):
    with fails_with("words.txt: 'A B' would not be read back as one symbol"):
        write_symbol_table({"<eps>": 0, "A B": 1}, tmp_path / "words.txt")


def test_cmudict_pronunciations_lose_their_stress_and_words_keep_their_case():
    # CMUdict's "permit" is P ER0 M IH1 T and P ER1 M IH2 T: one pronunciation without the stress.
    assert pronounce_words(["READ", "permit"]).pronunciations == {
        "READ": (("R", "EH", "D"), ("R", "IY", "D")),
        "permit": (("P", "ER", "M", "IH", "T"),),
    }


def test_words_that_cmudict_lacks_are_named():
    with fails_with("not in the CMU dictionary: QZXV;"):
        pronounce_words(["READ", "QZXV"])


def test_homophones_and_beginnings_of_longer_pronunciations_are_marked():
    lexicon = make_lexicon([
        ("RED", ("R", "EH", "D")),
        ("READ", ("R", "EH", "D")),
        ("READ", ("R", "IY", "D")),
        ("READING", ("R", "IY", "D", "IH", "NG")),
    ])
    marked, num_marks = disambiguated(lexicon)
    assert marked == [
        ("READ", ("R", "EH", "D", "#1")),
        ("READ", ("R", "IY", "D", "#1")),
        ("READING", ("R", "IY", "D", "IH", "NG")),
        ("RED", ("R", "EH", "D", "#2")),
    ]
    assert num_marks == 2


def test_a_lexicon_without_ambiguity_gets_no_marks():
    assert disambiguated(LEXICON) == ([("A", ("EY",)), ("A", ("AH",)), ("TO", ("T", "UW"))], 0)


def test_symbol_tables_start_at_epsilon_and_end_in_the_symbols_of_the_graph(tmp_path):
    assert word_symbols(LEXICON) == {"<eps>": 0, "A": 1, "TO": 2, "#0": 3, "<s>": 4, "</s>": 5}
    phones = {"<eps>": 0, "SIL": 1, "AH": 2, "EY": 3, "T": 4, "UW": 5, "#0": 6}
    assert phone_symbols(LEXICON, 0) == phones
    assert phone_symbols(LEXICON, 2) == phones | {"#1": 7, "#2": 8}
    write_symbol_table(word_symbols(LEXICON), tmp_path / "words.txt")
    assert (tmp_path / "words.txt").read_text() == "<eps> 0\nA 1\nTO 2\n#0 3\n<s> 4\n</s> 5\n"


def test_phones_can_tell_their_position_in_the_word():
    lexicon = position_dependent(
        make_lexicon([("A", ("EY",)), ("B", ("B", "IY")), ("SIX", ("S", "IH", "K", "S"))]))
    assert lexicon.pronunciations == {"A": (("EY_S",),), "B": (("B_B", "IY_E"),),
                                      "SIX": (("S_B", "IH_I", "K_I", "S_E"),)}
    assert lexicon.phones == ("SIL", "B_B", "EY_S", "IH_I", "IY_E", "K_I", "S_B", "S_E")
