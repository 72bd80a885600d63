"""Lattices: their cheapest word sequences and, given what was said, their best path's word errors.

A lattice is a decoder's paths through one utterance. Costs are negative natural logarithms. Numpy alone, so that it
runs in the environment of any decoder.

The letter: A arcs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lattice:
    """The paths of an utterance, from state 0 to the last. Arcs are sorted by source, each leads to a later state.

    sources, targets: int32 [A]. costs: float64 [A]. words: the words that each arc gives out, none for most. slack:
    float64 [A], how much more the best path through each arc costs than the best path.
    """

    sources: np.ndarray
    targets: np.ndarray
    costs: np.ndarray
    words: Sequence[tuple[str, ...]]
    slack: np.ndarray


def n_best(lattice: Lattice, n: int) -> list[tuple[tuple[str, ...], float]]:
    """The n word sequences of the lattice that cost least, each once, with the cost of its best path; exact.

    Of paths that cost the same, the one of later arcs comes first, which is k2's best path. Looks at the arcs near the
    best path first, and at more of them only as long as the sequences that it found may not be the cheapest.
    """
    beam = 0.5
    while True:
        found = _n_best(lattice, np.flatnonzero(lattice.slack <= beam), n)
        if beam >= lattice.slack.max() or (len(found) == n and found[-1][1] <= found[0][1] + beam):
            return found
        beam *= 2


def _n_best(lattice: Lattice, arcs: np.ndarray, n: int) -> list[tuple[tuple[str, ...], float]]:
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
        for word in lattice.words[arc]:
            longer = extended(longer, word)
        arrived.setdefault(target, []).append((longer, costs + lattice.costs[arc]))
    ids, costs = _cheapest(arrived.pop(int(lattice.targets.max())), n)
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
    last = int(lattice.targets.max())
    errors = np.full((last + 1, len(places)), np.iinfo(np.int32).max)
    errors[0] = places
    for arc, (source, target) in enumerate(zip(lattice.sources, lattice.targets, strict=True)):
        row = errors[source]
        for word in lattice.words[arc]:
            wrong = np.array([word != other for other in reference], bool)
            inserted = row + 1
            inserted[1:] = np.minimum(inserted[1:], row[:-1] + wrong)
            row = np.minimum.accumulate(inserted - places) + places  # deletions
        np.minimum(errors[target], row, out=errors[target])
    return int(errors[last, -1])
