"""Interpolated modified Kneser-Ney smoothing in dicts, plain and slow: what decant.lang.kneser_ney has to equal."""

import math
from collections import Counter, defaultdict

Ngram = tuple[str, ...]


def slow_estimate(sentences, order: int, vocabulary: frozenset[str]) -> list[dict[Ngram, tuple[float, float]]]:
    """[n - 1]: n-grams of n words -> (log10 probability, log10 back-off weight)."""
    counts = slow_counts(sentences, order)
    for word in vocabulary:
        counts[0].setdefault((word,), 0)
    probs: list[dict[Ngram, float]] = [{(): 1 / len(counts[0])}]
    gammas: list[dict[Ngram, float]] = []
    for of_order in counts:
        discount = slow_discounts(of_order)
        total: dict[Ngram, int] = defaultdict(int)
        taken: dict[Ngram, float] = defaultdict(float)
        for ngram, count in of_order.items():
            total[ngram[:-1]] += count
            taken[ngram[:-1]] += discount[min(count, 3)]
        gamma = {history: taken[history] / total[history] for history in total}
        probs.append({ngram: (count - discount[min(count, 3)]) / total[ngram[:-1]]
                      + gamma[ngram[:-1]] * probs[-1][ngram[1:]] for ngram, count in of_order.items()})
        gammas.append(gamma)
    probs[1][("<s>",)] = 1e-99
    return [{ngram: (math.log10(p), math.log10(backoff.get(ngram, 1.0))) for ngram, p in prob.items()}
            for prob, backoff in zip(probs[1:], [*gammas[1:], {}], strict=True)]


def slow_counts(sentences, order: int) -> list[Counter[Ngram]]:
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for words in sentences:
        tokens = ("<s>", *words, "</s>")
        counts[-1].update(zip(*(tokens[start:] for start in range(order)), strict=False))
        for length in range(2, min(order, len(tokens) + 1)):
            counts[length - 1][tokens[:length]] += 1
    for length in range(order - 1, 0, -1):
        counts[length - 1].update(ngram[1:] for ngram in counts[length])
    del counts[0][("<s>",)]
    return [of_order for of_order in counts if of_order]


def slow_discounts(counts: Counter[Ngram]) -> tuple[float, ...]:
    n = Counter(counts.values())
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        found = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
        if min(found) > 0:
            return 0.0, *found
    return 0.0, 0.5, 1.0, 1.5
