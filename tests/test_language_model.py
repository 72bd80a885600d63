import gzip
import logging
import math
import re
from pathlib import Path

import kaldilm
import numpy as np
import pytest
from slow_kneser_ney import slow_estimate

from decant.lang.kneser_ney import FALLBACK_DISCOUNTS, count_ngrams, kneser_ney_discounts
from decant.lang.language_model import (
    LanguageModelConfig,
    NgramModel,
    estimate_ngram,
    log10_prob,
    perplexity,
    read_arpa,
    sentence_log10_probs,
    write_arpa,
)
from decant.lang.lexicon import make_lexicon
from decant.lang.symbols import word_symbols, write_symbol_table
from decant.text import byte_blocks

TINY = [("a", "b"), ("a", "c")]
SHIPS = [
    line.split()
    for line in (
        "dog", "find me red car", "show me red car", "a red ship",
        "show the red car", "show the ship", "show the ship", "red ship", "red car",
    )
]
SHIP_WORDS = {"plane"}.union(*SHIPS)  # plane is in no sentence


def prob(model: NgramModel, history: str, word: str) -> float:
    return 10 ** log10_prob(model, history.split(), word)


def fails_with(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


# Estimation


def counted(sentences, order: int, **options) -> list[dict]:
    """The counts of `count_ngrams` by n-gram."""
    words = sorted({"<s>", "</s>"}.union(*sentences))
    found = count_ngrams(sentences, order, {word: number for number, word in enumerate(words)}, **options)
    return [{tuple(words[number] for number in row): count
             for *row, count in zip(*(column.tolist() for column in (*counts.rows, counts.counts)), strict=True)}
            for counts in found]


def test_shorter_ngrams_count_the_words_before_them_and_those_at_the_start_count_occurrences():
    counts = counted([("a", "b"), ("a", "b"), ("c", "b")], 3)
    assert counts[2] == {
        ("<s>", "a", "b"): 2, ("a", "b", "</s>"): 2, ("<s>", "c", "b"): 1, ("c", "b", "</s>"): 1
    }
    assert counts[1] == {("<s>", "a"): 2, ("<s>", "c"): 1, ("a", "b"): 1, ("c", "b"): 1, ("b", "</s>"): 2}
    assert counts[0] == {("a",): 1, ("c",): 1, ("b",): 2, ("</s>",): 1}


def test_a_sentence_shorter_than_the_order_counts_in_the_orders_that_it_fills():
    counts = counted([("a",), ()], 4)
    assert len(counts) == 3  # there is no 4-gram
    assert counts[2] == {("<s>", "a", "</s>"): 1}
    assert counts[1] == {("<s>", "a"): 1, ("<s>", "</s>"): 1, ("a", "</s>"): 1}


def random_sentences(num_words: int, num_sentences: int) -> list[list[str]]:
    """Sentences of up to nine words, the first words of the vocabulary far more frequent than the last."""
    random = np.random.default_rng(0)
    return [[f"w{int(number):03d}" for number in num_words * random.random(random.integers(10)) ** 3]
            for _ in range(num_sentences)]


@pytest.mark.parametrize("order", [1, 2, 3, 5, 12])
def test_text_counted_in_chunks_gives_the_counts_of_the_whole(order):
    sentences = random_sentences(100, 300)
    assert counted(sentences, order, chunk=50) == counted(sentences, order)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 11])  # eleven words of a thousand need two whole numbers
def test_the_estimate_is_that_of_dicts_to_the_last_digit_of_its_file(order, tmp_path):
    sentences = random_sentences(1000, 3000)
    vocabulary = {"unseen"}.union(*sentences)
    model = estimate_ngram(iter(sentences), order, vocabulary)
    write_arpa(model, tmp_path / "fast.arpa")
    write_arpa(NgramModel(slow_estimate(sentences, order, frozenset(vocabulary))), tmp_path / "slow.arpa")
    assert (tmp_path / "fast.arpa").read_text() == (tmp_path / "slow.arpa").read_text()


def test_discounts_follow_equation_26():
    # n1..n4 = 4, 2, 1, 1: Y = 4/8; D1 = 1 - 2Y 2/4, D2 = 2 - 3Y 1/2, D3+ = 3 - 4Y 1/1
    assert kneser_ney_discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9]), 3) == pytest.approx((0, 0.5, 1.25, 1.0))


