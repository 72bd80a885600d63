import json
import math
from dataclasses import replace

import kaldifst
import numpy as np
import pytest

from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel
from decant.lang.language_model import NgramModel, read_arpa
from decant.lang.lexicon import make_lexicon
from decant.lang.mapped_model import write_mapped
from decant.parallel import parallel_stream
from decant.search import beam_search
from decant.search.beam_search import (
    LatticeSearch,
    SearchConfig,
    decode,
    decode_grid,
    read_graph,
    search_lattices,
)
from decant.search.decoding_graph import build_graph
from decant.search.fst_arrays import read_arrays
from decant.search.lattice import n_best
from decant.search.lattice_search import read_lattice

LEXICON = make_lexicon([("no", ("N", "O")), ("on", ("O", "N")), ("oh", ("O",))])
TRANSITIONS = TransitionModel(monophone_tree(LEXICON.phones), HmmConfig())
ARPA = f"""\\data\\
ngram 1=5

\\1-grams:
-99 <s>
{math.log10(0.25)} </s>
{math.log10(0.65)} no
{math.log10(0.05)} oh
{math.log10(0.05)} on

\\end\\
"""
CONFIG = SearchConfig()


@pytest.fixture(scope="module")
def graph_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("graph")
    (directory / "lm.arpa").write_text(ARPA)
    build_graph(LEXICON, directory / "lm.arpa", TRANSITIONS, directory / "graph")
    return directory / "graph"


def spoken(*phones, height=20.0):
    """Log-likelihoods [T, S] of phones, two frames a state: `height` for the right pdf-id, else 0."""
    pdfs = np.repeat([pdf for phone in phones for pdf in TRANSITIONS.pdfs(("SIL", phone, "SIL"))], 2)
    log_likelihoods = np.zeros((len(pdfs), TRANSITIONS.num_pdfs), np.float32)
    log_likelihoods[np.arange(len(pdfs)), pdfs] = height
    return log_likelihoods


@pytest.fixture
def scored():
    utterances = {
        "u1": spoken("SIL", "N", "O", "SIL", "O", "N"),
        "u2": spoken("O"),
        "u3": spoken("SIL"),
        "u4": np.random.default_rng(0).normal(0, 3, (40, TRANSITIONS.num_pdfs)).astype(np.float32),
        "u5": spoken("N", "O", "N", "O", "SIL"),
    }
    return list(utterances.items())


def test_the_words_that_were_spoken_are_found(graph_dir):
    graph = read_graph(graph_dir)
    assert decode(graph, spoken("SIL", "N", "O", "SIL", "O", "N"), 1.0, CONFIG) == (("no", "on"), True)
    assert decode(graph, spoken("O", "O"), 1.0, CONFIG) == (("oh", "oh"), True)
    assert decode(graph, spoken("SIL"), 1.0, CONFIG) == ((), True)


def test_a_larger_language_model_weight_prefers_the_likelier_word(graph_dir):
    # "on" fits better by 1 in each of 12 frames; "no" costs less by log(0.65 / 0.05) = 2.6.
    log_likelihoods = np.maximum(spoken("O", "N", height=4.0), spoken("N", "O", height=3.0))
    graph = read_graph(graph_dir)
    assert decode(graph, log_likelihoods, 1.0, CONFIG)[0] == ("on",)
    assert decode(graph, log_likelihoods, 10.0, CONFIG)[0] == ("no",)


def test_the_word_insertion_penalty_is_added_to_every_arc_with_a_word_and_to_no_other(graph_dir):
    before = read_arrays(graph_dir / "HCLG.fst").arcs
    penalised = read_graph(graph_dir, 2.5).fst
    costs = [float(line.split()[4]) if len(line.split()) == 5 else 0.0
             for line in penalised.to_str(show_weight_one=True).splitlines() if len(line.split()) >= 4]
    np.testing.assert_allclose(costs, before["cost"] + 2.5 * (before["output"] > 0), atol=1e-4)
    assert 0 < (before["output"] > 0).sum() < len(before)


def test_a_word_insertion_penalty_makes_words_fewer(graph_dir):
    log_likelihoods = spoken("O", "O", height=1.0)
    assert len(decode(read_graph(graph_dir, -5.0), log_likelihoods, 1.0, CONFIG)[0]) == 2
    assert len(decode(read_graph(graph_dir, 50.0), log_likelihoods, 1.0, CONFIG)[0]) == 0


