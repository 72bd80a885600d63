import gzip
import re
from pathlib import Path

import pytest

from decant.feat.data_dir import Utterance
from decant.lang.lexicon import (
    Lexicon,
    check_words,
    disambiguated,
    make_lexicon,
    phone_symbols,
    position_dependent,
    pronounce_words,
    read_lexicon,
    read_phone_set,
    word_symbols,
    write_lexicon,
    write_symbol_table,
)

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
        ("A EY", "A is pronounced the same on {path}:2"),
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


def test_missing_words_are_named_with_their_first_utterance_and_the_others_are_counted():
    def utterance(name: str, words: str) -> Utterance:
        return Utterance(name, "speaker", Path("a.wav"), tuple(words.split()))

    text = Path("data/train/text")
    check_words(LEXICON, [utterance("u1", "A TO A")], text)
    with fails_with("data/train/text: words missing from the lexicon: V (utterance u2), W (utterance u2), "
                    "X (utterance u2), Y (utterance u3), Z (utterance u3) and 1 more; add"):
        check_words(LEXICON, [utterance("u2", "A V W X"), utterance("u3", "V Y Z Q")], text)


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
