"""Runs in decant's environment with k2's beside it: make test-k2."""

from pathlib import Path

import numpy as np
import pytest
import torch

from decant.hmm.state_tying import DecisionTree, Split, monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.language_model import estimate_ngram, write_arpa
from decant.lang.lexicon import make_lexicon
from decant.search.beam_search import LatticeSearch, SearchConfig
from decant.search.decoding_graph import build_graph
from decant.search.engine import ENGINES, Engine

LEXICON = make_lexicon([("A", ("x",)), ("B", ("x", "y")), ("B", ("z",)), ("C", ("y", "z", "x")), ("D", ("z", "z"))])


def tied_tree() -> DecisionTree:
    """Monophone states, but for the middle of x, which depends on whether y follows."""
    tree = monophone_tree(LEXICON.phones)
    middle = tree.roots["x", 1]
    return DecisionTree(tree.phones, dict(tree.roots) | {("x", 1): Split(2, frozenset("y"), middle, tree.num_pdfs)})


@pytest.fixture
def engines(tmp_path):
    return [Engine(name, "cpu", tmp_path) for name in ENGINES]


def test_both_engines_align_alike(engines):
    rng = np.random.default_rng(0)
    model = TransitionModel(tied_tree(), HmmConfig(self_loop_scale=1.0))
    graphs = {f"u{i:02d}": state_graph(list(rng.choice(list("ABCD"), 4)), LEXICON, model) for i in range(20)}
    graphs["v"] = state_graph(["C", "C", "C"], LEXICON, model)
    scores = {name: torch.from_numpy(rng.normal(0, 3, (3 if name == "v" else 80, model.num_pdfs))).float()
              for name in graphs}
    ours, k2s = (engine.align(graphs, scores, lambda x, pdfs: x[:, pdfs], jobs=1) for engine in engines)
    assert list(ours) == list(k2s) == [name for name in graphs if name != "v"]  # v has too few frames
    for name in ours:
        assert np.array_equal(ours[name], k2s[name])


def test_both_engines_recognise_the_same(engines, tmp_path: Path):
    rng = np.random.default_rng(1)
    model = TransitionModel(tied_tree(), HmmConfig())
    spoken = [["A", "B"], ["C", "A", "D"], ["D", "B", "C"]] * 5
    write_arpa(estimate_ngram(spoken, 2, list("ABCD")), tmp_path / "lm.arpa")
    build_graph(LEXICON, tmp_path / "lm.arpa", model, tmp_path / "graph")
    scored = [(f"u{i}", rng.normal(0, 3, (60, model.num_pdfs)).astype(np.float32)) for i in range(5)]
    settings = [(weight, penalty) for weight in (2.0, 8.0) for penalty in (0.0, -1.0)]
    ours, k2s = (engine.decode(scored, tmp_path / "graph", settings, SearchConfig(), 1) for engine in engines)
    assert ours == k2s
    once = LatticeSearch(beam=40.0, lm_weight=4.0, lattice_beam=40.0)
    assert all(engine.decode(scored, tmp_path / "graph", settings, once, 1) == ours for engine in engines)
    assert any(len(words) > 1 for words in ours[2.0, 0.0].words.values())
