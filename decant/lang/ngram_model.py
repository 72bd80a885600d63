"""Back-off n-gram language models in sorted arrays, and the probabilities that they give.

P(w | h) is the listed probability of the n-gram hw, or else the back-off weight of h (1 where h is not listed) times
P(w | h'), h' being h without its first word. Logarithms in a model are to base 10, as in ARPA files.

An n-gram of two words or more is one whole number: the place of its history (all words but the last) in the section
one shorter, times the number of words, plus the last word. So a section is one sorted array, and binary search finds
an n-gram. With 32-bit probabilities an n-gram takes 16 bytes, one of the longest 12, however long it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from decant.lang.lexicon import SENTENCE_END, SENTENCE_START

Ngram = tuple[str, ...]
Ngrams = Mapping[Ngram, tuple[float, float]]  # n-gram -> (log10 probability, log10 back-off weight)
BATCH = 1 << 18  # words that are scored at a time


@dataclass(frozen=True)
class Section:
    """The n-grams of one length n, sorted.

    keys: int64 [N], the place of the history among the n-grams of n - 1 words, times the number of words, plus the
    last word; log10_probs: float32 or float64 [N]; backoffs: log10 of the back-off weights, [N], empty for the longest.
    """

    keys: np.ndarray
    log10_probs: np.ndarray
    backoffs: np.ndarray

    def find(self, keys: np.ndarray) -> np.ndarray:
        """The place of each key, int64; -1 for a key that is not there."""
        if not len(self.keys):
            return np.full(len(keys), -1)
        places = np.searchsorted(self.keys, keys)
        np.minimum(places, len(self.keys) - 1, out=places)
        places[self.keys[places] != keys] = -1
        return places

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.log10_probs.nbytes + self.backoffs.nbytes


class NgramModel:
    """A language model. words: sorted, <s> and </s> among them; each has a unigram. sections: [n - 1] has n-grams of n
    words; the first one's keys are the words' numbers, their places in `words`."""

    words: tuple[str, ...]
    sections: tuple[Section, ...]

    def __init__(self, ngrams: Sequence[Ngrams]) -> None:
        """A small model, from a dict for each length. Raises ValueError for an n-gram without its history."""
        self.words = tuple(sorted(word for (word,) in ngrams[0]))
        self.sections = ()
        for listed in ngrams:
            order = len(self.sections) + 1
            rows = np.array([[self.numbers[word] for word in ngram] for ngram in listed], np.int64).reshape(-1, order)
            places = self.places(rows[:, :-1])
            if (places < 0).any():
                raise ValueError(f"the n-gram {list(listed)[int(places.argmin())]} has no history in the model")
            keys, values = places * len(self.words) + rows[:, -1], np.array(list(listed.values())).reshape(-1, 2)
            sort, num_backoffs = np.argsort(keys), len(keys) if order < len(ngrams) else 0
            self.sections += (Section(keys[sort], values[sort, 0], values[sort[:num_backoffs], 1]),)

    @classmethod
    def from_arrays(cls, words: Sequence[str], sections: Iterable[Section]) -> "NgramModel":
        model = cls.__new__(cls)
        model.words, model.sections = tuple(words), tuple(sections)
        return model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NgramModel) and self.words == other.words and self.ngrams == other.ngrams

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    @property
    def order(self) -> int:
        return len(self.sections)

    @property
    def num_ngrams(self) -> int:
        return sum(len(section.keys) for section in self.sections)

    @property
    def ngrams(self) -> tuple[dict[Ngram, tuple[float, float]], ...]:
        """The n-grams as a dict for each length, made anew each time: some 250 bytes an n-gram, for small models."""
        found = []
        for order, section in enumerate(self.sections, start=1):
            rows = ([self.words[number] for number in row] for row in self.rows(order).tolist())
            backoffs = section.backoffs.tolist() or [0.0] * len(section.keys)
            values = zip(section.log10_probs.tolist(), backoffs, strict=True)
            found.append({tuple(row): value for row, value in zip(rows, values, strict=True)})
        return tuple(found)

    def rows(self, order: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """The numbers of the words of n-grams of one length: int64 [stop - start, order]."""
        keys, columns = self.sections[order - 1].keys[start:stop], []
        for shorter in range(order - 2, -1, -1):
            histories, words = np.divmod(keys, len(self.words))
            columns.append(words)
            keys = self.sections[shorter].keys[histories]
        return np.stack([keys, *columns[::-1]], axis=1)

    def places(self, rows: np.ndarray) -> np.ndarray:
        """Where n-grams stand in their section: int64 [N] of word numbers [N, n]; -1: nowhere; of no words, 0."""
        places = rows[:, 0] if rows.shape[1] else np.zeros(len(rows), np.int64)
        for length in range(2, rows.shape[1] + 1):
            places = self.child(length, places, rows[:, length - 1])
        return places

    def child(self, length: int, histories: np.ndarray, words: np.ndarray) -> np.ndarray:
        """The places of n-grams of `length` words by the place of their history and their last word, int64 [N]; -1 for
        what is not there, as after a history or with a word that is -1."""
        keys = histories * len(self.words) + words
        return self.sections[length - 1].find(np.where((histories < 0) | (words < 0), -1, keys))


def token_log10_probs(model: NgramModel, tokens: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """log10 P(token | the tokens before it in its sequence) of sequences one after another, float64 [N].

    tokens: numbers of words, int64 [N]; -1, a word that the model lacks, gets -inf. follows: how many tokens before it
    belong to the same sequence, int64 [N].
    """
    ending = [tokens]  # [n - 1]: the place of the n-gram that ends at a token; -1: not listed
    for length in range(2, model.order + 1):
        places = np.full(len(tokens), -1)
        histories = np.where(follows[1:] >= length - 1, ending[-1][:-1], -1)
        places[1:] = model.child(length, histories, tokens[1:])
        ending.append(places)
    total, open_ = np.zeros(len(tokens)), np.ones(len(tokens), bool)
    for length in range(model.order, 0, -1):
        section, places = model.sections[length - 1], ending[length - 1]
        found = np.flatnonzero(open_ & (places >= 0))
        total[found] += section.log10_probs[places[found]]
        open_[found] = False
        if length > 1:
            histories = np.full(len(tokens), -1)
            histories[1:] = np.where(follows[1:] >= length - 1, ending[length - 2][:-1], -1)
            off = np.flatnonzero(open_ & (histories >= 0))
            total[off] += model.sections[length - 2].backoffs[histories[off]]
    total[open_] = -np.inf
    return total


def log10_prob(model: NgramModel, history: Sequence[str], word: str) -> float:
    """log10 P(word | history), of which the last order - 1 words count; -inf for a word without a unigram."""
    tokens = [*history[max(0, len(history) - model.order + 1):], word]
    ids = np.array([model.numbers.get(token, -1) for token in tokens])
    return float(token_log10_probs(model, ids, np.arange(len(ids)))[-1])


def sentence_log10_probs(model: NgramModel, sentences: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """log10 P(the known words of each sentence and its end), float64 [S], and how many words the model lacks, [S].

    A word that the model lacks counts as nothing itself; what follows it backs off from it. Sentences are scored
    some hundred thousand words at a time.
    """
    numbers = model.numbers
    start, end = numbers[SENTENCE_START], numbers[SENTENCE_END]
    sums, unknown = [np.zeros(0)], [np.zeros(0, np.int64)]
    tokens: list[int] = []
    lengths: list[int] = []

    def score() -> None:
        ids, bounds = np.array(tokens, np.int64), np.cumsum([0, *lengths])
        follows = np.arange(len(ids)) - np.repeat(bounds[:-1], lengths)
        scores = token_log10_probs(model, ids, follows)
        scores[(follows == 0) | (ids < 0)] = 0.0  # <s> is never predicted
        sums.append(np.add.reduceat(scores, bounds[:-1]))
        unknown.append(np.add.reduceat((ids < 0).astype(np.int64), bounds[:-1]))
        tokens.clear()
        lengths.clear()

    for words in sentences:
        tokens += (start, *(numbers.get(word, -1) for word in words), end)
        lengths.append(len(words) + 2)
        if len(tokens) >= BATCH:
            score()
    if lengths:
        score()
    return np.concatenate(sums), np.concatenate(unknown)


def perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> tuple[float, int]:
    """Perplexity per word, sentence ends included, and how many words were left out for want of a unigram."""
    num_words = 0

    def counted() -> Iterable[Sequence[str]]:
        nonlocal num_words
        for words in sentences:
            num_words += len(words) + 1
            yield words

    log10_probs, unknown = sentence_log10_probs(model, counted())
    if not len(log10_probs):
        raise ValueError("no sentences to take the perplexity of")
    num_unknown = int(unknown.sum())
    return float(10 ** (-log10_probs.sum() / (num_words - num_unknown))), num_unknown
