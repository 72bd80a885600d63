"""Entropy pruning: n-grams without which a language model hardly changes are left out.

A. Stolcke, Entropy-based pruning of backoff language models, DARPA Broadcast News Transcription and Understanding
Workshop (1998). h is an n-gram's history, all its words but the last; h' the history without its first word.
"""

import math

import numpy as np

from decant.lang.lexicon import SENTENCE_END, SENTENCE_START
from decant.lang.ngram_model import BATCH, NgramModel, Section, token_log10_probs

LEAST = 1e-10  # of what is left over for unseen words: below it there is rounding alone


def pruned(model: NgramModel, threshold: float = 0.0, max_ngrams: int = 0) -> NgramModel:
    """The model without the n-grams of two words or more whose leaving out, each alone, raises the perplexity by less
    than the share `threshold`; and with the highest of these shares, `max_ngrams` n-grams at most (0: any number).

    A history of an n-gram that stays stays. Back-off weights are made anew, so that probabilities sum to one. All
    shares are taken in the whole model (SRILM takes those of shorter n-grams in the model that the longer ones have
    left already). A history's own probability is the model's, which after Kneser-Ney smoothing is less good than counts
    would be (Chelba et al., 2010). Raises ValueError for fewer n-grams than there are words.
    """
    num_words = len(model.words)
    if max_ngrams and max_ngrams < num_words:
        raise ValueError(f"max_ngrams is {max_ngrams}, but the {num_words} words have a unigram each, which none can "
                         "be without; raise it")
    shares = _shares(model)
    least = threshold
    if max_ngrams and model.num_ngrams > max_ngrams:
        num_pruned = model.num_ngrams - max_ngrams
        last = np.partition(np.concatenate(shares), num_pruned - 1)[num_pruned - 1]
        least = max(threshold, float(np.nextafter(last, math.inf)))  # of equal ones none stays
    sections, place = [model.sections[0]], np.arange(num_words)
    for section, of_section in zip(model.sections[1:], shares, strict=True):
        kept = of_section >= least
        if not kept.any():
            break
        histories, words = np.divmod(section.keys[kept], num_words)
        sections.append(Section(place[histories] * num_words + words, section.log10_probs[kept], section.backoffs[:0]))
        place = np.cumsum(kept) - 1
    return _with_backoffs(NgramModel.from_arrays(model.words, sections))


def _shares(model: NgramModel) -> list[np.ndarray]:
    """For n-grams of two words, of three, ...: how much of the perplexity each adds where it, and all n-grams that it
    is a history of, are left out: at least the most that one of these adds; float64 [N]."""
    found = []
    for order in range(2, model.order + 1):
        section, before = model.sections[order - 1], model.sections[order - 2]
        histories = section.keys // len(model.words)
        p, lower = 10.0**section.log10_probs, 10.0 ** _lower_log10_probs(model, order)
        size = len(before.keys)
        left = np.maximum(1 - np.bincount(histories, p, size), LEAST)[histories]
        lower_left = np.maximum(1 - np.bincount(histories, lower, size), LEAST)[histories]
        alpha_without = np.log((left + p) / (lower_left + lower))
        change = p * (np.log(lower) + alpha_without - np.log(p)) + left * (alpha_without - np.log(left / lower_left))
        found.append(np.expm1(-10.0 ** _history_log10_probs(model, order - 1)[histories] * change))
    for shorter, section, of_section in zip(found[-2::-1], model.sections[:1:-1], found[:0:-1], strict=True):
        histories = section.keys // len(model.words)
        first = np.flatnonzero(np.diff(histories, prepend=-1))
        shorter[histories[first]] = np.maximum(shorter[histories[first]], np.maximum.reduceat(of_section, first))
    return found


def _lower_log10_probs(model: NgramModel, order: int) -> np.ndarray:
    """log10 p(w | h') of the n-grams hw of `order` words, float64 [N]."""
    found = [np.zeros(0)]
    for start in range(0, len(model.sections[order - 1].keys), BATCH):
        rows = model.rows(order, start, start + BATCH)[:, 1:]
        scores = token_log10_probs(model, rows.ravel(), np.tile(np.arange(order - 1), len(rows)))
        found.append(scores[order - 2 :: order - 1])
    return np.concatenate(found)


def _history_log10_probs(model: NgramModel, order: int) -> np.ndarray:
    """log10 of how often, a word of text, the model says that the n-grams of `order` words are histories; float64 [N].
    <s> is as frequent as </s> (SRILM's choice too)."""
    sentence_start, end = model.numbers[SENTENCE_START], model.numbers[SENTENCE_END]
    found = [np.zeros(0)]
    for start in range(0, len(model.sections[order - 1].keys), BATCH):
        rows = model.rows(order, start, start + BATCH)
        scores = token_log10_probs(model, rows.ravel(), np.tile(np.arange(order), len(rows))).reshape(rows.shape)
        scores[rows == sentence_start] = model.sections[0].log10_probs[end]
        found.append(scores.sum(axis=1))
    return np.concatenate(found)


def _with_backoffs(model: NgramModel) -> NgramModel:
    """The model with the back-off weights with which the probabilities after every history sum to one."""
    sections = [model.sections[0]]
    for order in range(2, model.order + 1):
        section, before = model.sections[order - 1], sections[-1]
        histories, size = section.keys // len(model.words), len(before.keys)
        shorter = NgramModel.from_arrays(model.words, (*sections, section))
        left = 1 - np.bincount(histories, 10.0**section.log10_probs, size)
        lower_left = 1 - np.bincount(histories, 10.0 ** _lower_log10_probs(shorter, order), size)
        backoffs = np.log10(np.maximum(left, LEAST) / np.maximum(lower_left, LEAST))
        backoffs[np.bincount(histories, minlength=size) == 0] = 0.0
        sections[-1] = Section(before.keys, before.log10_probs, backoffs.astype(before.log10_probs.dtype))
        sections.append(section)
    sections[-1] = Section(sections[-1].keys, sections[-1].log10_probs, sections[-1].backoffs[:0])
    return NgramModel.from_arrays(model.words, sections)
