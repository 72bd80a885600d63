import math

import numpy as np
import pytest

from decant.hmm import HmmConfig, TransitionModel, read_transitions, state_graph, write_transitions
from decant.lexicon import make_lexicon

LEXICON = make_lexicon([("A", ("x",)), ("B", ("x", "y")), ("B", ("z",))])
UNSCALED = HmmConfig(self_loop_scale=1.0)


def test_phones_have_three_states_and_silence_five():
    model = TransitionModel(LEXICON.phones, HmmConfig())
    assert model.num_pdfs == 5 + 3 * 3
    assert list(model.pdfs("SIL")) == [0, 1, 2, 3, 4]
    assert list(model.pdfs("x")) == [5, 6, 7]
    assert model.pdf_names()[4:6] == ["SIL.4", "x.0"]


def test_probabilities_of_leaving_and_staying_sum_to_one_when_unscaled():
    model = TransitionModel(LEXICON.phones, UNSCALED)
    for phone in model.phones:
        for state, pdf in enumerate(model.pdfs(phone), start=1):
            leaving = sum(math.exp(weight) for source, _, _, weight in model.phone_arcs(phone) if source == state)
            assert leaving + math.exp(model.self_loop_log_prob[pdf]) == pytest.approx(1.0)


def test_self_loop_scale_weakens_durations_alone():
    model = TransitionModel(LEXICON.phones, HmmConfig(self_loop_scale=0.1))
    assert model.self_loop_log_prob[5] == pytest.approx(0.1 * math.log(0.75))
    arcs = {(source, to): weight for source, to, _, weight in model.phone_arcs("SIL")}
    # From silence's first state: 0.25 to stay, else a third each to the three middle states.
    assert arcs[1, 2] == pytest.approx(math.log(1 / 3) + 0.1 * math.log(0.75))


def test_transitions_are_reestimated_from_counts_and_never_become_zero():
    model = TransitionModel(("SIL", "x"), HmmConfig())
    counts = np.zeros((8, 9))
    counts[5, 5], counts[5, 6] = 90, 10  # x.0 stays 90 times of 100
    counts[6, 7] = 100  # x.1 never stays
    new = model.reestimated(counts)
    assert new.probs[1][0] == pytest.approx([0.9, 0.1, 0, 0])
    assert new.probs[1][1] == pytest.approx([0, 0.01 / 1.01, 1 / 1.01, 0])
    assert new.probs[1][2] == pytest.approx([0, 0, 0.75, 0.25])  # unseen: as it was


def test_transitions_survive_a_file(tmp_path):
    model = TransitionModel(("SIL", "x"), UNSCALED)
    write_transitions(tmp_path / "transitions.json", model)
    read = read_transitions(tmp_path / "transitions.json")
    assert read.phones == model.phones and read.config == model.config
    assert all(np.array_equal(a, b) for a, b in zip(read.probs, model.probs, strict=True))


def test_a_word_of_one_phone_gives_silence_phone_silence():
    graph = state_graph(["A"], LEXICON, TransitionModel(LEXICON.phones, UNSCALED))
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
    graph = state_graph(["B"], LEXICON, TransitionModel(LEXICON.phones, UNSCALED))
    model = TransitionModel(LEXICON.phones, UNSCALED)
    expected = ["SIL"] + ["x", "y"] + ["z"] + ["SIL"]
    assert graph.pdfs.tolist() == [pdf for phone in expected for pdf in model.pdfs(phone)]
    assert graph.min_frames == 3  # through z without silence
    assert state_graph(["B", "A"], LEXICON, model).min_frames == 6


def test_an_empty_transcript_is_refused():
    with pytest.raises(ValueError, match="transcript is empty"):
        state_graph([], LEXICON, TransitionModel(LEXICON.phones, HmmConfig()))


def test_a_silence_probability_of_one_is_refused():
    with pytest.raises(ValueError, match="silence_prob is 1"):
        HmmConfig(silence_prob=1.0)
