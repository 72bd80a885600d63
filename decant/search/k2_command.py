"""The command line of decant.search.k2_search: graphs and log-likelihoods in files, to JSON or archives.

    python -m decant.search.k2_command decode|align --help        (the Python that has k2)
"""

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from decant.feat.archive import write_int_vectors
from decant.files import atomic_path
from decant.search.lattice import Setting, best_words, n_best, oracle_errors
from decant.search.state_graphs import read_acceptors
from decant.text import read_fields

try:
    from decant.search.k2_search import K2Graph, K2SearchConfig, align, can_use_gpu, decode, read_graph
except ImportError as error:  # of k2: its message says how to install it
    sys.exit(str(error))

log = logging.getLogger("decant.search.k2_command")


def write_decoded(arguments: argparse.Namespace) -> None:
    """Writes JSON, a list of {lm_weight, word_insertion_penalty, utterances}; utterances: name -> the fields of
    Hypothesis; with --n-best, `n_best`, a list of {words, cost}; with --references, `oracle_errors`, how many its
    lattice's best path has. With --search-lm-weight, name -> words and partial alone."""
    settings = [(weight, penalty) for penalty in arguments.word_insertion_penalty for weight in arguments.lm_weight]
    if arguments.search_lm_weight:
        found = _from_lattices(arguments, settings)
    else:
        read = cache(read_graph)
        found = [_decoded(arguments, weight, penalty, read) for weight, penalty in settings]
    grid = [{"lm_weight": weight, "word_insertion_penalty": penalty, "utterances": utterances}
            for (weight, penalty), utterances in zip(settings, found, strict=True)]
    with atomic_path(arguments.out) as path:
        path.write_text(json.dumps(grid) + "\n", encoding="utf-8")


def _decoded(arguments: argparse.Namespace, lm_weight: float, word_insertion_penalty: float,
             read: Callable[..., K2Graph]) -> dict[str, dict]:
    config = K2SearchConfig(arguments.beam, arguments.max_active, arguments.lattice_beam)
    references = _read_references(arguments.references) if arguments.references else {}
    found = {}
    for utterance, hypothesis, lattice in decode(
            arguments.scp, arguments.graph, lm_weight, config, word_insertion_penalty, arguments.device,
            arguments.batch_frames, read):
        found[utterance] = asdict(hypothesis)
        if arguments.n_best:
            listed = n_best(lattice, arguments.n_best, (lm_weight, 0.0))  # the penalty is in the graph's costs
            found[utterance]["n_best"] = [{"words": words, "cost": cost} for words, cost in listed]
        if arguments.references:
            if utterance not in references:
                raise ValueError(f"{arguments.references}: utterance {utterance} of {arguments.scp} is not there")
            found[utterance]["oracle_errors"] = oracle_errors(lattice, references[utterance])
    if partial := sorted(utterance for utterance in found if found[utterance]["partial"]):
        log.warning("%s: LM weight %g, word insertion penalty %g: %d of %d utterances end in no final state; their "
                    "best partial paths count: %s", arguments.scp, lm_weight, word_insertion_penalty, len(partial),
                    len(found), " ".join(partial))
    return dict(sorted(found.items()))


def _from_lattices(arguments: argparse.Namespace, settings: Sequence[Setting]) -> list[dict[str, dict]]:
    """What one search has found with each setting."""
    config = K2SearchConfig(arguments.beam, arguments.max_active, arguments.lattice_beam)
    found: list[dict[str, dict]] = [{} for _ in settings]
    for utterance, hypothesis, lattice in decode(
            arguments.scp, arguments.graph, arguments.search_lm_weight, config, 0.0, arguments.device,
            arguments.batch_frames):
        for with_setting, words in zip(found, best_words([lattice], settings)[0], strict=True):
            with_setting[utterance] = {"words": words, "partial": hypothesis.partial}
    return [dict(sorted(with_setting.items())) for with_setting in found]


def write_alignments(arguments: argparse.Namespace) -> None:
    """Writes OUT.ark and OUT.scp, a pdf-id a frame. An utterance with too few frames is left out, and named."""
    graphs, num_pdfs = read_acceptors(arguments.graphs)
    aligned = {utterance: pdfs for utterance, pdfs, _ in align(graphs, arguments.scp, num_pdfs, arguments.device,
                                                               arguments.batch_frames)}
    if short := sorted(utterance for utterance, pdfs in aligned.items() if pdfs is None):
        log.warning("%s: %d of %d utterances have fewer frames than states: %s", arguments.scp, len(short),
                    len(aligned), " ".join(short))
    write_int_vectors(arguments.out, ((utterance, pdfs) for utterance, pdfs in sorted(aligned.items())
                                      if pdfs is not None))


def _read_references(text: Path) -> dict[str, list[str]]:
    """The words of each utterance of a Kaldi `text` file."""
    return {utterance: words for _, (utterance, *words) in read_fields(text)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m decant.search.k2_command", description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(required=True)
    decoding = commands.add_parser("decode", help=write_decoded.__doc__)
    decoding.set_defaults(run=write_decoded, batch_frames=30_000)
    decoding.add_argument("--graph", type=Path, required=True, help="folder of HCLG.fst")
    decoding.add_argument("--lm-weight", type=float, nargs="+", required=True)
    decoding.add_argument("--word-insertion-penalty", type=float, nargs="+", default=[0.0])
    decoding.add_argument("--beam", type=float, default=K2SearchConfig.beam)
    decoding.add_argument("--max-active", type=int, default=K2SearchConfig.max_active)
    decoding.add_argument("--lattice-beam", type=float, default=K2SearchConfig.lattice_beam)
    decoding.add_argument("--search-lm-weight", type=float,
                          help="search once, with this weight, and find the words of each weight in the lattices")
    decoding.add_argument("--n-best", type=int, default=0, metavar="N")
    decoding.add_argument("--references", type=Path, metavar="TEXT")
    aligning = commands.add_parser("align", help=write_alignments.__doc__)
    aligning.set_defaults(run=write_alignments, batch_frames=10_000)
    aligning.add_argument("--graphs", type=Path, required=True, help="file of decant.search.state_graphs")
    for command in (decoding, aligning):
        command.add_argument("--scp", type=Path, required=True, help="log-likelihoods")
        command.add_argument("--batch-frames", type=int, help="frames of utterances searched at a time")
        command.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu",
                             help="auto: a GPU if k2 and its torch can use the one that is there")
        command.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def end_with_parent() -> None:
    """A stage that was killed takes its search along (Linux's prctl, PR_SET_PDEATHSIG = 1), also if it was killed
    during the imports above: DECANT_PARENT is the stage's process-id."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    try:
        os.kill(int(os.environ.get("DECANT_PARENT", os.getppid())), 0)  # asks whether it is there
    except ProcessLookupError:
        sys.exit("error: the stage that wanted this search has ended")


def main() -> None:
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = _arguments()
    try:
        if arguments.device == "auto":
            arguments.device = "cuda" if can_use_gpu() else "cpu"
        if arguments.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("--device cuda: torch finds no GPU here; take --device cpu")
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
