import gzip

import pytest

from decant.text import byte_lines, fields, is_field, read_fields, read_lines, shown


def test_fields_are_split_at_ascii_white_space_alone():
    assert fields(" a\tb\nc\x0bd\x0ce\rf  ") == ["a", "b", "c", "d", "e", "f"]
    whole = "a\u00a0b\u2028c\x85d\x1ce\x1df\x1eg\x1fh\u3000i"  # Python's str.split makes ten of it
    assert fields(whole) == [whole]


def test_a_newline_alone_ends_a_line(tmp_path):
    (tmp_path / "a").write_bytes("a\r\nb\rc\u2028d\x0be\n\nf".encode())
    assert list(byte_lines(tmp_path / "a")) == [b"a\r", "b\rc\u2028d\x0be".encode(), b"", b"f"]
    assert [line for _, line in read_lines(tmp_path / "a")] == [["a"], ["b", "c\u2028d", "e"], [], ["f"]]
    assert list(read_fields(tmp_path / "a"))[-1] == (f"{tmp_path}/a:4", ["f"])


def test_a_byte_order_mark_is_taken_off_at_the_beginning_alone(tmp_path):
    (tmp_path / "a").write_text("\ufeffa\n\ufeffb\n", encoding="utf-8")
    assert [line for _, line in read_lines(tmp_path / "a")] == [["a"], ["\ufeffb"]]


def test_gzip_is_known_by_what_is_in_the_file(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress("\ufeffa\nb\n".encode()))
    assert list(byte_lines(tmp_path / "a")) == [b"a", b"b"]


def test_an_empty_file_has_no_lines(tmp_path):
    (tmp_path / "a").touch()
    assert list(byte_lines(tmp_path / "a")) == []


@pytest.mark.parametrize(("text", "whole"), [
    ("A", True), ("A\u00a0B", True), ("A\u2028B", True), ("", False), ("A B", False), ("A\n", False), ("\x0bA", False),
    ("\ufeffA", False)])
def test_a_field_is_what_is_read_back_as_one(text, whole, tmp_path):
    assert is_field(text) is whole
    (tmp_path / "a").write_text(f"{text}\n", encoding="utf-8")
    assert ([line for _, line in read_lines(tmp_path / "a")] == [[text]]) is whole


@pytest.mark.parametrize(("text", "other"), [
    ("\ufeffA", "A"), ("A", "\ufeffA"), ("A\u00a0B", "AB"), ("cafe\u0301", "caf\u00e9"), ("A\u200bB", "AB"),
    ("\u0410", "A"), ("DON\u2019T", "DON'T"), ("A\u2011B", "A-B")])
def test_a_text_that_looks_like_another_is_shown_with_the_code_points_of_both(text, other):
    def points(word):
        return " ".join(f"U+{ord(c):04X}" for c in word)

    assert shown(text, ["B", other]) == f"{text} ({points(text)}, which looks like {other}, {points(other)})"


def test_a_text_that_can_be_told_apart_is_shown_as_it_is():
    assert shown("A", ["A", "B", "a"]) == "A"
    assert shown("\u00c9", ["E"]) == "\u00c9"
    assert shown("A\u00a0B", ["C"]) == "A\u00a0B (U+0041 U+00A0 U+0042)"
