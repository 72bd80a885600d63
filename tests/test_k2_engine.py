"""How stages call k2; what k2 finds is tested in tests/k2, in its own environment."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from decant.hmm.state_tying import monophone_tree
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import make_lexicon
from decant.search import k2_engine
from decant.search.beam_search import Hypotheses, SearchConfig


@pytest.fixture
def other_python(tmp_path, monkeypatch):
    """A program in the place of k2's Python: writes how it was called, then does what `body` says."""
    def make(body: str):
        python = tmp_path / "python"
        python.write_text(f"#!{sys.executable}\nimport json, sys\nopen({str(tmp_path / 'called')!r}, 'w')"
                          f".write(json.dumps(sys.argv[1:]))\n{body}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("DECANT_K2_PYTHON", str(python))
        return tmp_path / "called"
    return make


def test_without_an_environment_the_error_says_how_to_make_one(monkeypatch):
    monkeypatch.setenv("DECANT_K2_PYTHON", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/python: .* `make \.venv-k2/installed`"):
        k2_engine.find_python()


def test_an_error_of_k2_is_the_stage_s_error(other_python):
    other_python("print('read the graph', file=sys.stderr); sys.exit('error: x.scp: utterance u7: no frames')")
    with pytest.raises(ValueError, match=r"^k2: x.scp: utterance u7: no frames \(exit status 1\)$"):
        k2_engine.run("decode")


def test_a_search_whose_stage_was_killed_during_its_imports_ends(other_python, tmp_path):
    """k2's own module, which is not here, has an empty one in its place."""
    names = ("K2Graph", "K2SearchConfig", "align", "can_use_gpu", "decode", "read_graph")
    program = ("import sys, types\n"
               f"sys.modules['decant.search.k2_search'] = types.SimpleNamespace(**dict.fromkeys({names}))\n"
               "from decant.search.k2_command import end_with_parent\n"
               "end_with_parent()\nprint('goes on')")
    gone = subprocess.Popen(["true"])
    gone.wait()
    for stage, goes_on in ((gone.pid, False), (os.getpid(), True)):
        done = subprocess.run([sys.executable, "-c", program], env=os.environ | {"DECANT_PARENT": str(stage)},
                              capture_output=True, text=True, check=False)
        assert (done.returncode == 0, done.stdout == "goes on\n") == (goes_on, goes_on), done.stderr
    other_python(f"import os; open({str(tmp_path / 'parent')!r}, 'w').write(os.environ['DECANT_PARENT'])")
    k2_engine.run("decode")
    assert (tmp_path / "parent").read_text() == str(os.getpid())


def test_a_grid_is_decoded_in_one_call(other_python, tmp_path):
    found = [{"lm_weight": 8.0, "word_insertion_penalty": 0.0,
              "utterances": {"u": {"words": ["a", "b"], "partial": False}, "v": {"words": [], "partial": True}}}]
    called = other_python(f"open(sys.argv[sys.argv.index('--out') + 1], 'w').write({json.dumps(found)!r})")
    scored = [("u", np.zeros((3, 2), np.float32)), ("v", np.zeros((3, 2), np.float32))]
    grid = k2_engine.decode_grid(scored, tmp_path, [(8.0, 0.0)], SearchConfig(beam=11.0), "cpu", tmp_path)
    assert grid == {(8.0, 0.0): Hypotheses({"u": ("a", "b"), "v": ()}, ("v",))}
    arguments = json.loads(called.read_text())
    assert arguments[:3] == ["-m", "decant.search.k2_command", "decode"]
    assert arguments[arguments.index("--beam") + 1] == "11.0"


def test_an_alignment_asks_for_an_utterance_s_own_pdf_ids_and_gives_them_back(other_python, monkeypatch, tmp_path):
    """A stand-in for k2 that answers with label 1 for every frame: each utterance's second-smallest pdf-id."""
    other_python("""
from pathlib import Path
from decant.feat.archive import read_matrices, write_int_vectors
import numpy as np
option = lambda name: Path(sys.argv[sys.argv.index(name) + 1])
from decant.search.state_graphs import read_acceptors
scores = list(read_matrices(option('--scp')))
graphs, num_pdfs = read_acceptors(option('--graphs'))
for u, x in scores:
    assert x.shape[1] == num_pdfs and graphs[u].arcs['input'].max() == num_pdfs
write_int_vectors(option('--out'), ((u, np.ones(len(x), np.int32)) for u, x in scores if u != 'c'))
""")
    monkeypatch.setattr(k2_engine, "MAX_FRAMES", 10)  # two calls
    lexicon = make_lexicon([("A", ("x",)), ("B", ("y",))])
    model = TransitionModel(monophone_tree(lexicon.phones), HmmConfig())
    graphs = {name: state_graph([word], lexicon, model) for name, word in (("a", "A"), ("b", "B"), ("c", "A"))}
    asked = []

    def log_likelihoods(features, pdfs):
        asked.append(pdfs.tolist())
        return torch.zeros(len(features), len(pdfs))

    features = {name: torch.zeros(length, 2) for name, length in (("a", 6), ("b", 7), ("c", 2))}
    found = k2_engine.align(graphs, features, log_likelihoods, "cpu", tmp_path)
    assert asked == [sorted(set(graphs[name].pdfs.tolist())) for name in "abc"]
    assert found["c"] is None
    for name in "ab":
        assert np.array_equal(found[name], [sorted(set(graphs[name].pdfs))[1]] * len(features[name]))
