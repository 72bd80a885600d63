import itertools

import numpy as np
import pytest
import torch

from decant.hmm.alignment import align, batches, equal_alignment, transition_counts, viterbi
from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import EXIT, HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import make_lexicon

LEXICON = make_lexicon([("A", ("x",)), ("B", ("x", "y")), ("B", ("z",))])
MODEL = TransitionModel(monophone_tree(LEXICON.phones), HmmConfig(self_loop_scale=1.0))
X, Y, Z = (MODEL.pdfs(("SIL", phone, "SIL"))[0] for phone in "xyz")


def brute_force(graph, scores: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """The best path by trying every sequence of states."""
    best = (-np.inf, ())
    weights = {(int(s), to): w for to in range(len(graph.pdfs))
               for s, w in zip(graph.predecessors[to], graph.log_probs[to], strict=True) if np.isfinite(w)}
    starts = [s for s in range(len(graph.pdfs)) if np.isfinite(graph.initial[s])]
    paths = [((s,), graph.initial[s] + scores[0, graph.pdfs[s]]) for s in starts]
    for t in range(1, len(scores)):
        paths = [((*path, to), total + w + scores[t, graph.pdfs[to]])
                 for path, total in paths for (source, to), w in weights.items() if source == path[-1]]
    for path, total in paths:
        best = max(best, (total + graph.final[path[-1]], path))
    return best


def test_five_frames_worked_out_by_hand():
    """Frames that clearly are x.0 x.0 x.1 x.2 x.2: one self-loop each in the first and last state."""
    graph = state_graph(["A"], LEXICON, MODEL)
    scores = torch.full((5, MODEL.num_pdfs), -50.0)
    for frame, pdf in enumerate([X, X, X + 1, X + 2, X + 2]):
        scores[frame, pdf] = -1.0
    [path] = viterbi([graph], [scores])
    assert path.pdfs.tolist() == [X, X, X + 1, X + 2, X + 2]
    # no silence (1/2), stay 3/4, go 1/4, go 1/4, stay 3/4, leave 1/4, no silence (1/2), five frames of -1
    assert path.log_prob == pytest.approx(np.log(0.5 * 0.75 * 0.25 * 0.25 * 0.75 * 0.25 * 0.5) - 5, abs=1e-5)


@pytest.mark.parametrize("words, num_frames", list(itertools.product((["A"], ["B"], ["A", "A"]), (6, 7))))
def test_the_best_path_is_the_best_of_all_paths(words, num_frames):
    graph = state_graph(words, LEXICON, MODEL)
    scores = torch.randn(num_frames, MODEL.num_pdfs, generator=torch.Generator().manual_seed(num_frames)) * 3
    [path] = viterbi([graph], [scores])
    total, states = brute_force(graph, scores.numpy())
    assert path.log_prob == pytest.approx(total, abs=1e-4)
    assert tuple(path.states) == states


def test_a_batch_gives_what_its_utterances_give_alone():
    generator = torch.Generator().manual_seed(1)
    graphs = [state_graph(words, LEXICON, MODEL) for words in (["A"], ["B", "A", "B"], ["B"])]
    scores = [torch.randn(length, MODEL.num_pdfs, generator=generator) for length in (9, 31, 17)]
    together = viterbi(graphs, scores)
    for graph, x, path in zip(graphs, scores, together, strict=True):
        [alone] = viterbi([graph], [x])
        assert alone.states.tolist() == path.states.tolist() and len(path.pdfs) == len(x)
        assert alone.log_prob == pytest.approx(path.log_prob, abs=1e-4)


def columns(scores: torch.Tensor, pdfs: torch.Tensor) -> torch.Tensor:
    return scores[:, pdfs]


def test_paths_do_not_depend_on_the_number_of_processes():
    generator = torch.Generator().manual_seed(2)
    graphs = [state_graph(words, LEXICON, MODEL) for words in (["A"], ["B", "A", "B"], ["A", "A", "A"], ["B"])]
    scores = [torch.randn(length, MODEL.num_pdfs, generator=generator) for length in (7000, 9000, 3, 11)]
    alone = align(graphs, scores, columns)
    assert alone[2] is None
    for one, other in zip(alone, align(graphs, scores, columns, jobs=2), strict=True):
        assert one is other is None or (one.pdfs.tolist() == other.pdfs.tolist() and one.log_prob == other.log_prob)


def test_too_few_frames_for_the_transcript_give_no_path():
    graph = state_graph(["A", "A"], LEXICON, MODEL)
    scores = torch.zeros(graph.min_frames, MODEL.num_pdfs)
    assert viterbi([graph], [scores])[0] is not None
    assert viterbi([graph], [scores[1:]]) == [None]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_likelihoods_that_are_no_numbers_are_not_taken_for_too_few_frames(value):
    scores = torch.zeros(50, MODEL.num_pdfs)
    scores[7] = value
    with pytest.raises(FloatingPointError, match="log-likelihoods are NaN or infinite"):
        viterbi([state_graph(["A"], LEXICON, MODEL)], [scores])


def test_the_flat_start_shares_frames_evenly_over_silence_words_silence():
    graph = state_graph(["A", "A"], LEXICON, MODEL)
    states = equal_alignment(graph, 32)
    silence, word = [0, 1, 2, 3, 4], [X, X + 1, X + 2]
    assert graph.pdfs[states].tolist() == [pdf for pdf in silence + word + word + silence for _ in range(2)]
    assert equal_alignment(graph, 15) is None


def test_transitions_are_counted_along_the_path_and_a_repeated_phone_is_left_first():
    graph = state_graph(["A", "A"], LEXICON, MODEL)
    first = graph.pdfs.tolist().index(X)
    second = graph.pdfs.tolist().index(X, first + 1)
    states = np.array([first, first, first + 1, first + 2, second, second + 1, second + 2])
    counts = transition_counts(graph, states, MODEL.num_pdfs)
    assert counts[X, 0] == 1 and counts[X, 1] == 2 and counts[X + 1, 2] == 2
    assert counts[X + 2, EXIT] == 2  # both instances were left
    assert counts.sum() == 7


def test_batches_hold_every_utterance_once_and_no_more_frames_than_asked():
    lengths = [5, 900, 30, 31, 29, 2000]
    found = list(batches(lengths, max_frames=1000))
    assert sorted(i for batch in found for i in batch) == list(range(6))
    assert all(len(b) == 1 or max(lengths[i] for i in b) * len(b) <= 1000 for b in found)


def test_a_wide_beam_finds_the_exact_path_and_a_narrow_one_that_fails_is_tried_wider():
    """The final state lies beyond any state that a beam of 1 keeps where the first frames favour silence."""
    generator = torch.Generator().manual_seed(0)
    graph = state_graph(["A", "A", "B"] * 6, LEXICON, MODEL)
    scores = [torch.randn(length, MODEL.num_pdfs, generator=generator) * 3 for length in (150, 97, 33)]
    exact, wide = viterbi([graph] * 3, scores), viterbi([graph] * 3, scores, 100.0)
    assert [path.states.tolist() for path in wide if path] == [path.states.tolist() for path in exact if path]
    scores[0][:] = 0
    scores[0][:, :5] = 100.0  # silence alone
    assert viterbi([graph], scores[:1], 1.0) == [None]
    [found] = align([graph], scores[:1], lambda x, pdfs: x[:, pdfs], beam=1.0)
    [best] = viterbi([graph], scores[:1])
    assert found.beam > 1.0 and found.states.tolist() == best.states.tolist()
