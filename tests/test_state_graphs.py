import numpy as np
import pytest
import torch

from decant.hmm.alignment import viterbi
from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import make_lexicon
from decant.search.state_graphs import acceptor, read_acceptors, write_acceptors

LEXICON = make_lexicon([("A", ("x",)), ("B", ("x", "y")), ("B", ("z",))])
TRANSITIONS = TransitionModel(monophone_tree(LEXICON.phones), HmmConfig())
GRAPH = state_graph(["A", "B"], LEXICON, TRANSITIONS)


def cheapest_path(fst, log_likelihoods):
    """The pdf-ids and cost of the acceptor's cheapest path, arc after arc."""
    best = {fst.start: (0.0, [])}
    for x in log_likelihoods:
        here, best = best, {}
        for state, (cost, pdfs) in here.items():
            for label, _, arc_cost, target in fst.arcs[fst.offsets[state]:fst.offsets[state + 1]].tolist():
                new = cost + arc_cost - x[label - 1]
                if target not in best or new < best[target][0]:
                    best[target] = new, [*pdfs, label - 1]
    return min(((cost + fst.final[state], pdfs) for state, (cost, pdfs) in best.items()), key=lambda item: item[0])


def test_the_acceptor_s_cheapest_path_is_viterbi_s():
    log_likelihoods = np.random.default_rng(0).normal(0, 3, (40, TRANSITIONS.num_pdfs)).astype(np.float32)
    [path] = viterbi([GRAPH], [torch.from_numpy(log_likelihoods)])
    cost, pdfs = cheapest_path(acceptor(GRAPH), log_likelihoods)
    assert pdfs == path.pdfs.tolist()
    assert cost == pytest.approx(-path.log_prob, abs=1e-3)


def test_acceptors_survive_a_file(tmp_path):
    acceptors = {"u1": acceptor(GRAPH), "u2": acceptor(state_graph(["B"], LEXICON, TRANSITIONS))}
    write_acceptors(tmp_path / "graphs.npz", acceptors, TRANSITIONS.num_pdfs)
    read, num_pdfs = read_acceptors(tmp_path / "graphs.npz")
    assert num_pdfs == TRANSITIONS.num_pdfs
    assert list(read) == ["u1", "u2"]
    for utterance, fst in acceptors.items():
        assert read[utterance].start == fst.start
        for field in ("final", "offsets", "arcs"):
            np.testing.assert_array_equal(getattr(read[utterance], field), getattr(fst, field))


def test_a_file_cut_short_is_refused_by_name(tmp_path):
    path = tmp_path / "graphs.npz"
    write_acceptors(path, {"u1": acceptor(GRAPH)}, TRANSITIONS.num_pdfs)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"graphs\.npz: not a whole file of state graphs"):
        read_acceptors(path)
    path.write_text("something else")
    with pytest.raises(ValueError, match=r"graphs\.npz: not a whole file of state graphs"):
        read_acceptors(path)
