"""Back-off n-gram language models: estimation from text, ARPA files, perplexity.

The estimator is interpolated modified Kneser-Ney smoothing: S. F. Chen and J. Goodman, An empirical study of
smoothing techniques for language modeling, Harvard TR-10-98 (1998), section 3. Logarithms in a model are to
base 10, as in ARPA files. An n-gram is a tuple of words; h is its history (all words but the last), h' the
history without its first word.
"""

import gzip
import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.files import atomic_path
from decant.lang.lexicon import RESERVED_WORDS, SENTENCE_END, SENTENCE_START
from decant.settings import config_field
from decant.text import is_field, read_fields, shown

logger = logging.getLogger(__name__)

Ngram = tuple[str, ...]
Section = dict[Ngram, tuple[float, float]]  # n-gram -> (log10 probability, log10 back-off weight)

# D(0), D1, D2, D3+ for a text too small or too regular to estimate them: KenLM's --discount_fallback.
FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)


@dataclass(frozen=True)
class LanguageModelConfig:
    """The language model, where the corpus brings none."""

    order: int = config_field(3, "Words in the longest n-gram: 3 predicts a word from the two before it.")

    def __post_init__(self) -> None:
        if self.order < 1:
            raise ValueError(f"order is {self.order}; set it to 1 (unigrams) or more")


@dataclass(frozen=True)
class NgramModel:
    ngrams: tuple[Section, ...]  # [n - 1]: n-grams of n words -> (log10 probability, log10 back-off weight)

    @property
    def order(self) -> int:
        return len(self.ngrams)


def log10_prob(model: NgramModel, history: Sequence[str], word: str) -> float:
    """log10 P(word | history), of which the last order - 1 words count; -inf for a word without a unigram."""
    backoff = 0.0
    for start in range(max(0, len(history) - model.order + 1), len(history) + 1):
        context = tuple(history[start:])
        if found := model.ngrams[len(context)].get((*context, word)):
            return backoff + found[0]
        if context:
            backoff += model.ngrams[len(context) - 1].get(context, (0.0, 0.0))[1]
    return -math.inf


def perplexity(model: NgramModel, sentences: Iterable[Sequence[str]]) -> tuple[float, int]:
    """Perplexity per word, sentence ends included, and how many words were left out for want of a unigram."""
    log10_total, num_predicted, num_unknown = 0.0, 0, 0
    for words in sentences:
        tokens = (SENTENCE_START, *words, SENTENCE_END)
        for position in range(1, len(tokens)):
            if (tokens[position],) in model.ngrams[0]:
                log10_total += log10_prob(model, tokens[:position], tokens[position])
                num_predicted += 1
            else:
                num_unknown += 1
    if not num_predicted:
        raise ValueError("no sentences to take the perplexity of")
    return 10 ** (-log10_total / num_predicted), num_unknown


def estimate_ngram(sentences: Iterable[Sequence[str]], order: int, vocabulary: Iterable[str]) -> NgramModel:
    """The interpolated modified Kneser-Ney model of `order`, in back-off form.

    Interpolation fits back-off form as it is: a seen n-gram's probability is stored whole, and that of an
    unseen one is gamma(h) p(w | h'), so that gamma(h) is the back-off weight. The vocabulary is closed: each
    of its words gets a probability, seen or not. Raises ValueError for no sentences, an empty vocabulary
    and a word outside it.
    """
    words = frozenset(vocabulary)
    if not words:
        raise ValueError("the vocabulary is empty; give it the words of the lexicon")
    if reserved := words & RESERVED_WORDS:
        raise ValueError(f"the vocabulary holds the reserved {', '.join(sorted(reserved))}; leave it out")
    counts = kneser_ney_counts(sentences, order, words)
    for word in words:
        counts[0].setdefault((word,), 0)

    probs: list[dict[Ngram, float]] = [{(): 1 / len(counts[0])}]  # below the unigrams: the uniform distribution
    gammas: list[dict[Ngram, float]] = []
    for counts_of_order in counts:
        prob, gamma = _interpolate(counts_of_order, lower=probs[-1])
        probs.append(prob)
        gammas.append(gamma)

    probs[1][(SENTENCE_START,)] = 1e-99  # ARPA's way to say never: <s> is only a history
    backoffs = [*gammas[1:], {}]  # an n-gram is a history one order up
    return NgramModel(tuple(
        {ngram: (math.log10(p), math.log10(backoff.get(ngram, 1.0))) for ngram, p in prob.items()}
        for prob, backoff in zip(probs[1:], backoffs, strict=True)
    ))


