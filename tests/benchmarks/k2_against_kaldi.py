"""k2 against this repository's other engines, on one experiment: costs, words, frames, errors and speed.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/k2_against_kaldi.py exp/an4 --k2-python .venv-k2/bin/python

decodes with kaldi-decoder (decant.search.beam_search) and k2 (decant.search.k2_search, run by the other Python) the
same log-likelihoods through the same graph, at several beams; then aligns with decant.hmm.alignment and k2, from
likelihoods that are there already. Seconds are wall clock on one thread; k2's are those of its command less those of
the same command on one utterance.
"""

import argparse
import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kaldi_decoder
import kaldifst
import numpy as np
import torch

from decant.distill.scorer import score
from decant.experiment import Experiment, Run
from decant.feat.archive import read_int_vectors, read_matrices, write_matrices
from decant.feat.data_dir import read_data_dir
from decant.hmm.alignment import align
from decant.hmm.gmm import QuadraticForm, load_gmm
from decant.hmm.topology import StateGraph, read_transitions, state_graph
from decant.lang.language_model import estimate_ngram, read_arpa
from decant.lang.lexicon import RESERVED_WORDS, read_lexicon
from decant.score.scoring import Sentences, word_errors
from decant.score.systems import System, frames_of, scorer_of
from decant.search.beam_search import Graph, SearchConfig, read_graph
from decant.search.rescoring import rescored
from decant.search.state_graphs import acceptor, write_acceptors

FRAMES_A_SECOND = 100
ROOT = Path(__file__).resolve().parents[2]


def run_k2(python: Path, *arguments: object) -> float:
    """Runs decant.search.k2_command; returns the seconds that it took."""
    started = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([python, "-m", "decant.search.k2_command", *map(str, arguments)], check=True, env=environment)
    return time.monotonic() - started


def kaldi_best_path(graph: Graph, log_likelihoods: np.ndarray, lm_weight: float,
                    config: SearchConfig) -> tuple[tuple[str, ...], float, bool]:
    """The words of kaldi-decoder's best path, its cost, and whether it ends in a final state."""
    decoder = kaldi_decoder.FasterDecoder(
        graph.fst, kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active))
    decoder.decode(kaldi_decoder.DecodableCtc(np.float32(log_likelihoods / lm_weight)))
    _, path = decoder.get_best_path()
    _, _, labels, weight = kaldifst.get_linear_symbol_sequence(path)
    return tuple(graph.words[label] for label in labels), weight.value1 + weight.value2, decoder.reached_final()


def first_of(scp: Path, out: Path) -> Path:
    """An archive of the first utterance alone."""
    write_matrices(out, [next(read_matrices(scp))])
    return out.with_suffix(".scp")


def compare_decoding(k2_python: Path, graph_dir: Path, scp: Path, refs: Sentences, lm_weight: float,
                     beams: Sequence[float], scratch: Path) -> None:
    graph, matrices = read_graph(graph_dir), dict(read_matrices(scp))
    seconds_of_speech = sum(map(len, matrices.values())) / FRAMES_A_SECOND
    refs = {utterance: refs[utterance] for utterance in matrices}
    facts = json.loads((graph_dir / "graph.json").read_text())
    one = first_of(scp, scratch / "one")
    print(f"graph: {facts['states']} states, {facts['arcs']} arcs; {len(matrices)} utterances, "
          f"{seconds_of_speech:.0f} s")
    for beam in beams:
        config, out = SearchConfig(beam=beam), scratch / "k2.json"
        common = ("decode", "--graph", graph_dir, "--lm-weight", lm_weight, "--beam", beam,
                  "--max-active", config.max_active, "--out", out)
        start = min(run_k2(k2_python, *common, "--scp", one) for _ in range(3))
        k2_seconds = run_k2(k2_python, *common, "--scp", scp) - start
        [setting] = json.loads(out.read_text())
        found = setting["utterances"]
        started = time.monotonic()
        kaldi = {utterance: kaldi_best_path(graph, x, lm_weight, config) for utterance, x in matrices.items()}
        kaldi_seconds = time.monotonic() - started
        k2_words = {utterance: tuple(found[utterance]["words"]) for utterance in matrices}
        kaldi_words = {utterance: words for utterance, (words, _, _) in kaldi.items()}
        same = [utterance for utterance in matrices if k2_words[utterance] == kaldi_words[utterance]]
        difference = {utterance: found[utterance]["cost"] - kaldi[utterance][1] for utterance in matrices}
        differing = word_errors(kaldi_words, k2_words)
        print(f"beam {beam:g}: costs of the {len(same)} of {len(matrices)} utterances with the same words differ by "
              f"{max(abs(difference[utterance]) for utterance in same):.1e} at most; "
              f"words identical {1 - differing.total / differing.words:.2%}; "
              f"WER kaldi {word_errors(refs, kaldi_words).wer:.2%}, k2 {word_errors(refs, k2_words).wer:.2%}; "
              f"RTF kaldi {kaldi_seconds / seconds_of_speech:.4f}, k2 {k2_seconds / seconds_of_speech:.4f} "
              f"(and {start:.1f} s to start); partial {sum(not final for *_, final in kaldi.values())}, "
              f"{sum(entry['partial'] for entry in found.values())}")
        for utterance in matrices.keys() - same:
            print(f"  {utterance}: k2's path costs {difference[utterance]:+.3f}")