@pytest.mark.parametrize("counts", [[2, 3, 4], [1, 3, 4], [1, 2, 4], [1, 2, 3, 4, 4, 4]])
def test_discounts_that_cannot_be_estimated_or_are_negative_fall_back_with_a_warning(counts, caplog):
    with caplog.at_level(logging.WARNING):
        assert kneser_ney_discounts(np.array(counts), 2) == FALLBACK_DISCOUNTS
    assert "2-grams" in caplog.text


def test_unigrams_equal_a_calculation_by_hand():
    # a, b, </s> once, c twice, d three times, e never.
    # n1..n4 = 3, 1, 1, 0: Y = 3/5, D1 = 0.6, D2 = 0.2, D3+ = 3.
    # Of 8 counts, 3 * 0.6 + 0.2 + 3 = 5 go to the uniform distribution over 6 words: 5/8/6 each.
    model = estimate_ngram([tuple("abccddd")], 1, "abcde")
    uniform = 5 / 8 / 6
    expected = {"a": 0.4 / 8, "b": 0.4 / 8, "</s>": 0.4 / 8, "c": 1.8 / 8, "d": 0.0, "e": 0.0}
    assert {word: prob(model, "", word) for word in expected} == pytest.approx(
        {word: own + uniform for word, own in expected.items()}
    )


def test_bigrams_equal_a_calculation_by_hand():
    # No discounts can be estimated: 0.5, 1, 1.5. Words seen before: a 1, b 1, c 1, </s> 2.
    # gamma() = (3 * 0.5 + 1) / 5 = 0.5 over 4 words: p(a) = 0.5/5 + 0.125 = 0.225, p(</s>) = 1/5 + 0.125.
    # After a: b 1, c 1; gamma(a) = (0.5 + 0.5) / 2. After <s>: a 2; gamma(<s>) = 1/2.
    model = estimate_ngram(TINY, 2, "abc")
    assert prob(model, "", "a") == pytest.approx(0.225)
    assert prob(model, "", "</s>") == pytest.approx(0.325)
    assert prob(model, "a", "b") == pytest.approx(0.5 / 2 + 0.5 * 0.225)
    assert prob(model, "a", "a") == pytest.approx(0.5 * 0.225)  # unseen: the back-off weight times p(a)
    assert prob(model, "<s>", "a") == pytest.approx(1 / 2 + 0.5 * 0.225)
    assert model.ngrams[0][("a",)][1] == pytest.approx(math.log10(0.5))


def test_a_trigram_model_equals_that_of_mitlm():
    # MITLM 0.4.2, estimate-ngram -order 3 -smoothing ModKN -vocab <SHIP_WORDS>; it writes six decimals.
    expected = {
        "<s>": (-99, -0.353613),
        "</s>": (-0.748095, 0),
        "red": (-0.624459, -0.346787),
        "plane": (-1.426744, 0),
        "<s> show": (-0.402934, -0.500602),
        "red car": (-0.309280, -0.766870),
        "<s> dog </s>": (-0.139850, 0),
        "show the ship": (-0.478012, 0),
    }
    model = estimate_ngram(SHIPS, 3, SHIP_WORDS)
    assert [len(ngrams) for ngrams in model.ngrams] == [12, 17, 17]
    for ngram, values in expected.items():
        words = tuple(ngram.split())
        assert model.ngrams[len(words) - 1][words] == pytest.approx(values, abs=6e-7), ngram


@pytest.mark.parametrize("sentences", [SHIPS, SHIPS[:3], [("red",)] * 5, [()]])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_probabilities_after_every_history_sum_to_one(sentences, order):
    model = estimate_ngram(sentences, order, SHIP_WORDS)
    histories = {ngram for ngrams in model.ngrams for ngram in ngrams if "</s>" not in ngram}
    for history in [(), ("plane", "plane", "plane"), *histories]:
        probs = [10 ** log10_prob(model, history, word) for word in [*SHIP_WORDS, "</s>"]]
        assert min(probs) > 0
        assert sum(probs) == pytest.approx(1), history