def test_a_grid_gives_what_single_decodings_give_whatever_the_number_of_jobs(graph_dir, scored):
    settings = [(1.0, 0.0), (1.0, 1.0), (5.0, 0.0), (5.0, 1.0)]
    grid = decode_grid(scored, graph_dir, settings, CONFIG, jobs=2)
    assert decode_grid(scored, graph_dir, settings, CONFIG, jobs=1) == grid
    assert list(grid) == settings
    assert list(grid[1.0, 0.0].words) == ["u1", "u2", "u3", "u4", "u5"]
    assert grid[1.0, 0.0].words["u5"] == ("no", "no")
    assert grid[5.0, 1.0].words["u1"] == decode(
        read_graph(graph_dir, 1.0), spoken("SIL", "N", "O", "SIL", "O", "N"), 5.0, CONFIG
    )[0]


def test_one_search_of_lattices_gives_what_a_grid_of_searches_gives_whatever_the_number_of_jobs(graph_dir, scored):
    settings = [(weight, penalty) for weight in (1.0, 2.0, 5.0) for penalty in (0.0, -1.0, 1.0)]
    search = LatticeSearch(beam=40.0, lm_weight=2.0, lattice_beam=40.0)
    grid = decode_grid(scored, graph_dir, settings, search)
    assert grid == decode_grid(scored, graph_dir, settings, CONFIG)
    assert grid == decode_grid(scored, graph_dir, settings, search, jobs=2)
    assert len({found.words["u4"] for found in grid.values()}) > 1


def test_a_lattice_holds_the_cost_of_the_graph_and_that_of_the_frames_apart(graph_dir):
    x = spoken("N", "O", height=2.0)
    [(_, lattice, whole)] = search_lattices(read_graph(graph_dir), [("u", x)], LatticeSearch(lm_weight=4.0))
    [(words, cost)] = n_best(lattice, 1, (4.0, 0.0))
    assert whole and words == ("no",)
    [(_, cost_at_1)] = n_best(lattice, 1, (1.0, 0.0))
    assert cost - cost_at_1 == pytest.approx(len(x) * 2.0 * (1 - 1 / 4.0), abs=1e-4)  # every frame is 2 likelier


def test_lattices_list_the_utterance_that_ends_in_no_final_state_too(graph_dir):
    scored = [("cut", spoken("N")[:2]), ("whole", spoken("N", "O"))]
    found = decode_grid(scored, graph_dir, [(1.0, 0.0), (3.0, 1.0)], LatticeSearch(lm_weight=1.0))
    assert found == decode_grid(scored, graph_dir, [(1.0, 0.0), (3.0, 1.0)], CONFIG)
    assert found[3.0, 1.0].partial == ("cut",)


def test_a_lattice_is_read_wherever_its_start_stands_and_whatever_the_order_of_its_epsilon_arcs(tmp_path):
    """As kaldi-decoder numbers them: what the epsilon arcs of a frame reach comes before where they leave."""
    raw = kaldifst.Lattice()
    for _ in range(5):
        raw.add_state()
    raw.start = 2
    for source, target, label, word, graph, acoustic in ((2, 1, 0, 1, 0.5, 0.0), (1, 0, 0, 0, 0.25, 0.0),
                                                         (2, 0, 0, 0, 9.0, 0.0), (0, 4, 3, 2, 1.0, 6.0),
                                                         (4, 3, 0, 0, 0.125, 0.0)):
        raw.add_arc(source, kaldifst.LatticeArc(label, word, kaldifst.LatticeWeight(graph, acoustic), target))
    raw.set_final(3, kaldifst.LatticeWeight(2.0, 0.0))
    assert raw.write(str(tmp_path / "raw.fst"))
    lattice = read_lattice(tmp_path / "raw.fst", ((), ("a",), ("b",)), lm_weight=10.0)
    assert (np.diff(lattice.levels) > 0).all() and (np.diff(lattice.sources) >= 0).all()
    assert (lattice.levels[lattice.targets] > lattice.levels[lattice.sources]).all()
    assert n_best(lattice, 2, (20.0, 0.0)) == [(("a", "b"), pytest.approx(3.875 + 3.0)),
                                               (("b",), pytest.approx(12.125 + 3.0))]


