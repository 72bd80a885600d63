import math

import pytest

from decant.lang.language_model import (
    LanguageModelConfig,
    NgramModel,
    estimate_ngram,
    log10_prob,
    perplexity,
    read_arpa,
    write_arpa,
)
from decant.lang.pruning import pruned

TEXT = [line.split() for line in ("a b c", "a b d", "a c b d", "b c", "b d a", "d a b c", "a b c", "c", "d d a b")]
MODEL = estimate_ngram(TEXT, 3, "abcde")


def test_the_share_of_a_bigram_equals_a_calculation_by_hand():
    """a is followed by b (0.8 in place of 0.25), else by back-off; <s> and </s> are as frequent: 0.25."""
    quarter = math.log10(0.25)
    alpha = math.log10(0.2 / 0.75)
    model = NgramModel(({("<s>",): (-99.0, 0.0), ("</s>",): (quarter, 0.0), ("a",): (quarter, alpha),
                         ("b",): (math.log10(0.5), 0.0)}, {("a", "a"): (math.log10(0.8), 0.0)}))
    # Without the bigram alpha(a) is 1: p(a | a) falls from 0.8 to 0.25, the others rise from 0.2 / 0.75 of theirs.
    share = math.exp(0.25 * (0.8 * math.log(0.8 / 0.25) + 0.2 * math.log(0.2 / 0.75))) - 1
    assert pruned(model, threshold=share * 0.999).num_ngrams == 5
    unigrams = pruned(model, threshold=share * 1.001)
    assert unigrams.order == 1
    assert unigrams.ngrams[0]["a",] == (quarter, 0.0)


@pytest.mark.parametrize("options", [{"threshold": 1e-2}, {"threshold": 3e-2}, {"max_ngrams": 20}, {"max_ngrams": 7}])
def test_the_probabilities_after_every_history_still_sum_to_one(options):
    model = pruned(MODEL, **options)
    assert model.num_ngrams < MODEL.num_ngrams
    for history in [(), *(ngram for ngrams in MODEL.ngrams[:2] for ngram in ngrams if "</s>" not in ngram)]:
        assert sum(10 ** log10_prob(model, history, word) for word in [*"abcde", "</s>"]) == pytest.approx(1), history


def test_a_number_of_ngrams_leaves_those_that_matter_most_and_their_histories():
    smaller, larger = pruned(MODEL, max_ngrams=15), pruned(MODEL, max_ngrams=22)
    assert (smaller.num_ngrams, larger.num_ngrams) == (15, 22)
    for few, more in zip(smaller.ngrams, larger.ngrams, strict=False):
        assert few.keys() <= more.keys()
    assert all(ngram[:-1] in larger.ngrams[1] for ngram in larger.ngrams[2])
    assert perplexity(smaller, TEXT)[0] > perplexity(larger, TEXT)[0] > perplexity(MODEL, TEXT)[0]


def test_nothing_is_pruned_where_nothing_is_asked_for(tmp_path):
    same = pruned(MODEL)
    write_arpa(same, tmp_path / "a.arpa")
    assert [len(ngrams) for ngrams in read_arpa(tmp_path / "a.arpa").ngrams] == [len(x) for x in MODEL.ngrams]


def test_fewer_ngrams_than_words_and_negative_settings_are_refused():
    with pytest.raises(ValueError, match="max_ngrams is 3, but the 7 words have a unigram each"):
        pruned(MODEL, max_ngrams=3)
    with pytest.raises(ValueError, match="prune_threshold is -1"):
        LanguageModelConfig(prune_threshold=-1)
