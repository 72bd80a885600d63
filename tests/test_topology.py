import math

import numpy as np
import pytest

from decant.hmm.state_tying import DecisionTree, Split, monophone_tree, write_tree
from decant.hmm.topology import HmmConfig, TransitionModel, read_transitions, state_graph, write_transitions
from decant.lang.lexicon import make_lexicon

LEXICON = make_lexicon([("A", ("x",)), ("B", ("x", "y")), ("B", ("z",))])
UNSCALED = HmmConfig(self_loop_scale=1.0)


TREE = monophone_tree(LEXICON.phones)


def alone(phone):
    return "SIL", phone, "SIL"


def test_phones_have_three_states_and_silence_five():
    model = TransitionModel(TREE, HmmConfig())
    assert model.num_pdfs == 5 + 3 * 3
    assert model.pdfs(alone("SIL")) == [0, 1, 2, 3, 4]
    assert model.pdfs(alone("x")) == [5, 6, 7]
    assert model.state_of_pdf[[4, 5, 7]].tolist() == [4, 0, 2]


def test_probabilities_of_leaving_and_staying_sum_to_one_when_unscaled():
    model = TransitionModel(TREE, UNSCALED)
    for phone in model.phones:
        for state, pdf in enumerate(model.pdfs(alone(phone)), start=1):
            arcs = model.phone_arcs(alone(phone))
            leaving = sum(math.exp(weight) for source, _, _, weight in arcs if source == state)
            assert leaving + math.exp(model.self_loop_log_prob[pdf]) == pytest.approx(1.0)


def test_self_loop_scale_weakens_durations_alone():
    model = TransitionModel(TREE, HmmConfig(self_loop_scale=0.1))
    assert model.self_loop_log_prob[5] == pytest.approx(0.1 * math.log(0.75))
    arcs = {(source, to): weight for source, to, _, weight in model.phone_arcs(alone("SIL"))}
    # From silence's first state: 0.25 to stay, else a third each to the three middle states.
    assert arcs[1, 2] == pytest.approx(math.log(1 / 3) + 0.1 * math.log(0.75))


def test_transitions_are_reestimated_from_counts_and_never_become_zero():
    model = TransitionModel(monophone_tree(("SIL", "x")), HmmConfig())
    counts = np.zeros((8, 6))
    counts[5, 0], counts[5, 1] = 90, 10  # x's first state stays 90 times of 100
    counts[6, 2] = 100  # its second never stays
    new = model.reestimated(counts)
    assert new.probs[5] == pytest.approx([0.9, 0.1, 0, 0, 0, 0])
    assert new.probs[6] == pytest.approx([0, 0.01 / 1.01, 1 / 1.01, 0, 0, 0])
    assert new.probs[7] == pytest.approx([0, 0, 0.75, 0, 0, 0.25])  # unseen: as it was


def test_transitions_survive_a_file(tmp_path):
    model = TransitionModel(monophone_tree(("SIL", "x")), UNSCALED)
    write_transitions(tmp_path, model)
    read = read_transitions(tmp_path, ("SIL", "x"))
    assert read.tree == model.tree and read.config == model.config
    assert np.array_equal(read.probs, model.probs)
    with pytest.raises(ValueError, match=r"tree.json: the tree of another phone set .* \(only in one of them: x y\)"):
        read_transitions(tmp_path, ("SIL", "y"))
    write_tree(tmp_path / "tree.json", monophone_tree(("SIL", "y")))
    with pytest.raises(ValueError, match=r"tree.json is not the tree that transitions.json was made with"):
        read_transitions(tmp_path, ("SIL", "y"))


def test_a_word_of_one_phone_gives_silence_phone_silence():
    graph = state_graph(["A"], LEXICON, TransitionModel(TREE, UNSCALED))
    assert graph.pdfs.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4]
    # The word may begin at once (no silence, probability 1/2) or after the first silence's exit.
    assert graph.initial[[0, 5]] == pytest.approx(np.log([0.5, 0.5]))
    assert np.isfinite(graph.initial).sum() == 2
    into_word = dict(zip(graph.predecessors[5].tolist(), graph.log_probs[5].tolist(), strict=True))
    assert into_word == pytest.approx({5: math.log(0.75), 4: math.log(0.25), 0: -np.inf}, abs=1e-6)
    # It may end after the word's last state, without silence, or after the second silence's last.
    assert graph.final[[7, 12]] == pytest.approx([math.log(0.25 * 0.5), math.log(0.25)])
    assert np.isfinite(graph.final).sum() == 2


def test_all_pronunciations_stand_side_by_side():
    graph = state_graph(["B"], LEXICON, TransitionModel(TREE, UNSCALED))
    model = TransitionModel(TREE, UNSCALED)
    expected = ["SIL"] + ["x", "y"] + ["z"] + ["SIL"]
    assert graph.pdfs.tolist() == [pdf for phone in expected for pdf in model.pdfs(alone(phone))]
    assert graph.min_frames == 3  # through z without silence
    assert state_graph(["B", "A"], LEXICON, model).min_frames == 6