def kneser_ney_counts(
    sentences: Iterable[Sequence[str]], order: int, vocabulary: frozenset[str]
) -> list[Counter[Ngram]]:
    """[n - 1]: the counts of n-grams that Kneser-Ney smoothing starts from (Chen & Goodman, section 2.7).

    The longest n-grams count as often as they occur; a shorter one counts the different words before it.
    Nothing stands before <s>, so an n-gram that starts with it keeps its plain count (as in SRILM and KenLM).
    Orders that no sentence is long enough for are left out.
    """
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for number, words in enumerate(sentences, start=1):
        if not vocabulary.issuperset(words):
            unknown = next(word for word in words if word not in vocabulary)
            raise ValueError(f"sentence {number}: {shown(unknown, vocabulary)} is not in the vocabulary; "
                             "add it to the lexicon or leave the sentence out")
        tokens = (SENTENCE_START, *words, SENTENCE_END)
        counts[-1].update(zip(*(tokens[start:] for start in range(order)), strict=False))
        for length in range(2, min(order, len(tokens) + 1)):
            counts[length - 1][tokens[:length]] += 1
    for length in range(order - 1, 0, -1):
        counts[length - 1].update(ngram[1:] for ngram in counts[length])
    del counts[0][(SENTENCE_START,)]  # only order 1 has counted it; it is never predicted
    if not counts[0]:
        raise ValueError("no sentences to estimate a language model from")
    return [of_order for of_order in counts if of_order]


def kneser_ney_discounts(counts: Iterable[int], order: int) -> tuple[float, ...]:
    """(D(0) = 0, D1, D2, D3+) for n-grams of one order with these counts (Chen & Goodman, equation 26)."""
    n = Counter(counts)
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        discounts = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
        if min(discounts) > 0:
            return 0.0, *discounts
    logger.warning("%d-grams: %d, %d, %d, %d of them have counts 1, 2, 3, 4; the text is too small or too "
                   "regular to estimate Kneser-Ney discounts: taking %g, %g, %g instead",
                   order, n[1], n[2], n[3], n[4], *FALLBACK_DISCOUNTS[1:])
    return FALLBACK_DISCOUNTS


def _interpolate(
    counts: Counter[Ngram], lower: dict[Ngram, float]
) -> tuple[dict[Ngram, float], dict[Ngram, float]]:
    """p(w | h) of n-grams hw of one order and gamma(h) of their histories; `lower` holds p(w | h').

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + gamma(h) p(w | h'),   gamma(h) = sum_w D(c(hw)) / c(h)
    with c(h) = sum_w c(hw) (Chen & Goodman, section 3).
    """
    discount = kneser_ney_discounts(counts.values(), order=len(next(iter(counts))))
    total: dict[Ngram, int] = defaultdict(int)
    taken: dict[Ngram, float] = defaultdict(float)
    for ngram, count in counts.items():
        total[ngram[:-1]] += count
        taken[ngram[:-1]] += discount[min(count, 3)]
    gamma = {history: taken[history] / total[history] for history in total}
    prob = {
        ngram: (count - discount[min(count, 3)]) / total[ngram[:-1]] + gamma[ngram[:-1]] * lower[ngram[1:]]
        for ngram, count in counts.items()
    }
    return prob, gamma


def write_arpa(model: NgramModel, path: Path) -> None:
    """Writes an ARPA file, packed if its name ends in .gz; sorted, so that a model gives the same bytes.

    Raises ValueError for a word that would not be read back as one.
    """
    if odd := [word for (word,) in model.ngrams[0] if not is_field(word)]:
        raise ValueError(f"{path}: {odd[0]!r} would not be read back as one word; rename it")
    lines = ["\\data\\"]
    lines += [f"ngram {order}={len(ngrams)}" for order, ngrams in enumerate(model.ngrams, start=1)]
    for order, ngrams in enumerate(model.ngrams, start=1):
        lines += ["", f"\\{order}-grams:"]
        for ngram, (prob, backoff) in sorted(ngrams.items()):
            lines.append(f"{prob:.7g}\t{' '.join(ngram)}" + (f"\t{backoff:.7g}" if backoff else ""))
    data = "\n".join([*lines, "", "\\end\\", ""]).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(gzip.compress(data, mtime=0) if temporary.suffix == ".gz" else data)


