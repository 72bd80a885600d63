"""Runs in k2's environment: make test-k2."""

import json
import subprocess
import sys

import numpy as np
import pytest

from decant.feat.archive import read_int_vectors, write_matrices
from decant.search.fst_arrays import ARC, from_arcs, write_arrays
from decant.search.k2_search import K2SearchConfig, align, decode, read_graph
from decant.search.lattice import n_best
from decant.search.state_graphs import write_acceptors

NUM_PDFS = 3
WORDS = ("<eps>", "a", "b", "c", "#0", "<s>", "</s>")
EVERYTHING = K2SearchConfig(beam=1e3, lattice_beam=1e3)


def transducer(start, final, arcs):
    """arcs: (source, target, input label, output label, cost)."""
    table = np.array([(i, o, cost, target) for _, target, i, o, cost in arcs], ARC)
    return from_arcs(start, np.array(final, np.float32), np.array([arc[0] for arc in arcs]), table)


def random_transducer(rng):
    """Five states, start in state 2; epsilons, some with words, lead to higher states only."""
    arcs = [(s, t, i, rng.choice([0, 0, 1, 2, 3]), rng.uniform(0, 3))
            for s in range(5) for t in range(5) for i in range(NUM_PDFS + 1) if rng.random() < 0.12 and (i or s < t)]
    arcs += [(1, 3, 0, 1, 1.0), (1, 3, 0, 2, 1.5), (3, 4, 0, 3, 0.25)]  # one between the same states, one after another
    arcs += [(s, (s + 1) % 5, 1 + s % NUM_PDFS, 0, 1.0) for s in range(5)]  # all can be reached, none is a dead end
    return transducer(2, [rng.uniform(0, 2), np.inf, np.inf, 1.0, np.inf], arcs)


def all_paths(fst, x, state=None, t=0):
    """(words, cost, pdf-ids) of every path through the transducer that gives x [T, S] out whole, in a final state."""
    state = fst.start if state is None else state
    if t == len(x) and np.isfinite(fst.final[state]):
        yield (), float(fst.final[state]), ()
    for label, word, cost, target in fst.arcs[fst.offsets[state]:fst.offsets[state + 1]].tolist():
        if label == 0 or t < len(x):
            here = (cost - x[t, label - 1], (label - 1,)) if label else (cost, ())
            for words, rest, pdfs in all_paths(fst, x, target, t + (label > 0)):
                yield ((WORDS[word],) if word else ()) + words, here[0] + rest, here[1] + pdfs


def cheapest_by_words(paths):
    costs = {}
    for words, cost, _ in paths:
        costs[words] = min(cost, costs.get(words, np.inf))
    return sorted(costs.items(), key=lambda item: item[1])


def log_likelihoods(rng, num_frames):
    return rng.normal(0, 2, (num_frames, NUM_PDFS)).astype(np.float32)


@pytest.fixture
def write_graph(tmp_path):
    def write(fst):
        write_arrays(tmp_path / "HCLG.fst", fst)
        (tmp_path / "words.txt").write_text("".join(f"{word} {i}\n" for i, word in enumerate(WORDS)))
        (tmp_path / "graph.json").write_text(json.dumps({"num_pdfs": NUM_PDFS}))
        return tmp_path
    return write


@pytest.fixture
def write_scp(tmp_path):
    def write(**utterances):
        write_matrices(tmp_path / "x", sorted(utterances.items()))
        return tmp_path / "x.scp"
    return write


# "a" is pdf-id 0, said once or more; "b" is pdf-id 1 twice or more, known only at its second frame; 2 is silence.
SPOKEN = transducer(0, [0.5, np.inf, np.inf, np.inf], [
    (0, 1, 1, 1, 1.0), (1, 1, 1, 0, 0.25), (1, 0, 0, 0, 0.0),
    (0, 2, 2, 0, 2.0), (2, 3, 2, 2, 0.0), (3, 3, 2, 0, 0.25), (3, 0, 0, 0, 0.0),
    (0, 0, 3, 0, 0.125)])


# pdf-ids 0, 1 once or more, 2: "a" at the first, "b" at the last.
CHAIN = transducer(0, [np.inf, np.inf, np.inf, 0.0],
                   [(0, 1, 1, 1, 0.0), (1, 2, 2, 0, 0.0), (2, 2, 2, 0, 0.5), (2, 3, 3, 2, 0.0)])


def frames(*pdfs, height=10.0):
    return np.float32(height) * np.eye(NUM_PDFS, dtype=np.float32)[list(pdfs)]


def by_utterance(found):
    return {utterance: hypothesis for utterance, hypothesis, _ in found}


