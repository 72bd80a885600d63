"""N-best lists scored again with another language model.

The first pass's graph has a small language model in it; its cost of each sentence is taken off, and the larger model's
put in its place. The cost taken off is the ARPA model's. Where the graph has a cheaper way, through a back-off arc
beside a listed n-gram, the graph's own was a little lower.
"""

import math
from collections.abc import Sequence

from decant.lang.language_model import NgramModel, log10_prob
from decant.lang.lexicon import SENTENCE_END, SENTENCE_START

NBest = Sequence[tuple[Sequence[str], float]]  # (words, cost of the whole path)


def sentence_cost(model: NgramModel, words: Sequence[str]) -> float:
    """-ln P(words and the sentence's end). Raises ValueError for a word that the model lacks."""
    if unknown := [word for word in words if (word,) not in model.ngrams[0]]:
        raise ValueError(f"the language model lacks the word {unknown[0]}; estimate it with the whole lexicon as its "
                         "vocabulary")
    tokens = (SENTENCE_START, *words, SENTENCE_END)
    return -math.log(10) * sum(log10_prob(model, tokens[:i], tokens[i]) for i in range(1, len(tokens)))


def rescored(n_best: NBest, old: NgramModel, new: NgramModel, scale: float = 1.0) -> list[tuple[Sequence[str], float]]:
    """The list with the old model's costs replaced by `scale` times the new one's, the cheapest first.

    Raises ValueError for an empty list and for a word that a model lacks.
    """
    if not n_best:
        raise ValueError("no hypotheses to score again; decode with --n-best")
    costs = ((words, cost - sentence_cost(old, words) + scale * sentence_cost(new, words)) for words, cost in n_best)
    return sorted(costs, key=lambda item: item[1])
