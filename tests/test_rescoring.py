import math

import pytest

from decant.lang.language_model import NgramModel
from decant.search.rescoring import rescored, sentence_cost, sentence_costs


def unigrams(**probabilities):
    """A model of words, sentence end included, by probability."""
    section = {(word,): (math.log10(p), 0.0) for word, p in probabilities.items()}
    return NgramModel(({**section, ("</s>",): (math.log10(0.5), 0.0), ("<s>",): (-99.0, 0.0)},))


OLD, NEW = unigrams(a=0.4, b=0.1), unigrams(a=0.05, b=0.45)
N_BEST = [(("a", "a"), 10.0), (("a", "b"), 11.0), (("b",), 30.0)]


def test_a_sentence_costs_its_words_and_its_end():
    assert sentence_cost(OLD, ("a", "b")) == pytest.approx(-math.log(0.4 * 0.1 * 0.5))
    assert sentence_cost(OLD, ()) == pytest.approx(-math.log(0.5))


def test_many_sentences_at_once_cost_what_each_costs_alone():
    sentences = [("a", "b"), (), ("b",), ("a", "b")]
    assert sentence_costs(OLD, sentences).tolist() == [sentence_cost(OLD, words) for words in sentences]
    assert len(sentence_costs(OLD, [])) == 0


def test_the_old_model_s_cost_is_replaced_by_the_scaled_one_of_the_new():
    found = dict(rescored(N_BEST, OLD, NEW, scale=2.0))
    assert found["b",] == pytest.approx(30.0 + math.log(0.1 * 0.5) - 2.0 * math.log(0.45 * 0.5))


def test_the_new_model_chooses_among_the_listed_sentences():
    assert [words for words, _ in rescored(N_BEST, OLD, NEW)] == [("a", "b"), ("a", "a"), ("b",)]


def test_the_same_model_changes_nothing():
    found = rescored(N_BEST, OLD, OLD)
    assert [words for words, _ in found] == [words for words, _ in N_BEST]
    assert [cost for _, cost in found] == pytest.approx([10.0, 11.0, 30.0])


def test_a_word_that_a_model_lacks_is_named_and_an_empty_list_refused():
    with pytest.raises(ValueError, match="lacks the word zebra"):
        rescored([(("a", "zebra"), 1.0)], unigrams(a=0.5, zebra=0.1), NEW)
    with pytest.raises(ValueError, match="no hypotheses"):
        rescored([], OLD, NEW)