def test_the_best_path_and_the_n_best_words_are_those_of_all_paths(write_graph, write_scp):
    rng = np.random.default_rng(0)
    for _ in range(10):
        fst = random_transducer(rng)
        matrices = {f"u{length}": log_likelihoods(rng, length) for length in (4, 3, 5)}
        found = list(decode(write_scp(**matrices), write_graph(fst), 2.0, EVERYTHING))
        assert [utterance for utterance, _, _ in found] == ["u5", "u4", "u3"]
        for utterance, hypothesis, lattice in found:
            expected = cheapest_by_words(all_paths(fst, matrices[utterance] / 2.0))
            assert len(expected) > 10
            assert hypothesis.words == expected[0][0]
            assert hypothesis.cost == pytest.approx(expected[0][1], abs=1e-4)
            listed = n_best(lattice, 20, (2.0, 0.0))
            assert [cost for _, cost in listed] == pytest.approx([cost for _, cost in expected[:20]], abs=1e-4)
            assert dict(listed) == pytest.approx({words: dict(expected)[words] for words, _ in listed}, abs=1e-4)


def test_every_arc_of_a_lattice_lies_on_a_path_that_costs_its_slack_more_than_the_best(write_graph, write_scp):
    rng = np.random.default_rng(3)  # k2 prunes some frames at a time, which leaves dead ends
    scp, graph_dir = write_scp(u1=log_likelihoods(rng, 90), u2=log_likelihoods(rng, 70)), write_graph(SPOKEN)
    for _, hypothesis, lattice in decode(scp, graph_dir, 1.0, K2SearchConfig(beam=20.0, lattice_beam=2.0)):
        forward, backward = np.full((2, lattice.targets.max() + 1), np.inf)
        forward[0] = backward[-1] = 0.0
        costs = lattice.costs([(1.0, 0.0)])[:, 0]
        arcs = list(zip(lattice.sources, lattice.targets, costs, strict=True))
        for source, target, cost in arcs:
            forward[target] = min(forward[target], forward[source] + cost)
        for source, target, cost in reversed(arcs):
            backward[source] = min(backward[source], backward[target] + cost)
        assert forward[-1] == pytest.approx(hypothesis.cost)
        through = forward[lattice.sources] + costs + backward[lattice.targets]
        assert np.isfinite(through).all()
        np.testing.assert_allclose(lattice.slack((1.0, 0.0)), through - forward[-1], atol=1e-6)
        assert n_best(lattice, 20, (1.0, 0.0))[0][0] == hypothesis.words


def test_words_cost_and_times_of_a_case_done_by_hand(write_graph, write_scp):
    scp = write_scp(u=frames(2, 0, 0, 2, 1, 1, 1))
    [(_, hypothesis, _)] = decode(scp, write_graph(SPOKEN), 1.0, EVERYTHING)
    assert hypothesis.words == ("a", "b")
    assert hypothesis.times == (1, 5)
    # Silence twice, "a" and its loop, "b" and its loop, the end; seven frames of 10.
    assert hypothesis.cost == pytest.approx(2 * 0.125 + 1.25 + 2.25 + 0.5 - 70)


def test_log_likelihoods_are_divided_by_the_lm_weight_and_words_cost_the_penalty(write_graph, write_scp):
    scp = write_scp(u=frames(2, 0, 0, 2, 1, 1, 1))
    [(_, hypothesis, _)] = decode(scp, write_graph(SPOKEN), 4.0, EVERYTHING, word_insertion_penalty=3.0)
    assert hypothesis.cost == pytest.approx(2 * 0.125 + 1.25 + 2.25 + 0.5 + 2 * 3.0 - 70 / 4)


def test_the_size_of_batches_changes_nothing(write_graph, write_scp):
    rng = np.random.default_rng(1)
    fst, matrices = random_transducer(rng), {f"u{i}": log_likelihoods(rng, 2 + i % 4) for i in range(9)}
    scp, graph_dir = write_scp(**matrices), write_graph(fst)
    one_by_one = by_utterance(decode(scp, graph_dir, 1.0, EVERYTHING, max_frames=1))
    assert by_utterance(decode(scp, graph_dir, 1.0, EVERYTHING, max_frames=7)) == one_by_one
    assert by_utterance(decode(scp, graph_dir, 1.0, EVERYTHING)) == one_by_one
    assert list(one_by_one) == sorted(matrices)


def test_an_utterance_that_reaches_no_final_state_keeps_its_best_path_and_says_so(write_graph, write_scp):
    found = by_utterance(decode(write_scp(cut=frames(0, 1), whole=frames(0, 1, 1, 2)), write_graph(CHAIN), 1.0,
                                EVERYTHING))
    assert (found["whole"].words, found["whole"].partial) == (("a", "b"), False)
    assert (found["cut"].words, found["cut"].partial) == (("a",), True)
    assert found["cut"].cost == pytest.approx(-20)


