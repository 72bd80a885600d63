"""N-best lists scored again with another language model.

The first pass's graph has a small language model in it; its cost of each sentence is taken off, and the larger model's
put in its place. The cost taken off is the ARPA model's. Where the graph has a cheaper way, through a back-off arc
beside a listed n-gram, the graph's own was a little lower.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from decant.lang.ngram_model import NgramModel, sentence_log10_probs

NBest = Sequence[tuple[Sequence[str], float]]  # (words, cost of the whole path)


def sentence_costs(model: NgramModel, sentences: Iterable[Sequence[str]]) -> np.ndarray:
    """-ln P(words and the sentence's end) of each sentence, float64 [S], in natural logarithms.

    Many sentences at once take a microsecond or two a word; one alone a fraction of a millisecond. Raises ValueError
    for a word that the model lacks.
    """
    sentences = list(sentences)
    log10_probs, num_unknown = sentence_log10_probs(model, sentences)
    if num_unknown.any():
        unknown = next(word for word in sentences[int(num_unknown.argmax())] if word not in model.numbers)
        raise ValueError(f"the language model lacks the word {unknown}; estimate it with the whole lexicon as its "
                         "vocabulary")
    return -math.log(10) * log10_probs


def sentence_cost(model: NgramModel, words: Sequence[str]) -> float:
    """The same of one sentence."""
    return float(sentence_costs(model, [words])[0])


def rescored(n_best: NBest, old: NgramModel, new: NgramModel, scale: float = 1.0) -> list[tuple[Sequence[str], float]]:
    """The list with the old model's costs replaced by `scale` times the new one's, the cheapest first.

    Raises ValueError for an empty list and for a word that a model lacks.
    """
    if not n_best:
        raise ValueError("no hypotheses to score again; decode with --n-best")
    sentences = [words for words, _ in n_best]
    changes = scale * sentence_costs(new, sentences) - sentence_costs(old, sentences)
    return sorted(((words, cost + float(change)) for (words, cost), change in zip(n_best, changes, strict=True)),
                  key=lambda item: item[1])