def test_a_pronunciation_is_entered_with_its_probability():
    entries = [("B", ("x", "y")), ("B", ("z",))]
    likely = make_lexicon(entries, dict(zip(entries, (0.5, 0.125), strict=True)))
    model = TransitionModel(TREE, UNSCALED)
    graph, plain = state_graph(["B"], likely, model), state_graph(["B"], make_lexicon(entries), model)
    x, z, silence_end = 5, 11, 4  # states: the first of x, the first of z, the last of the silence before them
    for state, probability in ((x, 0.5), (z, 0.125)):
        assert graph.initial[state] == pytest.approx(plain.initial[state] + math.log(probability))
        [arc] = np.flatnonzero((plain.predecessors[state] == silence_end) & np.isfinite(plain.log_probs[state]))
        assert graph.log_probs[state, arc] == pytest.approx(plain.log_probs[state, arc] + math.log(probability))
    others = [state for state in range(len(plain.pdfs)) if state not in (x, z)]
    assert np.array_equal(graph.log_probs[others], plain.log_probs[others])
    assert np.array_equal(graph.final, plain.final)


def test_a_word_that_the_lexicon_lacks_is_spoken_as_the_unknown_word_if_that_is_there():
    lexicon = make_lexicon([("A", ("x",)), ("<UNK>", ("SPN",))])
    model = TransitionModel(monophone_tree(lexicon.phones), UNSCALED)
    assert state_graph(["A", "QZX"], lexicon, model).phones == ("SIL", "x", "SIL", "SPN", "SIL")
    with pytest.raises(ValueError, match="the lexicon lacks the word QZX"):
        state_graph(["A", "QZX"], LEXICON, TransitionModel(TREE, UNSCALED))


def test_an_empty_transcript_is_refused():
    with pytest.raises(ValueError, match="transcript is empty"):
        state_graph([], LEXICON, TransitionModel(TREE, HmmConfig()))


def test_a_silence_probability_of_one_is_refused():
    with pytest.raises(ValueError, match="silence_prob is 1"):
        HmmConfig(silence_prob=1.0)


# The last state of x asks whether silence follows (pdf-id 7 or 14); all else is as for monophones.
TIED = DecisionTree(LEXICON.phones, {**TREE.roots, ("x", 2): Split(2, frozenset(["SIL"]), yes=7, no=14)})


def test_a_phone_stands_in_the_graph_once_for_each_pair_of_its_neighbours():
    graph = state_graph(["A", "A"], LEXICON, TransitionModel(TIED, UNSCALED))
    # The first x before a silence or x, the second after a silence or x.
    assert graph.phones == ("SIL", "x", "x", "SIL", "x", "x", "SIL")
    assert graph.pdfs.reshape(-1)[[7, 10]].tolist() == [7, 14]  # before a silence, and before x


def test_paths_keep_to_one_context():
    """Whatever way through the graph, each x has the last state of the phone that does follow it."""
    graph = state_graph(["A", "A", "B"], LEXICON, TransitionModel(TIED, UNSCALED))
    follows = {}
    for state in range(len(graph.pdfs)):
        for source, weight in zip(graph.predecessors[state], graph.log_probs[state], strict=True):
            if np.isfinite(weight) and graph.phone_instance[source] != graph.phone_instance[state]:
                follows.setdefault(int(source), set()).add(graph.phones[graph.phone_instance[state]])
    lasts = [state for state in range(len(graph.pdfs)) if graph.pdfs[state] in (7, 14)]
    assert {int(graph.pdfs[state]) for state in lasts} == {7, 14}
    for state in lasts:
        next_phones = follows.get(state, set()) | ({"SIL"} if np.isfinite(graph.final[state]) else set())
        assert next_phones and all((phone == "SIL") == (graph.pdfs[state] == 7) for phone in next_phones)


def test_graphs_follow_the_transition_model():
    model = TransitionModel(TIED, UNSCALED)
    counts = np.zeros((15, 6))
    counts[7, 2], counts[7, 5] = 10, 90
    graph, new = state_graph(["A", "B"], LEXICON, model), model.reestimated(counts)
    again = graph.reweighted(new)
    direct = state_graph(["A", "B"], LEXICON, new)
    assert np.array_equal(again.log_probs, direct.log_probs) and np.array_equal(again.final, direct.final)
    assert not np.array_equal(again.log_probs, graph.log_probs)


def test_events_name_each_frames_triphone_and_state():
    index = {"SIL": 0, "x": 1, "y": 2, "z": 3}
    graph = state_graph(["B"], LEXICON, TransitionModel(TREE, UNSCALED))  # SIL 0-4, x 5-7, y 8-10, z 11-13, SIL 14-18
    states = np.array([5, 5, 6, 7, 8, 9, 10, 14, 15, 18])
    assert graph.events(states, index).tolist() == (
        [[0, 1, 2, 0]] * 2 + [[0, 1, 2, 1], [0, 1, 2, 2], [1, 2, 0, 0], [1, 2, 0, 1], [1, 2, 0, 2]]
        + [[2, 0, 0, 0], [2, 0, 0, 1], [2, 0, 0, 4]])