def test_a_word_outside_the_vocabulary_is_named_with_its_sentence():
    with fails_with("sentence 2: c is not in the vocabulary"):
        estimate_ngram(TINY, 2, "ab")


def test_no_sentences_no_words_and_reserved_words_are_errors():
    with fails_with("no sentences"):
        estimate_ngram([], 3, "ab")
    with fails_with("the vocabulary is empty"):
        estimate_ngram([()], 3, [])
    with fails_with("reserved </s>, <s>"):
        estimate_ngram(TINY, 3, ["a", "<s>", "</s>"])


def test_an_order_below_one_is_an_error():
    with fails_with("order is 0"):
        LanguageModelConfig(order=0)


# Perplexity


def test_perplexity_counts_sentence_ends_and_leaves_unknown_words_out():
    # Unigrams at 1/4 and 1/2: "a zebra a" is a, a, </s> with zebra apart: (4 * 4 * 2) ** (1/3)
    quarter, half = (math.log10(0.25), 0.0), (math.log10(0.5), 0.0)
    model = NgramModel(({("<s>",): (-99.0, 0.0), ("a",): quarter, ("b",): quarter, ("</s>",): half},))
    value, num_unknown = perplexity(model, [("a", "zebra", "a")])
    assert value == pytest.approx(32 ** (1 / 3))
    assert num_unknown == 1
    with fails_with("no sentences"):
        perplexity(model, [])


def test_a_word_without_a_unigram_is_impossible_and_one_in_the_history_is_backed_off_from():
    model = estimate_ngram(TINY, 2, "abc")
    assert log10_prob(model, ["a"], "zebra") == -math.inf
    assert log10_prob(model, ["zebra"], "a") == log10_prob(model, [], "a")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sentences_scored_together_have_the_probabilities_of_their_words(tmp_path, monkeypatch, dtype):
    write_arpa(estimate_ngram(SHIPS, 3, SHIP_WORDS), tmp_path / "lm.arpa")
    model = read_arpa(tmp_path / "lm.arpa", dtype)
    sentences = [["dog"], ["red", "red", "car"], [], ["show", "zebra", "the", "ship"], *SHIPS]
    monkeypatch.setattr("decant.lang.ngram_model.BATCH", 9)  # several batches
    log10_probs, unknown = sentence_log10_probs(model, sentences)
    assert unknown.tolist() == [0, 0, 0, 1] + [0] * len(SHIPS)
    for words, found in zip(sentences, log10_probs, strict=True):
        tokens = ["<s>", *words, "</s>"]
        each = [log10_prob(model, tokens[:place], tokens[place]) for place in range(1, len(tokens))]
        assert found == pytest.approx(sum(value for value in each if value > -math.inf))


def test_a_model_read_in_single_precision_takes_16_bytes_an_ngram_and_12_a_longest(tmp_path):
    write_arpa(estimate_ngram(SHIPS, 3, SHIP_WORDS), tmp_path / "lm.arpa")
    sections = read_arpa(tmp_path / "lm.arpa", np.float32).sections
    assert [section.nbytes / len(section.keys) for section in sections] == [16, 16, 12]


def test_an_arpa_file_is_read_alike_in_blocks_of_any_size_and_in_any_order(tmp_path, monkeypatch):
    model = estimate_ngram(SHIPS, 3, SHIP_WORDS)
    write_arpa(model, tmp_path / "lm.arpa")
    head, *lists = (tmp_path / "lm.arpa").read_text().split("-grams:\n")
    shuffled = [head]
    for of_order in lists:
        ngrams, rest = of_order.split("\n\n")
        shuffled.append("\n".join(sorted(ngrams.split("\n"), reverse=True)) + "\n\n" + rest)
    (tmp_path / "other.arpa").write_text("-grams:\n".join(shuffled))
    blocks = byte_blocks
    monkeypatch.setattr("decant.lang.arpa.byte_blocks", lambda path: blocks(path, size=10))
    assert read_arpa(tmp_path / "other.arpa") == read_arpa(tmp_path / "lm.arpa")


