"""Lattices: the best words for any LM weight and penalty, the cheapest word sequences and, given what was said, the
fewest word errors of a path.

A lattice is a decoder's paths through one utterance. Costs are negative natural logarithms, the graph's apart from the
log-likelihoods', so that what a path costs is known for every LM weight and word insertion penalty. Numpy alone, so
that it runs in the environment of any decoder.

The letters: A arcs, N states, K settings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

Setting = tuple[float, float]  # language model weight, word insertion penalty
MAX_COSTS = 2**23  # of arcs with settings, that are held at a time


@dataclass(frozen=True)
class Lattice:
    """The paths of an utterance, from state 0 to the last. Arcs are sorted by source.

    sources, targets: int32 [A]. graph_costs: float64 [A]. acoustic_costs: float64 [A], negative log-likelihoods at
    scale 1. labels: int32 [A]. words: by label, the words that such an arc gives out; none for label 0. levels: int32
    [N], ascending; an arc leads to a state of a higher level.
    """

    sources: np.ndarray
    targets: np.ndarray
    graph_costs: np.ndarray
    acoustic_costs: np.ndarray
    labels: np.ndarray
    words: Sequence[tuple[str, ...]]
    levels: np.ndarray

    @property
    def num_words(self) -> np.ndarray:
        """How many words each arc gives out, int64 [A]."""
        kinds, places = np.unique(self.labels, return_inverse=True)
        return np.array([len(self.words[label]) for label in kinds.tolist()], np.int64)[places]

    def costs(self, settings: Sequence[Setting]) -> np.ndarray:
        """What each arc costs with each LM weight and word insertion penalty, float64 [A, K]."""
        weights, penalties = np.array(settings, np.float64).T
        return (self.graph_costs[:, None] + self.acoustic_costs[:, None] / weights
                + self.num_words[:, None] * penalties)

    def slack(self, setting: Setting) -> np.ndarray:
        """How much more the best path through each arc costs than the best path, float64 [A]."""
        costs, last = self.costs([setting]), len(self.levels) - 1
        forward, _ = _best_paths(self.sources, self.targets, self.levels, np.array([0]), costs)
        backward, _ = _best_paths(self.targets, self.sources, self.levels[-1] - self.levels, np.array([last]), costs)
        return (forward[self.sources] + costs + backward[self.targets] - forward[last])[:, 0]


def frames_before(num_states: int, start: int, sources: np.ndarray, targets: np.ndarray,
                  emitting: np.ndarray) -> np.ndarray:
    """How many frames lie between the start and each state, int32 [N]; emitting: bool [A], which arcs take a frame.

    All paths to a state have as many frames: any one of them is followed back, by jumps of 1, 2, 4 ... arcs.
    """
    before, frames = np.full(num_states, start), np.zeros(num_states, np.int32)
    before[targets], frames[targets] = sources, emitting
    for _ in range(num_states.bit_length()):
        frames += frames[before]
        before = before[before]
    return frames


def best_words(lattices: Sequence[Lattice], settings: Sequence[Setting]) -> list[list[tuple[str, ...]]]:
    """[lattice][setting]: the words of each lattice's best path with each LM weight and word insertion penalty; exact.

    All lattices and settings are gone through together, level by level.
    """
    if len(lattices) > 1 and sum(len(of.labels) for of in lattices) * len(settings) > MAX_COSTS:
        half = len(lattices) // 2
        return best_words(lattices[:half], settings) + best_words(lattices[half:], settings)
    ends = np.cumsum([len(of.levels) for of in lattices])
    starts = np.append(0, ends[:-1])
    sources, targets = (np.concatenate([getattr(of, name) + start for of, start in zip(lattices, starts, strict=True)])
                        for name in ("sources", "targets"))
    labels, levels, costs = (np.concatenate(arrays) for arrays in zip(*(
        (of.labels, of.levels, of.costs(settings)) for of in lattices), strict=True))
    _, arcs = _best_paths(sources, targets, levels, starts, costs)

    paths, states = np.arange(len(lattices) * len(settings)), np.repeat(ends - 1, len(settings))
    spoken = [(paths[:0], labels[:0])]  # of an arc of every path at a time, from the last: (path, label)
    while len(paths):
        last = arcs[states, paths % len(settings)]
        paths, last = paths[last >= 0], last[last >= 0]
        given_out = labels[last] > 0
        spoken.append((paths[given_out], labels[last[given_out]]))
        states = sources[last]
    path, label = (np.concatenate(found)[::-1] for found in zip(*spoken, strict=True))
    order = np.argsort(path, kind="stable")
    of_path = np.split(label[order], np.searchsorted(path[order], np.arange(1, len(lattices) * len(settings))))
    return [[tuple(word for label in of_path[i * len(settings) + k].tolist() for word in of.words[label])
             for k in range(len(settings))] for i, of in enumerate(lattices)]


def _best_paths(sources: np.ndarray, targets: np.ndarray, levels: np.ndarray, starts: np.ndarray,
                costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every state and setting the cost of the best path from a start, float64 [N, K], and its last arc, int64
    [N, K], -1 where there is none. costs: float64 [A, K]. Of paths that cost the same, that of the last arc counts."""
    best, arcs = np.full((len(levels), costs.shape[1]), np.inf), np.full((len(levels), costs.shape[1]), -1)
    best[starts] = 0.0
    for at, runs in arcs_by_level(targets, levels):
        reached = best[sources[at]] + costs[at]
        best[targets[at[runs]]] = np.minimum.reduceat(reached, runs)
        is_best = reached == best[targets[at]]
        arcs[targets[at[runs]]] = np.maximum.reduceat(np.where(is_best, at[:, None], -1), runs)
    return best, arcs


