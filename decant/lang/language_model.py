"""The n-gram language model of a corpus: its settings, its estimation from text, ARPA files, probabilities.

The parts: the model and its probabilities in `ngram_model`, ARPA files in `arpa`, modified Kneser-Ney smoothing in
`kneser_ney`, entropy pruning in `pruning`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from decant.lang.arpa import read_arpa, write_arpa
from decant.lang.kneser_ney import count_ngrams, interpolated
from decant.lang.lexicon import RESERVED_WORDS, SENTENCE_END, SENTENCE_START
from decant.lang.ngram_model import NgramModel, log10_prob, perplexity, sentence_log10_probs
from decant.settings import config_field

__all__ = ["LanguageModelConfig", "NgramModel", "estimate_ngram", "log10_prob", "perplexity", "read_arpa",
           "sentence_log10_probs", "write_arpa"]


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model: the corpus's own, or one that is estimated."""

    order: int = config_field(
        3, "Words in the longest n-gram, where the corpus brings no model: 3 predicts a word from the two before it.")
    prune_threshold: float = config_field(
        0.0, "n-grams are left out that raise the perplexity by less than this share (Stolcke 1998); 0: none.")
    max_ngrams: int = config_field(
        0, "n-grams that stay after pruning, those that matter most, unigrams among them; 0: any number.")

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ValueError(f"order is {self.order}; set it to 1 (unigrams) or more")
        for name in ("prune_threshold", "max_ngrams"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; set it to 0 (no pruning) or more")


def estimate_ngram(sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str]) -> NgramModel:
    """The interpolated modified Kneser-Ney model of `order`, in back-off form.

    The vocabulary is closed: each of its words gets a probability, seen or not. Raises ValueError for no sentences, an
    empty vocabulary and a word outside it.
    """
    words = frozenset(vocabulary)
    if not words:
        raise ValueError("the vocabulary is empty; give it the words of the lexicon")
    if reserved := words & RESERVED_WORDS:
        raise ValueError(f"the vocabulary holds the reserved {', '.join(sorted(reserved))}; leave it out")
    ordered = sorted(words | {SENTENCE_START, SENTENCE_END})
    counts = count_ngrams(sentences, order, {word: number for number, word in enumerate(ordered)})
    return interpolated(counts, ordered)