def test_an_ngram_whose_history_is_not_listed_is_left_out_and_said(tmp_path, caplog):
    text = ARPA.replace("ngram 2=1", "ngram 2=1\nngram 3=2").replace(
        "0.0000 <s> yes\n", "0.0000 <s> yes\n\n\\3-grams:\n-0.1 yes yes yes\n-0.2 <s> yes </s>\n")
    model = read_text(tmp_path / "lm.arpa", text)
    assert list(model.ngrams[2]) == [("<s>", "yes", "</s>")]
    assert "left out 1 of 2 3-grams, whose history has no line of its own" in caplog.text


def test_only_the_last_words_of_a_history_count():
    model = estimate_ngram(SHIPS, 3, SHIP_WORDS)
    assert log10_prob(model, ["dog", "find", "me", "red"], "car") == model.ngrams[2][("me", "red", "car")][0]


# ARPA files


@pytest.mark.parametrize("name", ["lm.arpa", "lm.arpa.gz"])
def test_a_written_model_is_read_back_to_seven_digits(tmp_path, name):
    model = estimate_ngram(SHIPS, 3, SHIP_WORDS)
    write_arpa(model, tmp_path / name)
    read = read_arpa(tmp_path / name)
    for ngrams, read_ngrams in zip(model.ngrams, read.ngrams, strict=True):
        assert ngrams.keys() == read_ngrams.keys()
        for ngram, values in ngrams.items():
            assert read_ngrams[ngram] == pytest.approx(values, rel=1e-6, abs=1e-9)


def test_the_file_does_not_depend_on_the_order_of_estimation_or_the_time(tmp_path):
    write_arpa(estimate_ngram(SHIPS, 3, sorted(SHIP_WORDS)), tmp_path / "a.arpa.gz")
    write_arpa(estimate_ngram(SHIPS[::-1], 3, sorted(SHIP_WORDS)[::-1]), tmp_path / "b.arpa.gz")
    packed = (tmp_path / "a.arpa.gz").read_bytes()
    assert packed == (tmp_path / "b.arpa.gz").read_bytes()
    assert packed[4:8] == bytes(4)  # the header's time
    assert gzip.decompress(packed).startswith(b"\\data\\\nngram 1=12\nngram 2=17\nngram 3=17\n\n\\1-grams:\n")


def sentence_cost(fst: str, labels: list[str], backoff: str) -> float:
    """-ln probability of a sentence in kaldilm's text: by a word's arc if there is one, else by back-off."""
    arcs = {}
    for line in fst.splitlines():
        match line.split():
            case [state, target, label, _, *weight]:
                arcs[state, label] = target, float(*weight)
            case [state, *weight]:
                arcs[state, "end"] = state, float(*weight)
    state, cost = fst.split()[0], 0.0
    for label in [*labels, "end"]:
        while (state, label) not in arcs:
            state, weight = arcs[state, backoff]
            cost += weight
        state, weight = arcs[state, label]
        cost += weight
    return cost


@pytest.mark.parametrize("order", [1, 2, 3])
def test_kaldilm_gives_sentences_the_probability_that_the_model_does(tmp_path, order):
    lexicon = make_lexicon((word, ("X",)) for word in SHIP_WORDS)
    symbols = word_symbols(lexicon)
    write_symbol_table(symbols, tmp_path / "words.txt")
    model = estimate_ngram(SHIPS, order, lexicon.pronunciations)
    write_arpa(model, tmp_path / "lm.arpa")
    fst = kaldilm.arpa2fst(
        str(tmp_path / "lm.arpa"), disambig_symbol="#0", read_symbol_table=str(tmp_path / "words.txt")
    )
    for words in [["show", "me", "red", "car"], ["red"], ["plane", "dog", "ship", "red", "car"], []]:
        tokens = ["<s>", *words, "</s>"]
        expected = sum(log10_prob(model, tokens[:i], tokens[i]) for i in range(1, len(tokens)))
        cost = sentence_cost(fst, [str(symbols[word]) for word in words], str(symbols["#0"]))
        assert cost == pytest.approx(-expected * math.log(10), rel=1e-4)


ARPA = """a comment that mentions \\data\\ and ngram 1=7

\\data\\
ngram 1=3
ngram 2=1

\\1-grams:
-0.5 <s> -0.3
-0.4 </s>
-0.6 yes 0.0000

\\2-grams:
0.0000 <s> yes

\\end\\
"""