def arcs_by_level(targets: np.ndarray, levels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Level after level the arcs that lead to its states, sorted by these, and where in them each state's begin."""
    order = np.lexsort((targets, levels[targets]))
    firsts = np.flatnonzero(np.diff(targets[order], prepend=-1))  # of the arcs that lead to one state
    changes = np.flatnonzero(np.diff(levels[targets[order[firsts]]], prepend=-1))  # the first state of each level
    ends = np.append(firsts, len(order))
    for first, end in pairwise([*changes.tolist(), len(firsts)]):
        yield order[firsts[first]:ends[end]], firsts[first:end] - firsts[first]


def pruned(lattice: Lattice, setting: Setting, beam: float) -> Lattice:
    """The paths that cost at most `beam` more than the best one with an LM weight and a word insertion penalty."""
    arcs = np.flatnonzero(lattice.slack(setting) <= beam)
    states, numbers = np.unique(np.append(lattice.sources[arcs], lattice.targets[arcs]), return_inverse=True)
    sources, targets = numbers.astype(np.int32).reshape(2, -1)
    return replace(lattice, sources=sources, targets=targets, graph_costs=lattice.graph_costs[arcs],
                   acoustic_costs=lattice.acoustic_costs[arcs], labels=lattice.labels[arcs],
                   levels=lattice.levels[states])


def n_best(lattice: Lattice, n: int, setting: Setting) -> list[tuple[tuple[str, ...], float]]:
    """The n word sequences of the lattice that cost least with an LM weight and a word insertion penalty, each once,
    with the cost of its best path; exact.

    Of paths that cost the same, the one of later arcs comes first, which is k2's best path. Looks at the arcs near the
    best path first, and at more of them only as long as the sequences that it found may not be the cheapest.
    """
    beam, slack, costs = 0.5, lattice.slack(setting), lattice.costs([setting])[:, 0]
    while True:
        found = _n_best(lattice, costs, np.flatnonzero(slack <= beam), n)
        if beam >= slack.max() or (len(found) == n and found[-1][1] <= found[0][1] + beam):
            return found
        beam *= 2


def _n_best(lattice: Lattice, costs_of: np.ndarray, arcs: np.ndarray, n: int) -> list[tuple[tuple[str, ...], float]]:
    """The n best of the paths through `arcs`, ascending indices of arcs."""
    histories: dict[tuple[str, ...], int] = {(): 0}  # word sequence -> number; in order of numbers
    sequences = [()]

    def extended(ids: np.ndarray, word: str) -> np.ndarray:
        longer = [(*sequences[i], word) for i in ids.tolist()]
        for words in longer:
            if words not in histories:
                histories[words] = len(sequences)
                sequences.append(words)
        return np.array([histories[words] for words in longer])

    # Of each state reached: numbers of word sequences and their costs, ascending, a pair for each arc that leads there.
    arrived = {0: [(np.zeros(1, np.int64), np.zeros(1))]}
    state = None
    for arc, source, target in zip(arcs.tolist(), lattice.sources[arcs].tolist(), lattice.targets[arcs].tolist(),
                                   strict=True):
        if source != state:
            state, (ids, costs) = source, _cheapest(arrived.pop(source), n)
        longer = ids
        for word in lattice.words[lattice.labels[arc]]:
            longer = extended(longer, word)
        arrived.setdefault(target, []).append((longer, costs + costs_of[arc]))
    ids, costs = _cheapest(arrived.pop(len(lattice.levels) - 1), n)
    return [(sequences[i], cost) for i, cost in zip(ids.tolist(), costs.tolist(), strict=True)]


def _cheapest(arrived: list[tuple[np.ndarray, np.ndarray]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n cheapest numbers of several lists, each number once, with their costs in ascending order."""
    if len(arrived) == 1:
        return arrived[0]
    ids, costs = (np.concatenate(parts) for parts in zip(*reversed(arrived), strict=True))
    order = np.argsort(costs, kind="stable")
    kept = order[np.sort(np.unique(ids[order], return_index=True)[1])[:n]]
    return ids[kept], costs[kept]


def oracle_errors(lattice: Lattice, reference: Sequence[str]) -> int:
    """The word errors of the lattice's path that has the fewest: substitutions, deletions and insertions.

    Edit distances between the reference's beginnings and the paths to each state, state after state.
    """
    places = np.arange(len(reference) + 1)
    errors = np.full((len(lattice.levels), len(places)), np.iinfo(np.int32).max)
    errors[0] = places
    for arc, (source, target) in enumerate(zip(lattice.sources, lattice.targets, strict=True)):
        row = errors[source]
        for word in lattice.words[lattice.labels[arc]]:
            wrong = np.array([word != other for other in reference], bool)
            inserted = row + 1
            inserted[1:] = np.minimum(inserted[1:], row[:-1] + wrong)
            row = np.minimum.accumulate(inserted - places) + places  # deletions
        np.minimum(errors[target], row, out=errors[target])
    return int(errors[-1, -1])
