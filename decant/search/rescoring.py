"""A larger language model in place of the graph's: in lattices, and in n-best lists.

The first pass's graph has a small language model in it; its cost of each word is taken off, and the larger model's put
in its place (Kaldi's lattice-lmrescore). The cost taken off is the ARPA model's. Where the graph has a cheaper way,
through a back-off arc beside a listed n-gram, the graph's own was a little lower.

The letters: A arcs, N states, K steps.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from decant.lang.lexicon import SENTENCE_END, SENTENCE_START
from decant.lang.ngram_model import NgramModel, sentence_log10_probs, token_log10_probs
from decant.search.lattice import Lattice, Setting, arcs_by_level, pruned

log = logging.getLogger(__name__)

NBest = Sequence[tuple[Sequence[str], float]]  # (words, cost of the whole path)
MAX_ARCS = 2**22  # of a lattice with histories: 36 bytes each, and as many again while it is made


def sentence_costs(model: NgramModel, sentences: Iterable[Sequence[str]]) -> np.ndarray:
    """-ln P(words and the sentence's end) of each sentence, float64 [S], in natural logarithms.

    Many sentences at once take a microsecond or two a word; one alone a fraction of a millisecond. Raises ValueError
    for a word that the model lacks.
    """
    sentences = list(sentences)
    log10_probs, num_unknown = sentence_log10_probs(model, sentences)
    if num_unknown.any():
        check_words(sentences[int(num_unknown.argmax())], model)
    return -math.log(10) * log10_probs


def sentence_cost(model: NgramModel, words: Sequence[str]) -> float:
    """The same of one sentence."""
    return float(sentence_costs(model, [words])[0])


def check_words(words: Iterable[str], model: NgramModel) -> None:
    """Raises ValueError for the first word that a model lacks."""
    if (unknown := next((word for word in words if word not in model.numbers), None)) is not None:
        raise ValueError(f"the language model lacks the word {unknown}; estimate it with the whole lexicon as its "
                         "vocabulary")


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


@dataclass(frozen=True)
class Rescorer:
    """From one language model to another, for lattices whose label i gives out words[i], one word or none, and whose
    last arcs none: those of decant.search.lattice_search."""

    old: NgramModel
    new: NgramModel
    words: Sequence[tuple[str, ...]]

    def __call__(self, lattice: Lattice, whole: bool, setting: Setting) -> Lattice:
        """A lattice of the same paths whose graph costs hold the new model. Its states are pairs of a state and the
        words before it, as many as a language model looks at. whole: whether paths end in final states, where the
        graph has counted the sentence's end.

        A lattice that would have more than MAX_ARCS arcs is first cut to the paths near its best one with the setting.
        Raises ValueError for a word that a model lacks.
        """
        while (found := self._with_histories(lattice, whole)) is None:
            beam = 0.75 * lattice.slack(setting).max()
            log.warning("a lattice of %d arcs is cut to the beam %g before the larger language model scores it",
                        len(lattice.labels), beam)
            lattice = pruned(lattice, setting, beam)
        return found

    def _with_histories(self, lattice: Lattice, whole: bool) -> Lattice | None:
        """What __call__ returns; None if it would have more than MAX_ARCS arcs."""
        last, steps = len(lattice.levels) - 1, _Steps(max(self.old.order, self.new.order), len(self.words))
        # Pairs have numbers in the order of their states. Of each pair its history, of each state its pairs.
        history_of, firsts, counts = np.zeros(1, np.int64), np.zeros(last + 1, np.int64), np.zeros(last + 1, np.int64)
        counts[0] = num_pairs = 1
        num_arcs, levels, found = 0, [lattice.levels[:1]], []
        for arcs, _ in arcs_by_level(lattice.targets, lattice.levels):
            copies = counts[lattice.sources[arcs]]
            arc = np.repeat(arcs, copies)
            source = np.arange(len(arc)) + np.repeat(firsts[lattice.sources[arcs]] - np.cumsum(copies) + copies, copies)
            target = lattice.targets[arc].astype(np.int64)
            step, history = steps.after(history_of[source], np.where(target == last, steps.end, lattice.labels[arc]))
            pairs, place = np.unique(target << 32 | history, return_inverse=True)
            states, first, count = np.unique(pairs >> 32, return_index=True, return_counts=True)
            firsts[states], counts[states] = num_pairs + first, count
            found.append((source, num_pairs + place, arc, step))
            levels.append(lattice.levels[pairs >> 32])
            num_pairs, num_arcs = num_pairs + len(pairs), num_arcs + len(arc)
            if num_arcs > MAX_ARCS:
                return None
            if num_pairs > len(history_of):
                history_of = np.append(history_of, np.zeros(num_pairs, np.int64))
            history_of[num_pairs - len(pairs):num_pairs] = pairs & (1 << 32) - 1
        source, target, arc, step = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(source, kind="stable")
        arc, changes = arc[order], np.append(self._changes(steps, whole), 0.0)  # the last: of no step
        return Lattice(source[order].astype(np.int32), target[order].astype(np.int32),
                       lattice.graph_costs[arc] + changes[step[order]], lattice.acoustic_costs[arc],
                       lattice.labels[arc], lattice.words, np.concatenate(levels))

    def _changes(self, steps: "_Steps", whole: bool) -> np.ndarray:
        """How much more each step costs in the new model than in the old, float64 [K]."""
        rows = np.array(steps.rows, np.int64).reshape(-1, steps.order)
        old, new = (token_log10_probs(model, numbers[rows].ravel(), np.tile(np.arange(steps.order), len(rows)))
                    .reshape(rows.shape)[:, -1] for model, numbers in self._numbers)
        if not (known := np.isfinite(old) & np.isfinite(new)).all():
            words = self.words[rows[int(known.argmin()), -1]]
            check_words(words, self.old)
            check_words(words, self.new)
        return np.where((rows[:, -1] == steps.end) & (not whole), 0.0, math.log(10) * (old - new))

    @cached_property
    def _numbers(self) -> list[tuple[NgramModel, np.ndarray]]:
        """Each model, and its numbers of the words by label, of _Steps' labels too; -1 for none."""
        words = [*((word or ("",))[0] for word in self.words), SENTENCE_END, SENTENCE_START, ""]
        return [(model, np.array([model.numbers.get(word, -1) for word in words])) for model in (self.old, self.new)]


class _Steps:
    """The different words after different histories of a lattice, numbered. A history is the labels of the last words,
    numbered too: 0 is the sentence's beginning, and what follows its end."""

    def __init__(self, order: int, num_words: int) -> None:
        self.order = order
        self.end, start, nothing = num_words, num_words + 1, num_words + 2  # labels, as a word's
        beginning = (*[nothing] * order, start)[2:]
        self.histories = {beginning: 0}
        self.labels_of = [beginning]
        self.rows: list[tuple[int, ...]] = []  # of each step the history's labels, then its own
        self.next: list[int] = []  # of each step the history after it
        self.number: dict[int, int] = {}  # of a step, by history << 32 | label

    def after(self, histories: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The step of each label after each history, -1 for label 0, and the history after it, int64."""
        step, after, spoken = np.full(len(labels), -1), histories.copy(), np.flatnonzero(labels)
        kinds, place = np.unique(histories[spoken] << 32 | labels[spoken], return_inverse=True)
        numbers = [self.number[kind] if kind in self.number else self._add(kind) for kind in kinds.tolist()]
        step[spoken] = np.array(numbers, np.int64)[place]
        after[spoken] = np.array([self.next[number] for number in numbers], np.int64)[place]
        return step, after

    def _add(self, kind: int) -> int:
        history, label = kind >> 32, kind & (1 << 32) - 1
        row = (*self.labels_of[history], label)
        following = 0 if label == self.end else self.histories.setdefault(row[1:], len(self.labels_of))
        if following == len(self.labels_of):
            self.labels_of.append(row[1:])
        self.rows.append(row)
        self.next.append(following)
        self.number[kind] = len(self.next) - 1
        return self.number[kind]
