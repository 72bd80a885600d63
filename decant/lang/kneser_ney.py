"""Interpolated modified Kneser-Ney smoothing: from sentences to a back-off n-gram model.

S. F. Chen and J. Goodman, An empirical study of smoothing techniques for language modeling, Harvard TR-10-98 (1998),
section 3. h is an n-gram's history, all its words but the last; h' the history without its first word.

Words are numbers, and n-grams rows of a sorted table, one or several whole numbers each. Text is counted in chunks,
whose tables are merged, so that memory grows with the different n-grams (16 bytes each, three times that while tables
are merged) and not with the text.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from decant.lang.lexicon import SENTENCE_END, SENTENCE_START
from decant.lang.ngram_model import NgramModel, Section
from decant.text import shown

log = logging.getLogger(__name__)

# D(0), D1, D2, D3+ for a text too small or too regular to estimate them: KenLM's --discount_fallback.
FALLBACK_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)
CHUNK = 1 << 22  # tokens that are counted at a time

Columns = list[np.ndarray]  # int64 [N] each: rows of numbers, compared by the first column, then the next


@dataclass(frozen=True)
class NgramCounts:
    """The n-grams of one length n, sorted, and the counts that smoothing starts from.

    rows: the numbers of their words, n arrays [N]; counts: int64 [N]; shorter: the place of the n-gram without its
    first word among those one word shorter, int64 [N].
    """

    rows: Columns
    counts: np.ndarray
    shorter: np.ndarray


def count_ngrams(sentences: Iterable[Sequence[str]], order: int, numbers: dict[str, int],
                 chunk: int = CHUNK) -> list[NgramCounts]:
    """[n - 1]: the n-grams of n words with Kneser-Ney's counts (Chen & Goodman, section 2.7).

    The longest n-grams count as often as they occur; a shorter one counts the different words before it. Nothing stands
    before <s>, so an n-gram that starts with it keeps its plain count (as in SRILM and KenLM); <s> itself is never
    predicted. Orders that no sentence is long enough for are left out. numbers: of the words, <s> and </s>, from 0.
    Raises ValueError for a word that has none, and for no sentences.

    All is in the counts of windows of `order` tokens, one for each token but <s>, with 0 where they reach beyond <s>:
    these hold the plain counts of n-grams that start with <s>, and their first words dropped give the shorter n-grams.
    """
    base = len(numbers) + 1  # a word's number in a window is one more; 0: nothing stands there
    tables: list[tuple[Columns, np.ndarray]] = []
    for windows in _windows(sentences, order, numbers, chunk):
        tables.append(_counted(_pack(windows, base)))
        while len(tables) > 1 and len(tables[-2][1]) < 2 * len(tables[-1][1]):  # so each row is merged few times
            tables[-2:] = [_merge(tables[-2:])]
    if not tables:
        raise ValueError("no sentences to estimate a language model from")
    packed, counts = _merge(tables) if len(tables) > 1 else tables[0]
    del tables
    found: list[NgramCounts] = []
    rows = _unpack(packed, order, base)
    for length in range(order, 0, -1):
        whole = np.flatnonzero(rows[0])  # the others begin before <s>: they are shorter n-grams
        columns, starts, sort = _grouped(_pack(rows[1:], base)) if length > 1 else ([], np.zeros(1, np.int64),
                                                                                   np.arange(len(counts)))
        group = np.empty(len(counts), np.int64)
        group[sort] = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(counts)))
        below = _unpack(columns, length - 1, base)
        place = np.cumsum(below[0] > 0) - 1 if length > 1 else np.zeros(1, np.int64)
        if len(whole):
            found.insert(0, NgramCounts([column[whole] - 1 for column in rows], counts[whole], place[group[whole]]))
        counts = np.add.reduceat(np.where(rows[0] > 0, 1, counts)[sort], starts)
        rows = below
    return found


def _windows(sentences: Iterable[Sequence[str]], order: int, numbers: dict[str, int],
             chunk: int) -> Iterator[Columns]:
    """The windows of `order` tokens of some `chunk` tokens at a time: a column for each place."""
    start, end = numbers[SENTENCE_START] + 1, numbers[SENTENCE_END] + 1
    shifted = {word: number + 1 for word, number in numbers.items() if number + 1 not in (start, end)}
    before = [0] * (order - 2) + [start]
    tokens: list[int] = []

    def windows() -> Columns:
        stream = np.array(tokens, np.int32)
        ends = np.flatnonzero((stream > 0) & (stream != start))
        return [stream[ends - back] for back in range(order - 1, -1, -1)]

    for number, words in enumerate(sentences, start=1):
        tokens += before
        try:
            tokens += map(shifted.__getitem__, words)
        except KeyError as unknown:
            raise ValueError(f"sentence {number}: {shown(unknown.args[0], shifted)} is not in the vocabulary; "
                             "add it to the lexicon or leave the sentence out") from None
        tokens.append(end)
        if len(tokens) >= chunk:
            yield windows()
            tokens = []
    if tokens:
        yield windows()


def _words_a_number(base: int) -> int:
    """How many words below `base` one int64 holds."""
    return max(n for n in range(1, 63) if base**n < 2**63)


def _pack(rows: Columns, base: int) -> Columns:
    """Rows of numbers below `base` as fewer columns that sort the same."""
    size, packed = _words_a_number(base), []
    for start in range(0, len(rows), size):
        total = rows[start].astype(np.int64)
        for column in rows[start + 1 : start + size]:
            total = total * base + column
        packed.append(total)
    return packed


def _unpack(packed: Columns, width: int, base: int) -> Columns:
    """The `width` columns that `_pack` packed."""
    size, rows = _words_a_number(base), []
    for place, column in enumerate(packed):
        several = []
        for _ in range(min(size, width - place * size) - 1):
            column, last = np.divmod(column, base)
            several.append(last)
        rows += [column, *several[::-1]]
    return rows


def _grouped(columns: Columns) -> tuple[Columns, np.ndarray, np.ndarray]:
    """The different rows, sorted; where each one's copies start in the sorted rows; and the sorting."""
    sort = np.argsort(columns[0]) if len(columns) == 1 else np.lexsort(columns[::-1])
    columns = [column[sort] for column in columns]
    new = np.ones(len(sort), bool)
    new[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    starts = np.flatnonzero(new)
    return [column[starts] for column in columns], starts, sort


def _counted(columns: Columns) -> tuple[Columns, np.ndarray]:
    """The different rows, sorted, and how often each stands there."""
    if len(columns) == 1:  # twice as fast as below
        values, counts = np.unique(columns[0], return_counts=True)
        return [values], counts
    different, starts, _ = _grouped(columns)
    return different, np.diff(starts, append=len(columns[0]))


def _merge(tables: list[tuple[Columns, np.ndarray]]) -> tuple[Columns, np.ndarray]:
    """Tables of rows and counts as one, in which each row stands once."""
    columns, starts, sort = _grouped([np.concatenate(parts) for parts in zip(*(rows for rows, _ in tables),
                                                                            strict=True)])
    return columns, np.add.reduceat(np.concatenate([counts for _, counts in tables])[sort], starts)


def kneser_ney_discounts(counts: np.ndarray, order: int) -> tuple[float, ...]:
    """(D(0) = 0, D1, D2, D3+) for n-grams of one order with these counts (Chen & Goodman, equation 26)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).tolist()
    if n[1] and n[2] and n[3]:
        y = n[1] / (n[1] + 2 * n[2])
        discounts = [c - (c + 1) * y * n[c + 1] / n[c] for c in (1, 2, 3)]
        if min(discounts) > 0:
            return 0.0, *discounts
    log.warning("%d-grams: %d, %d, %d, %d of them have counts 1, 2, 3, 4; the text is too small or too "
                "regular to estimate Kneser-Ney discounts: taking %g, %g, %g instead",
                order, n[1], n[2], n[3], n[4], *FALLBACK_DISCOUNTS[1:])
    return FALLBACK_DISCOUNTS


def interpolated(counts: list[NgramCounts], words: Sequence[str]) -> NgramModel:
    """The model of `count_ngrams`' counts, in back-off form; `words` by number.

    p(w | h) = (c(hw) - D(c(hw))) / c(h) + gamma(h) p(w | h'),   gamma(h) = sum_w D(c(hw)) / c(h)
    with c(h) = sum_w c(hw) (Chen & Goodman, section 3). Interpolation fits back-off form as it is: a seen n-gram's
    probability is stored whole, and that of an unseen one is gamma(h) p(w | h'), so that gamma(h) is the back-off
    weight. Every word but <s> gets a probability, seen or not.
    """
    number_of_start = words.index(SENTENCE_START)
    uniform = np.array([1 / (len(words) - 1)])
    unseen = np.delete(np.arange(len(words)), np.append(counts[0].rows[0], number_of_start))
    probs, (gamma,), _ = _smoothed(counts[0], np.zeros(len(counts[0].counts), np.int64), uniform, order=1)
    unigrams = np.full(len(words), 1e-99)  # ARPA's way to say never: <s> is only a history
    unigrams[counts[0].rows[0]] = probs
    unigrams[unseen] = gamma * uniform[0]
    sections = [Section(np.arange(len(words)), np.log10(unigrams), np.zeros(0))]
    for order, of_order in enumerate(counts[1:], start=2):
        model = NgramModel.from_arrays(words, sections)
        histories = model.places(np.stack(of_order.rows[:-1], axis=1))
        probs, gammas, first = _smoothed(of_order, histories, probs, order)
        before = sections[-1]
        backoffs = np.zeros(len(before.keys))
        backoffs[histories[first]] = np.log10(gammas)
        sections[-1] = Section(before.keys, before.log10_probs, backoffs)
        sections.append(Section(histories * len(words) + of_order.rows[-1], np.log10(probs), np.zeros(0)))
    return NgramModel.from_arrays(words, sections)


def _smoothed(counts: NgramCounts, histories: np.ndarray, lower: np.ndarray,
              order: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(w | h) of n-grams [N], gamma(h) of their histories [H], and each history's first n-gram [H]; `lower` holds
    p(w | h') of the n-grams one word shorter."""
    discounts = np.array(kneser_ney_discounts(counts.counts, order))[np.minimum(counts.counts, 3)]
    first = np.flatnonzero(np.diff(histories, prepend=-1))
    totals = np.add.reduceat(counts.counts, first)
    gammas = np.add.reduceat(discounts, first) / totals
    sizes = np.diff(first, append=len(histories))
    probs = (counts.counts - discounts) / np.repeat(totals, sizes) + np.repeat(gammas, sizes) * lower[counts.shorter]
    return probs, gammas, first
