import kaldialign
import numpy as np
import pytest

from decant.search.lattice import Lattice, n_best, oracle_errors


def lattice(*arcs):
    """arcs: (source, target, cost, words), sorted by source."""
    sources, targets, costs, words = zip(*arcs, strict=True)
    forward, backward = np.full((2, max(targets) + 1), np.inf)
    forward[0] = backward[-1] = 0.0
    for source, target, cost, _ in arcs:
        forward[target] = min(forward[target], forward[source] + cost)
    for source, target, cost, _ in reversed(arcs):
        backward[source] = min(backward[source], backward[target] + cost)
    slack = [forward[source] + cost + backward[target] - backward[0] for source, target, cost, _ in arcs]
    return Lattice(np.array(sources), np.array(targets), np.array(costs, float),
                   [tuple(spoken.split()) for spoken in words], np.array(slack))


def random_lattice(rng):
    arcs = [(s, t, rng.uniform(0, 3), rng.choice(["", "", "a", "b", "c", "a b"]))
            for s in range(7) for t in range(s + 1, 8) for _ in range(2) if t == s + 1 or rng.random() < 0.4]
    return lattice(*arcs)


def paths(of, state=0):
    """(words, cost) of every path."""
    if state == of.targets.max():
        yield (), 0.0
    for arc in np.flatnonzero(of.sources == state):
        for words, cost in paths(of, of.targets[arc]):
            yield of.words[arc] + words, of.costs[arc] + cost


def test_the_n_best_are_the_cheapest_word_sequences_of_all_paths_each_once():
    rng = np.random.default_rng(0)
    for _ in range(10):
        of = random_lattice(rng)
        cheapest = {}
        for words, cost in paths(of):
            cheapest[words] = min(cost, cheapest.get(words, np.inf))
        expected = sorted(cheapest.items(), key=lambda item: item[1])
        for n in (1, 7, 10_000):
            found = n_best(of, n)
            assert [words for words, _ in found] == [words for words, _ in expected[:n]]
            assert [cost for _, cost in found] == pytest.approx([cost for _, cost in expected[:n]])


def test_the_oracle_is_the_path_with_the_fewest_errors_of_all():
    rng = np.random.default_rng(1)
    for _ in range(10):
        of = random_lattice(rng)
        for length in (0, 1, 3, 5, 12):
            reference = rng.choice(["a", "b", "c", "not there"], length).tolist()
            expected = min(kaldialign.edit_distance(reference, list(words))["total"] for words, _ in paths(of))
            assert oracle_errors(of, reference) == expected


def test_an_oracle_done_by_hand():
    of = lattice((0, 1, 0.0, "x"), (0, 1, 9.0, "b"), (1, 2, 0.0, "c d"))
    assert oracle_errors(of, ["b", "c", "e"]) == 1  # b c d
    assert oracle_errors(of, ["c", "d"]) == 1
    assert oracle_errors(of, []) == 3