def test_a_narrow_beam_gives_up_the_path_that_is_best_in_the_end(write_graph, write_scp):
    # After the first frame "b" is 6 behind, after the second 4 ahead. 25 states of "c" keep the beam from widening.
    arcs = [(0, 1, 1, 1, 0.0), (1, 3, 2, 0, 10.0), (0, 2, 2, 2, 6.0), (2, 3, 2, 0, 0.0)]
    arcs += [(0, 4 + i, 1, 3, 0.0) for i in range(25)] + [(4 + i, 4 + i, 2, 0, 20.0) for i in range(25)]
    graph_dir = write_graph(transducer(0, [np.inf, np.inf, np.inf, 0.0, *[0.0] * 25], arcs))
    scp = write_scp(u=np.zeros((2, NUM_PDFS), np.float32))
    for beam, word in ((8.0, "b"), (4.0, "a")):
        [(_, hypothesis, _)] = decode(scp, graph_dir, 1.0, K2SearchConfig(beam=beam))
        assert hypothesis.words == (word,)


@pytest.mark.parametrize("label", [0, 1])
def test_of_homophones_that_cost_the_same_the_first_in_the_graph_is_taken(write_graph, write_scp, label):
    arcs = [(0, 1, label, word, 0.5) for word in (2, 3, 1)] + [(1, 2, 2, 0, 0.0)]
    scp = write_scp(u=frames(*[0] * label, 1))
    [(_, hypothesis, lattice)] = decode(scp, write_graph(transducer(0, [np.inf, np.inf, 0.0], arcs)), 1.0, EVERYTHING)
    assert hypothesis.words == n_best(lattice, 3, (1.0, 0.0))[0][0] == ("b",)
    assert {words for words, _ in n_best(lattice, 3, (1.0, 0.0))} == {("a",), ("b",), ("c",)}


def test_alignment_finds_the_cheapest_of_all_paths(write_scp):
    rng = np.random.default_rng(2)
    graphs = {f"u{i}": random_transducer(rng) for i in range(8)}
    matrices = {utterance: log_likelihoods(rng, 3 + i % 4) for i, utterance in enumerate(graphs)}
    for utterance, fst in graphs.items():  # state graphs have no epsilons
        kept = fst.arcs["input"] > 0
        graphs[utterance] = from_arcs(fst.start, fst.final, fst.sources[kept], fst.arcs[kept])
    found = {utterance: (pdfs, cost) for utterance, pdfs, cost in align(graphs, write_scp(**matrices), NUM_PDFS)}
    assert found.keys() == graphs.keys()
    for utterance, (pdfs, cost) in found.items():
        _, best, expected = min(all_paths(graphs[utterance], matrices[utterance]), key=lambda path: path[1])
        assert pdfs.tolist() == list(expected)
        assert cost == pytest.approx(best, abs=1e-4)


