"""A graph as large as LibriSpeech's: what building and searching it take.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/large_graph.py exp/large

makes up 200,000 words, a trigram of 1.5M n-grams and 4200 tied states (tests/benchmarks/large_vocabulary.py), builds
the graph in a process of its own, and searches made-up utterances at beams 10 and 13. It prints memory, processor time,
states, arcs and bytes; real-time factors on one core, at several levels of noise, as made-up frames can be as clear or
as unclear as one likes; and how much memory two processes that search the graph hold each. What is in the folder
already is not made again.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import run

import numpy as np
from large_vocabulary import (
    FRAMES_A_STATE,
    by_use,
    large_lexicon,
    leaf_gaussians,
    log_likelihoods,
    make_acoustics,
    sentences,
    spoken,
    tied_states,
    write_language_model,
)

from decant.hmm.topology import read_transitions, write_transitions
from decant.lang.lexicon import read_lexicon, write_lexicon
from decant.score.scoring import word_errors
from decant.search.beam_search import SearchConfig, decode, read_graph
from decant.search.decoding_graph import build_graph

LM_WEIGHT, BEAMS = 10.0, (10.0, 13.0)
FRAMES_A_SECOND = 100
MIB = 2**20


def make_inputs(folder: Path, num_words: int, num_bigrams: int, num_trigrams: int, num_leaves: int) -> None:
    """Writes lexicon.txt, lm.arpa, model, ranks.json (the words, the commonest first) and gaussians.npz."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    lexicon = large_lexicon(num_words, rng)
    words = by_use(lexicon, rng)
    write_lexicon(lexicon, folder / "lexicon.txt")
    (folder / "ranks.json").write_text(json.dumps(words))
    write_language_model(folder / "lm.arpa", words, num_bigrams, num_trigrams, rng, 3 * num_words)
    transitions, statistics = tied_states(lexicon, words, make_acoustics(lexicon.phones, rng), num_leaves, rng)
    (folder / "model").mkdir(exist_ok=True)
    write_transitions(folder / "model", transitions)
    means, variances = leaf_gaussians(transitions.tree, statistics)
    np.savez(folder / "gaussians.npz", means=means, vars=variances)


def made_up(folder: Path, noise: float, number: int) -> tuple[list[tuple[np.ndarray, list[str]]], float]:
    """`number` utterances: log-likelihoods and words; and the share of frames whose state is the likeliest."""
    rng = np.random.default_rng(1)
    lexicon = read_lexicon(folder / "lexicon.txt")
    tree = read_transitions(folder / "model", lexicon.phones).tree
    gaussians = np.load(folder / "gaussians.npz")
    words = json.loads((folder / "ranks.json").read_text())
    utterances, right = [], []
    for sentence in sentences(number, len(words), rng):
        said = [words[rank - 1] for rank in sentence]
        events = spoken(said, lexicon, rng)
        frames = np.repeat(np.arange(len(events)), rng.geometric(1 / FRAMES_A_STATE, len(events)))
        pdfs, phones = tree.label(events)[frames], np.cumsum(events[:, 3] == 0)[frames]
        scores = log_likelihoods(pdfs, phones, (gaussians["means"], gaussians["vars"]), noise, rng)
        utterances.append((scores, said))
        right.append(scores.argmax(axis=1) == pdfs)
    return utterances, float(np.concatenate(right).mean())


def peak_mib() -> float:
    """The most memory that this program has had; ru_maxrss may be that of the one that started it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def build(folder: Path) -> None:
    """Builds the graph; prints what it took beside what the graph is."""
    lexicon = read_lexicon(folder / "lexicon.txt")
    transitions = read_transitions(folder / "model", lexicon.phones)
    before = peak_mib()
    facts = build_graph(lexicon, folder / "lm.arpa", transitions, folder / "graph")
    own, child = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {"states": facts.states, "arcs": facts.arcs, "bytes": (folder / "graph/HCLG.fst").stat().st_size,
            "cpu_seconds": own.ru_utime + child.ru_utime, "peak_mib": peak_mib(),
            "mib_before": before, "language_model_mib": child.ru_maxrss / 1024}
    (folder / "cost.json").write_text(json.dumps(cost))


def report(folder: Path, noises: Sequence[float], number: int) -> None:
    cost, started = json.loads((folder / "cost.json").read_text()), time.process_time()
    graph = read_graph(folder / "graph")
    print(f"{folder}: {len(graph.words) - 4} words, {graph.num_pdfs} tied states; {cost['states']} states, "
          f"{cost['arcs']} arcs, {cost['bytes'] / MIB:.0f} MiB; built in {cost['cpu_seconds']:.0f} s of processor time "
          f"and {cost['peak_mib']:.0f} MiB ({cost['mib_before']:.0f} before it began); opened in "
          f"{time.process_time() - started:.2f} s")
    for noise in noises:
        utterances, accuracy = made_up(folder, noise, number)
        seconds = sum(len(scores) for scores, _ in utterances) / FRAMES_A_SECOND
        print(f"noise {noise:g}: {number} utterances, {seconds:.0f} s; {100 * accuracy:.0f}% of frames right")
        for beam in BEAMS:
            started = time.process_time()
            found = {str(i): decode(graph, scores, LM_WEIGHT, SearchConfig(beam))[0]
                     for i, (scores, _) in enumerate(utterances)}
            taken = time.process_time() - started
            errors = word_errors({str(i): said for i, (_, said) in enumerate(utterances)}, found)
            print(f"  beam {beam:g}: {taken / seconds:.3f} of real time, WER {100 * errors.wer:.1f}%")


def hold(folder: Path, pipe: Connection) -> None:
    """Opens the graph, touches all of it, as a search of many utterances does, and tells the process's memory."""
    graph = read_graph(folder / "graph")
    decode(graph, made_up(folder, 1.0, 1)[0][0][0], LM_WEIGHT, SearchConfig())
    touched = sum(graph.fst.num_arcs(state) for state in range(graph.fst.num_states))
    pipe.send(touched)
    pipe.recv()
    sizes = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    pipe.send({name: int(sizes[name].split()[0]) / 1024 for name in ("Rss", "Pss", "Private_Dirty")})
    pipe.recv()


def share(folder: Path, processes: int = 2) -> None:
    """Prints what processes hold that have the graph open at the same time."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        workers.append(context.Process(target=hold, args=(folder, theirs)))
        workers[-1].start()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send("measure")
    for pipe in pipes:
        print("a process that searches it: " + ", ".join(f"{k} {v:.0f} MiB" for k, v in pipe.recv().items()))
    for pipe in pipes:
        pipe.send("end")
    for worker in workers:
        worker.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--bigrams", type=int, default=800_000)
    parser.add_argument("--trigrams", type=int, default=500_000)
    parser.add_argument("--leaves", type=int, default=4200)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 1.6, 1.8], help="standard deviations, of 1")
    parser.add_argument("--utterances", type=int, default=40)
    parser.add_argument("--build", action="store_true", help="build the graph alone")
    options = parser.parse_args()
    folder = options.folder
    if options.build:
        build(folder)
        return
    if not (folder / "gaussians.npz").exists():
        make_inputs(folder, options.words, options.bigrams, options.trigrams, options.leaves)
    if not (folder / "cost.json").exists():
        run([sys.executable, __file__, str(folder), "--build"], check=True)
    report(folder, options.noise, options.utterances)
    share(folder)


if __name__ == "__main__":
    main()
