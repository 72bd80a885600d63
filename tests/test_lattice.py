import kaldialign
import numpy as np
import pytest

from decant.search import lattice as lattice_module
from decant.search.lattice import Lattice, best_words, frames_before, n_best, oracle_errors

SPOKEN = ("", "a", "b", "c", "a b", "x", "c d")
SETTINGS = [(1.0, 0.0), (0.5, 0.0), (4.0, 0.0), (4.0, -1.0), (2.0, 3.0)]


def lattice(*arcs):
    """arcs: (source, target, graph cost, acoustic cost, words), sorted by source."""
    sources, targets, graph_costs, acoustic_costs, words = zip(*arcs, strict=True)
    return Lattice(np.array(sources), np.array(targets), np.array(graph_costs, float), np.array(acoustic_costs, float),
                   np.array([SPOKEN.index(spoken) for spoken in words]), [tuple(spoken.split()) for spoken in SPOKEN],
                   np.arange(max(targets) + 1))


def random_lattice(rng, num_states=8):
    arcs = [(s, t, rng.uniform(0, 3), rng.uniform(-3, 3), rng.choice(["", "", "a", "b", "c", "a b"]))
            for s in range(num_states - 1) for t in range(s + 1, num_states) for _ in range(2)
            if t == s + 1 or rng.random() < 0.4]
    return lattice(*arcs)


def paths(of, setting=(1.0, 0.0), state=0):
    """(words, cost) of every path."""
    if state == of.targets.max():
        yield (), 0.0
    for arc in np.flatnonzero(of.sources == state):
        given_out = of.words[of.labels[arc]]
        cost = of.graph_costs[arc] + of.acoustic_costs[arc] / setting[0] + setting[1] * len(given_out)
        for words, rest in paths(of, setting, of.targets[arc]):
            yield given_out + words, cost + rest


def test_the_best_words_of_every_setting_are_those_of_the_cheapest_of_all_paths():
    rng = np.random.default_rng(2)
    for _ in range(10):
        of = random_lattice(rng)
        cheapest = [min(paths(of, setting), key=lambda path: path[1])[0] for setting in SETTINGS]
        assert best_words([of], SETTINGS) == [cheapest]
        assert len(set(cheapest)) > 1


@pytest.mark.parametrize("at_a_time", [lattice_module.MAX_COSTS, 1])
def test_lattices_together_have_the_best_words_that_each_has_alone(monkeypatch, at_a_time):
    monkeypatch.setattr(lattice_module, "MAX_COSTS", at_a_time)
    rng = np.random.default_rng(3)
    lattices = [random_lattice(rng, num_states) for num_states in (2, 8, 5, 7, 3)]
    assert best_words(lattices, SETTINGS) == [best_words([of], SETTINGS)[0] for of in lattices]


def test_weight_and_penalty_choose_between_two_words_as_done_by_hand():
    of = lattice((0, 1, 1.0, 9.0, "a"), (0, 1, 3.0, 5.0, "b"), (0, 1, 4.0, 6.0, ""))  # "a" costs 2 less, fits 4 worse
    assert best_words([of], [(1.0, 0.0), (4.0, 0.0), (1.0, 3.0)]) == [[("b",), ("a",), ()]]


def test_the_slack_of_an_arc_is_what_the_best_path_through_it_costs_more():
    of = lattice((0, 1, 1.0, 0.0, "a"), (0, 1, 3.0, 0.0, "b"), (0, 2, 9.0, 0.0, ""), (1, 2, 0.0, 8.0, "c"))
    assert of.slack((2.0, 0.0)).tolist() == [0.0, 2.0, 4.0, 0.0]
    assert of.slack((2.0, 5.0)).tolist() == [6.0, 8.0, 0.0, 6.0]


def test_frames_are_counted_along_any_path_from_the_start_in_whatever_order_its_states_are():
    sources, targets = np.array([2, 2, 1, 0, 3]), np.array([1, 0, 0, 3, 4])  # 2 -> 1 -> 0 without a frame, 0 -> 3 -> 4
    emitting = np.array([False, False, False, True, True])
    assert frames_before(5, 2, sources, targets, emitting).tolist() == [0, 0, 0, 1, 2]


def test_the_n_best_are_the_cheapest_word_sequences_of_all_paths_each_once():
    rng = np.random.default_rng(0)
    for _ in range(10):
        of = random_lattice(rng)
        cheapest = {}
        for words, cost in paths(of, (2.0, 0.5)):
            cheapest[words] = min(cost, cheapest.get(words, np.inf))
        expected = sorted(cheapest.items(), key=lambda item: item[1])
        for n in (1, 7, 10_000):
            found = n_best(of, n, (2.0, 0.5))
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
    of = lattice((0, 1, 0.0, 0.0, "x"), (0, 1, 9.0, 0.0, "b"), (1, 2, 0.0, 0.0, "c d"))
    assert oracle_errors(of, ["b", "c", "e"]) == 1  # b c d
    assert oracle_errors(of, ["c", "d"]) == 1
    assert oracle_errors(of, []) == 3