def run(*arguments):
    command = [sys.executable, "-m", "decant.search.k2_command", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_command_line_aligns_and_names_the_utterances_that_are_too_short(write_scp, tmp_path):
    write_acceptors(tmp_path / "graphs.npz", {"short": CHAIN, "whole": CHAIN}, NUM_PDFS)
    scp = write_scp(short=frames(0, 2), whole=frames(0, 1, 1, 2))
    done = run("align", "--graphs", tmp_path / "graphs.npz", "--scp", scp, "--out", tmp_path / "ali")
    assert done.returncode == 0, done.stderr
    assert {u: pdfs.tolist() for u, pdfs in read_int_vectors(tmp_path / "ali.scp")} == {"whole": [0, 1, 1, 2]}
    assert "1 of 2 utterances have fewer frames than states: short" in done.stderr


def test_the_command_line_decodes_with_n_best_lists_and_the_lattice_s_oracle(write_graph, write_scp, tmp_path):
    (tmp_path / "text").write_text("u a a\n")
    done = run("decode", "--graph", write_graph(SPOKEN), "--scp", write_scp(u=frames(2, 0, 1, 1, height=3.0)),
               "--lm-weight", 1, "--n-best", 2, "--lattice-beam", 50, "--references", tmp_path / "text",
               "--out", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    [setting] = json.loads((tmp_path / "found.json").read_text())
    found = setting["utterances"]
    assert found.keys() == {"u"}
    assert found["u"]["words"] == found["u"]["n_best"][0]["words"] == ["a", "b"]
    assert found["u"]["times"] == [1, 3]
    assert found["u"]["cost"] == pytest.approx(0.125 + 1.0 + 2.0 + 0.5 - 12)
    assert [entry["words"] for entry in found["u"]["n_best"]] == [["a", "b"], ["b"]]
    assert found["u"]["oracle_errors"] == 0


def test_the_command_line_names_the_utterances_that_reach_no_final_state(write_graph, write_scp, tmp_path):
    scp = write_scp(cut=frames(0, 1), whole=frames(0, 1, 1, 2))
    done = run("decode", "--graph", write_graph(CHAIN), "--scp", scp, "--lm-weight", 1, "--out", tmp_path / "out.json")
    assert "1 of 2 utterances end in no final state; their best partial paths count: cut" in done.stderr
    [setting] = json.loads((tmp_path / "out.json").read_text())
    found = setting["utterances"]
    assert {utterance: entry["partial"] for utterance, entry in found.items()} == {"cut": True, "whole": False}


def test_a_grid_of_settings_gives_what_each_gives_alone(write_graph, write_scp, tmp_path):
    rng = np.random.default_rng(5)
    scp, graph_dir = write_scp(cut=frames(0, 1), u=log_likelihoods(rng, 12)), write_graph(SPOKEN)
    done = run("decode", "--graph", graph_dir, "--scp", scp, "--lm-weight", 1, 4, "--word-insertion-penalty", 0, -2,
               "--out", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    grid = json.loads((tmp_path / "out.json").read_text())
    assert [(setting["lm_weight"], setting["word_insertion_penalty"]) for setting in grid] == [
        (1, 0), (4, 0), (1, -2), (4, -2)]
    for setting in grid:
        alone = decode(scp, graph_dir, setting["lm_weight"], K2SearchConfig(), setting["word_insertion_penalty"])
        assert {utterance: (entry["words"], entry["cost"]) for utterance, entry in setting["utterances"].items()} == {
            utterance: (list(hypothesis.words), hypothesis.cost) for utterance, hypothesis, _ in alone}


def test_one_search_tells_the_words_of_a_grid_of_settings(write_graph, write_scp, tmp_path):
    rng = np.random.default_rng(5)
    scp, graph_dir = write_scp(cut=frames(0, 1), u=log_likelihoods(rng, 12)), write_graph(SPOKEN)
    grids = []
    for once in ([], ["--search-lm-weight", 2, "--lattice-beam", 60, "--beam", 60]):
        done = run("decode", "--graph", graph_dir, "--scp", scp, "--lm-weight", 1, 4, "--word-insertion-penalty", 0, -2,
                   *once, "--out", tmp_path / "out.json")
        assert done.returncode == 0, done.stderr
        grids.append([setting | {"utterances": {utterance: (found["words"], found["partial"])
                                                for utterance, found in setting["utterances"].items()}}
                      for setting in json.loads((tmp_path / "out.json").read_text())])
    assert grids[0] == grids[1] and grids[0][0] != grids[0][2]


def test_mistakes_end_the_command_line_with_one_line(write_graph, write_scp, tmp_path):
    scp = write_scp(u7=np.zeros((5, 12), np.float32))
    done = run("decode", "--graph", write_graph(SPOKEN), "--scp", scp, "--lm-weight", 1, "--out", tmp_path / "out.json")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "utterance u7: log-likelihoods of shape [5, 12] for a graph of 3 pdf-ids" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_without_k2_one_line_says_how_to_install_it():
    program = ("import runpy, sys; sys.modules['k2'] = None; "
               "runpy.run_module('decant.search.k2_command', run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "make .venv-k2/installed" in done.stderr and "https://k2-fsa.github.io/k2/" in done.stderr


@pytest.mark.parametrize("bad", [np.zeros((0, NUM_PDFS)), np.full((5, NUM_PDFS), np.nan)])
def test_log_likelihoods_that_are_empty_or_not_finite_are_refused(write_graph, write_scp, bad):
    with pytest.raises(ValueError, match="utterance u: log-likelihoods without frames, or not all finite"):
        list(decode(write_scp(u=bad.astype(np.float32)), write_graph(SPOKEN), 1.0, EVERYTHING))


def test_an_utterance_without_a_graph_is_refused_by_name(write_scp):
    with pytest.raises(ValueError, match="utterance b has no state graph"):
        list(align({"a": CHAIN}, write_scp(a=frames(0, 1, 2), b=frames(0, 1, 2)), NUM_PDFS))


def test_labels_beyond_the_pdf_ids_are_refused(write_graph, write_scp):
    graph_dir = write_graph(SPOKEN)
    (graph_dir / "graph.json").write_text(json.dumps({"num_pdfs": 2}))
    with pytest.raises(ValueError, match="labels beyond the 2 pdf-ids of graph.json"):
        read_graph(graph_dir)


def test_an_lm_weight_that_is_not_positive_is_refused(write_graph, write_scp):
    with pytest.raises(ValueError, match="the LM weight is 0"):
        list(decode(write_scp(u=frames(0)), write_graph(SPOKEN), 0.0, EVERYTHING))


def test_beams_that_are_not_positive_and_a_max_active_below_the_minimum_are_refused():
    with pytest.raises(ValueError, match="beam is 0"):
        K2SearchConfig(beam=0)
    with pytest.raises(ValueError, match="max_active is 20"):
        K2SearchConfig(max_active=20)