def read_arpa(path: Path) -> NgramModel:
    r"""The model of an ARPA file, packed or not. Text before \data\ is passed over.

    Raises ValueError naming file and line for a malformed line, an n-gram given twice or with a word that has
    no unigram, other numbers of n-grams than declared, no \end\, and a model without words, <s> or </s>.
    """
    declared: list[int] = []  # [n - 1]: number of n-grams
    ngrams: list[Section] = []
    words: dict[str, str] = {}  # one copy of each word for all n-grams
    started = False
    for place, fields in read_fields(path):
        line = " ".join(fields)
        try:
            if not started:
                started = line == "\\data\\"
            elif line.startswith("\\"):
                _check_section(ngrams, declared, heading=line)
                if line == "\\end\\":
                    return NgramModel(tuple(ngrams))
                ngrams.append({})
            elif ngrams:
                _add_ngram(ngrams, fields, words, is_longest=len(ngrams) == len(declared))
            elif match := re.fullmatch(rf"ngram {len(declared) + 1} ?= ?(\d+)", line):
                declared.append(int(match[1]))
            else:
                raise ValueError(f"found '{line}' where 'ngram {len(declared) + 1}=<number>' should stand")
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    missing = "\\end\\" if started else "\\data\\"
    raise ValueError(f"{path}: no {missing} line; cut short or not an ARPA file: write or fetch it again")


def _check_section(ngrams: list[Section], declared: list[int], heading: str) -> None:
    """Raises ValueError unless the last section is complete and `heading` is what follows it."""
    order = len(ngrams)
    if ngrams and len(ngrams[-1]) != declared[order - 1]:
        raise ValueError(f"{len(ngrams[-1])} {order}-grams end here, but \\data\\ declares "
                         f"{declared[order - 1]}; the file is damaged: write or fetch it again")
    if not declared or (order == 1 and ngrams[0].keys() <= {(SENTENCE_START,), (SENTENCE_END,)}):
        raise ValueError("the language model holds no words; estimate it from a text that is not empty")
    for symbol in (SENTENCE_START, SENTENCE_END):
        if order == 1 and (symbol,) not in ngrams[0]:
            raise ValueError(f"no unigram {symbol}; estimate the language model from whole sentences")
    expected = f"\\{order + 1}-grams:" if order < len(declared) else "\\end\\"
    if heading != expected:
        raise ValueError(f"found {heading} where {expected} should stand")


def _add_ngram(ngrams: list[Section], fields: list[str], words: dict[str, str], is_longest: bool) -> None:
    """Adds a line's n-gram to the last section, and a unigram to `words`."""
    order = len(ngrams)
    has_backoff = len(fields) == order + 2 and not is_longest
    if len(fields) != order + 1 + has_backoff:
        raise ValueError(f"{len(fields)} fields; a {order}-gram's line holds a log10 probability, {order} "
                         f"word(s) and {'nothing else' if is_longest else 'at most a back-off weight'}")
    if order == 1:
        words[fields[1]] = fields[1]
    try:
        ngram = tuple(map(words.__getitem__, fields[1 : order + 1]))
    except KeyError as unknown:
        raise ValueError(f"the word {unknown} has no unigram") from None
    prob, backoff = float(fields[0]), float(fields[-1]) if has_backoff else 0.0
    if not -math.inf < prob <= 0 or not math.isfinite(backoff):
        raise ValueError(f"log10 probability {prob:g}, back-off weight {backoff:g}: both should be finite, "
                         "the first not above 0")
    if ngram in ngrams[-1]:
        raise ValueError(f"the n-gram '{' '.join(ngram)}' stands here a second time; remove one of its lines")
    ngrams[-1][ngram] = prob, backoff