def read_text(path: Path, text: str) -> NgramModel:
    path.write_text(text, encoding="utf-8")
    return read_arpa(path)


def test_an_arpa_file_may_have_a_heading_and_leave_weights_out(tmp_path):
    assert read_text(tmp_path / "lm.arpa", ARPA) == NgramModel((
        {("<s>",): (-0.5, -0.3), ("</s>",): (-0.4, 0.0), ("yes",): (-0.6, 0.0)},
        {("<s>", "yes"): (0.0, 0.0)},
    ))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\\n", "", "lm.arpa: no \\data\\ line"),
        ("\\end\\\n", "", "lm.arpa: no \\end\\ line"),
        ("ngram 2=1", "ngram 3=1", "lm.arpa:5: found 'ngram 3=1' where 'ngram 2=<number>' should stand"),
        ("ngram 1=3", "ngram 1=4", "lm.arpa:12: 3 1-grams end here, but \\data\\ declares 4"),
        ("ngram 2=1", "ngram 2=2", "lm.arpa:15: 1 2-grams end here, but \\data\\ declares 2"),
        ("\\2-grams:", "\\3-grams:", "lm.arpa:12: found \\3-grams: where \\2-grams: should stand"),
        ("-0.6 yes 0.0000", "-0.6", "lm.arpa:10: 1 fields; a 1-gram's line holds"),
        ("-0.6 yes 0.0000", "-0.6 yes 0.0 0.0", "lm.arpa:10: 4 fields; a 1-gram's line holds"),
        ("0.0000 <s> yes", "0.0000 <s> yes 0.0", "lm.arpa:13: 4 fields; a 2-gram's line holds"),
        ("-0.6 yes", "half yes", "lm.arpa:10: could not convert string to float: 'half'"),
        ("-0.6 yes", "0.6 yes", "lm.arpa:10: log10 probability 0.6"),
        ("-0.6 yes", "nan yes", "lm.arpa:10: log10 probability nan"),
        ("yes 0.0000", "yes inf", "lm.arpa:10: log10 probability -0.6, back-off weight inf"),
        ("-0.6 yes", "-0.6 </s>", "lm.arpa:10: the n-gram '</s>' stands here a second time"),
        ("0.0000 <s> yes", "0.0000 <s> no", "lm.arpa:13: the word 'no' has no unigram"),
        ("-0.5 <s> -0.3", "-0.5 no", "lm.arpa:12: no unigram <s>"),
        ("-0.4 </s>", "-0.4 no", "lm.arpa:12: no unigram </s>"),
    ],
)
def test_a_bad_arpa_file_is_an_error_that_names_the_line(tmp_path, old, new, message):
    with fails_with(message):
        read_text(tmp_path / "lm.arpa", ARPA.replace(old, new))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\\data\\\nngram 1=0\n\\1-grams:\n\\end\\\n", 4),
        ("\\data\\\nngram 1=2\n\\1-grams:\n-99 <s>\n0 </s>\n\\end\\\n", 6),
        ("\\data\\\n\\end\\\n", 2),
    ],
)
def test_a_language_model_without_words_is_an_error(tmp_path, text, line):
    with fails_with(f"lm.arpa:{line}: the language model holds no words"):
        read_text(tmp_path / "lm.arpa", text)


def test_a_damaged_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress(ARPA.encode())[:-20])
    with fails_with("lm.arpa.gz: not a whole gzip file"):
        read_arpa(path)
    path.write_text(ARPA)
    with fails_with("lm.arpa.gz: not a whole gzip file"):
        read_arpa(path)


def test_a_packed_arpa_file_of_any_name_is_read_like_a_plain_one(tmp_path):
    (tmp_path / "lm.arpa").write_bytes(gzip.compress(ARPA.encode()))
    packed = read_arpa(tmp_path / "lm.arpa")
    assert packed == read_text(tmp_path / "plain.arpa", ARPA)


def test_a_word_that_would_not_be_read_back_as_one_is_not_written(tmp_path):
    model = estimate_ngram([["a b"]], 1, ["a b"])
    with fails_with("lm.arpa: 'a b' would not be read back as one word"):
        write_arpa(model, tmp_path / "lm.arpa")
