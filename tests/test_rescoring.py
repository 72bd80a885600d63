import math
from dataclasses import replace

import numpy as np
import pytest

from decant.lang.language_model import NgramModel, estimate_ngram
from decant.lang.mapped_model import read_mapped, write_mapped
from decant.search import rescoring
from decant.search.lattice import Lattice, n_best
from decant.search.rescoring import Rescorer, rescored, sentence_cost, sentence_costs


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


# Lattices

LABELS = ((), ("a",), ("b",), ("c",))


def random_lattice(rng, num_states=9):
    """Three arcs from each state to the next, fewer to later ones; those to the last state give out nothing."""
    arcs = [(s, t, rng.uniform(0, 3), rng.uniform(-3, 3), 0 if t == num_states - 1 else rng.integers(4))
            for s in range(num_states - 1) for t in range(s + 1, num_states)
            for _ in range(3) if t == s + 1 or rng.random() < 0.2]
    sources, targets, graph, acoustic, labels = (np.array(column) for column in zip(*arcs, strict=True))
    return Lattice(sources, targets, graph, acoustic, labels, LABELS, np.arange(num_states))


def estimated(rng, order):
    return estimate_ngram([rng.choice(["a", "b", "c"], 6) for _ in range(20)], order, {"a", "b", "c"})


@pytest.mark.parametrize("old_order, new_order", [(1, 1), (1, 4), (2, 3), (3, 2)])
def test_every_word_sequence_of_a_lattice_costs_what_its_sentence_costs_in_the_other_model(old_order, new_order):
    rng = np.random.default_rng(0)
    old, new = estimated(rng, old_order), estimated(rng, new_order)
    for _ in range(5):
        lattice = random_lattice(rng)
        found = Rescorer(old, new, LABELS)(lattice, True, (1.0, 0.0))
        for setting in ((1.0, 0.0), (3.0, 0.5)):
            expected = rescored(n_best(lattice, 10**6, setting), old, new)
            changed = n_best(found, 10**6, setting)
            assert len(changed) > 50 and [words for words, _ in changed] == [words for words, _ in expected]
            assert [cost for _, cost in changed] == pytest.approx([cost for _, cost in expected])
        assert (np.diff(found.levels) >= 0).all() and (np.diff(found.sources) >= 0).all()
        assert (found.levels[found.targets] > found.levels[found.sources]).all()


def test_a_lattice_that_ends_anywhere_has_no_sentence_end_to_change():
    lattice = random_lattice(np.random.default_rng(1))
    whole, cut = (dict(n_best(Rescorer(OLD, NEW_END, LABELS[:3])(only_a(lattice), end, (1.0, 0.0)), 100, (1.0, 0.0)))
                  for end in (True, False))
    assert {words: whole[words] - cut[words] for words in whole} == pytest.approx(
        dict.fromkeys(whole, math.log(0.5 / 0.1)))


NEW_END = NgramModel(({**OLD.ngrams[0], ("</s>",): (math.log10(0.1), 0.0)},))


def only_a(lattice):
    return replace(lattice, labels=np.minimum(lattice.labels, 1), words=LABELS[:3])


def test_a_lattice_that_grows_too_large_is_cut_to_its_best_paths(monkeypatch, caplog):
    rng = np.random.default_rng(2)
    lattice, rescore = random_lattice(rng, 20), Rescorer(estimated(rng, 1), estimated(rng, 4), LABELS)
    whole = rescore(lattice, True, (1.0, 0.0))
    monkeypatch.setattr(rescoring, "MAX_ARCS", len(whole.labels) // 2)
    cut = rescore(lattice, True, (1.0, 0.0))
    assert "is cut to the beam" in caplog.text
    assert len(cut.labels) <= len(whole.labels) // 2
    assert n_best(cut, 1, (1.0, 0.0))[0] in n_best(whole, 20, (1.0, 0.0))


def test_a_word_of_a_lattice_that_a_model_lacks_is_named():
    with pytest.raises(ValueError, match="lacks the word c"):
        Rescorer(OLD, NEW, LABELS)(random_lattice(np.random.default_rng(3)), True, (1.0, 0.0))


def test_a_model_is_the_same_when_it_is_mapped(tmp_path):
    model = estimated(np.random.default_rng(4), 3)
    write_mapped(model, tmp_path / "lm")
    mapped, sentences = read_mapped(tmp_path / "lm"), [("a", "b", "c", "a"), (), ("c", "c")]
    assert mapped.words == model.words and mapped.num_ngrams == model.num_ngrams
    assert sentence_costs(mapped, sentences) == pytest.approx(sentence_costs(model, sentences), rel=1e-6)
    (tmp_path / "lm" / "2_backoffs.npy").unlink()
    with pytest.raises(FileNotFoundError, match="2_backoffs"):
        read_mapped(tmp_path / "lm")