def test_a_larger_language_model_chooses_among_the_paths_of_the_lattice(graph_dir, tmp_path):
    """ "on" fits better by 1 in each of 12 frames; "no" costs less by log(0.65 / 0.05) = 2.6, in the other more."""
    scored = [("u", np.maximum(spoken("O", "N", height=4.0), spoken("N", "O", height=3.0))), ("v", spoken("O"))]
    old = read_arpa(graph_dir.parent / "lm.arpa")
    section = dict(old.ngrams[0])
    section[("no",)], section[("on",)] = section[("on",)], section[("no",)]
    write_mapped(old, tmp_path / "first")
    write_mapped(NgramModel((section,)), tmp_path / "larger")
    search = LatticeSearch(lm_weight=8.0, language_models=tmp_path)
    found = decode_grid(scored, graph_dir, [(8.0, 0.5), (8.0, 1.0)], search)
    assert found == decode_grid(scored, graph_dir, [(8.0, 0.5), (8.0, 1.0)], search, jobs=2)
    assert found[8.0, 0.5].words == decode_grid(scored, graph_dir, [(8.0, 0.5)], CONFIG)[8.0, 0.5].words
    assert found[8.0, 0.5].words["u"] == ("no",) and found[8.0, 0.5].rescored["u"] == ("on",)
    assert found[8.0, 0.5].rescored["v"] == found[8.0, 0.5].words["v"]
    write_mapped(old, tmp_path / "second" / "first")
    write_mapped(old, tmp_path / "second" / "larger")
    same = decode_grid(scored, graph_dir, [(8.0, 0.5)], replace(search, language_models=tmp_path / "second"))
    assert same[8.0, 0.5].rescored == same[8.0, 0.5].words


def test_another_kind_of_file_is_no_lattice(graph_dir):
    with pytest.raises(ValueError, match="not an OpenFst file of type vector and lattice arcs"):
        read_lattice(graph_dir / "HCLG.fst", (), 1.0)


def test_an_utterance_that_ends_in_no_final_state_keeps_its_words_and_is_listed(graph_dir):
    scored = [("cut", spoken("N")[:2]), ("whole", spoken("N", "O"))]
    result = decode_grid(scored, graph_dir, [(1.0, 0.0)], CONFIG)[1.0, 0.0]
    assert result.partial == ("cut",)
    assert result.words == {"cut": ("no",), "whole": ("no",)}


def test_log_likelihoods_are_made_as_they_are_searched_not_all_at_once(graph_dir, scored, monkeypatch):
    """With two processes no more than these have work with, and a part for each of them."""
    monkeypatch.setattr(beam_search, "PART_BYTES", 1)
    taken, found = [], []
    monkeypatch.setattr(beam_search, "parallel_stream", lambda *arguments: map(
        lambda part: found.append(len(taken)) or part, parallel_stream(*arguments)))
    utterances = [(f"u{n:02d}", scored[n % 5][1]) for n in range(40)]
    grid = decode_grid((taken.append(one[0]) or one for one in utterances), graph_dir, [(1.0, 0.0)], CONFIG, jobs=2)
    assert list(grid[1.0, 0.0].words) == taken and len(taken) == 40
    assert max(now - before for before, now in enumerate(found)) <= 2 * 2 + 1


def test_a_matrix_of_another_width_is_refused_with_both_numbers_and_the_utterance(graph_dir):
    with pytest.raises(ValueError, match=r"utterance u7: log-likelihoods of shape \[5, 12\] .* 11 pdf-ids"):
        decode_grid([("u7", np.zeros((5, 12), np.float32))], graph_dir, [(1.0, 0.0)], CONFIG)


@pytest.mark.parametrize("bad", [np.zeros((0, 11)), np.full((5, 11), np.nan), np.full((5, 11), -np.inf)])
def test_log_likelihoods_that_are_empty_or_not_finite_are_refused(graph_dir, bad):
    with pytest.raises(ValueError, match="log-likelihoods without frames, or not all finite"):
        decode(read_graph(graph_dir), bad.astype(np.float32), 1.0, CONFIG)


def test_a_graph_with_labels_beyond_its_pdf_ids_is_refused_by_name(graph_dir, tmp_path):
    for name in ("HCLG.fst", "words.txt"):
        (tmp_path / name).write_bytes((graph_dir / name).read_bytes())
    (tmp_path / "graph.json").write_text(json.dumps({"num_pdfs": 10}))
    with pytest.raises(ValueError, match="labels beyond the 10 pdf-ids of graph.json"):
        read_graph(tmp_path)


def test_a_missing_graph_is_reported_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="graph.json"):
        read_graph(tmp_path)


def test_a_narrow_beam_is_not_allowed_to_be_zero():
    with pytest.raises(ValueError, match="beam is 0"):
        SearchConfig(beam=0)