def compare_n_best(k2_python: Path, graph_dir: Path, scp: Path, refs: Sentences, text: Path, arpa: Path,
                   train: Sentences, lm_weight: float, scratch: Path) -> None:
    """n-best lists, their oracle and the lattices' own, and the lists scored again with a trigram of train."""
    old = read_arpa(arpa)
    new = estimate_ngram(train.values(), 3, [word for word in old.words if word not in RESERVED_WORDS])
    out = scratch / "n_best.json"
    seconds = run_k2(k2_python, "decode", "--graph", graph_dir, "--lm-weight", lm_weight, "--scp", scp, "--out", out,
                     "--n-best", 100, "--references", text)
    [setting] = json.loads(out.read_text())
    found: dict[str, Any] = setting["utterances"]
    refs = {utterance: refs[utterance] for utterance in found}
    num_words = sum(map(len, refs.values()))
    lists = {utterance: [(tuple(entry["words"]), entry["cost"]) for entry in found[utterance]["n_best"]]
             for utterance in found}
    print(f"lattices at beam 13, with their 100-best lists and oracles: {seconds:.1f} s")
    print(f"  WER: best {word_errors(refs, {u: n_best[0][0] for u, n_best in lists.items()}).wer:.2%}, "
          f"lattice oracle {sum(entry['oracle_errors'] for entry in found.values()) / num_words:.2%}")
    for name, model in (("the same model again", old), ("a trigram of train", new)):
        words = {utterance: rescored(n_best, old, model)[0][0] for utterance, n_best in lists.items()}
        print(f"  rescored with {name}: {word_errors(refs, words).wer:.2%}")


def compare_alignment(k2_python: Path, graphs: dict[str, StateGraph], scp: Path, num_pdfs: int, scratch: Path) -> None:
    matrices = dict(read_matrices(scp))
    acceptors = {utterance: acceptor(graphs[utterance]) for utterance in matrices}
    write_acceptors(scratch / "graphs.npz", acceptors, num_pdfs)
    common = ("align", "--graphs", scratch / "graphs.npz", "--out", scratch / "ali")
    one = first_of(scp, scratch / "one")
    start = min(run_k2(k2_python, *common, "--scp", one) for _ in range(3))
    k2_seconds = run_k2(k2_python, *common, "--scp", scp) - start
    found = dict(read_int_vectors(scratch / "ali.scp"))
    started = time.monotonic()
    paths = align([graphs[utterance] for utterance in matrices], [torch.from_numpy(x) for x in matrices.values()],
                  lambda x, pdfs: x[:, pdfs])
    own_seconds = time.monotonic() - started
    ours = {utterance: path.pdfs for utterance, path in zip(matrices, paths, strict=True) if path is not None}
    assert ours.keys() == found.keys()
    equal = np.concatenate([ours[utterance] == found[utterance] for utterance in ours])
    hours = sum(map(len, matrices.values())) / FRAMES_A_SECOND / 3600
    print(f"alignment: {len(ours)} of {len(matrices)} utterances, {len(equal)} frames, {equal.mean():.4%} of them the "
          f"same pdf-id; utterance-hours a second: decant {hours / own_seconds:.3f}, k2 {hours / k2_seconds:.3f} (and "
          f"{start:.1f} s to start), ratio {k2_seconds / own_seconds:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path)
    parser.add_argument("--k2-python", type=Path, default=ROOT / ".venv-k2" / "bin" / "python")
    parser.add_argument("--split", default="test")
    parser.add_argument("--lm-weight", type=float, default=10.0)
    parser.add_argument("--beams", type=float, nargs="+", default=[10.0, 13.0, 16.0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    exp, data_dir, states = given.exp, given.exp / "data" / given.split, Experiment(given.exp).mixtures[-1]
    utterances, lexicon = read_data_dir(data_dir), read_lexicon(exp / "lang" / "lexicon.txt")
    train = {utterance.id: utterance.words for utterance in read_data_dir(exp / "data" / "train")}
    graph_dir = exp / "graph" / states.name
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        network = System(Run("baseline", seed=1), (exp / "baseline",), states)
        scorer = scorer_of(Experiment(exp), network, torch.device("cpu"))
        write_matrices(scratch / "network", (
            (utterance, score(scorer, x).log_likelihoods)
            for utterance, x in frames_of(Experiment(exp), network, given.split)))
        refs = {utterance.id: utterance.words for utterance in utterances}
        compare_decoding(given.k2_python, graph_dir, scratch / "network.scp", refs, given.lm_weight, given.beams,
                         scratch)
        compare_n_best(given.k2_python, graph_dir, scratch / "network.scp", refs, data_dir / "text",
                       exp / "lang" / "lm.arpa", train, given.lm_weight, scratch)
        mixtures = System(Run(states.name), (states,), states)
        transitions, form = read_transitions(states, lexicon.phones), QuadraticForm(load_gmm(states)[0])
        graphs = {utterance.id: state_graph(utterance.words, lexicon, transitions) for utterance in utterances
                  if all(word in lexicon.pronunciations for word in utterance.words)}
        write_matrices(scratch / "mixtures", (
            (utterance, form.log_likelihoods(torch.from_numpy(x)).numpy())
            for utterance, x in frames_of(Experiment(exp), mixtures, given.split) if utterance in graphs))
        compare_alignment(given.k2_python, graphs, scratch / "mixtures.scp", transitions.num_pdfs, scratch)


if __name__ == "__main__":
    main()
