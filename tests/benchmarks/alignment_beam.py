"""Forced alignment within a beam beside the exact one, on real features: core-seconds an hour of speech, and how many
paths are the same.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/alignment_beam.py exp/an4 [--system tied/triphone_lda] [--join 6]

Utterances of a speaker are joined, --join of them, to the length of LibriSpeech's (12 s).
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decant.feat.data_dir import read_words
from decant.feat.front_end import read_filterbanks
from decant.hmm.alignment import align, own_scores
from decant.hmm.system import read_system
from decant.hmm.topology import state_graph
from decant.lang.lexicon import read_lexicon


def joined(exp: Path, system: Any, count: int, most: int) -> tuple[list[torch.Tensor], list[list[str]]]:
    """Features [T, D] and words of `most` joined utterances."""
    words, filterbanks = read_words(exp / "data/train"), read_filterbanks(exp / "fbank/train")
    of_speaker: dict[str, list[tuple[torch.Tensor, tuple[str, ...]]]] = {}
    for utterance, x in filterbanks.for_mixtures(system.features):
        of_speaker.setdefault(filterbanks.speaker_of[utterance], []).append((x, words[utterance]))
    groups = [mine[i:i + count] for mine in of_speaker.values() for i in range(0, len(mine) - count + 1, count)]
    return ([torch.cat([x for x, _ in group]) for group in groups[:most]],
            [[word for _, spoken in group for word in spoken] for group in groups[:most]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("exp", type=Path)
    parser.add_argument("--system", default="tied/triphone_lda")
    parser.add_argument("--join", type=int, default=6)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lexicon = read_lexicon(given.exp / "lang/lexicon.txt")
    system = read_system(given.exp / given.system, lexicon)
    features, words = joined(given.exp, system, given.join, 40)
    hours = sum(map(len, features)) / 360_000

    def timed(name: str, function: Callable[[], Any]) -> Any:
        started = time.process_time()
        result = function()
        seconds[name] = (time.process_time() - started) / hours
        return result

    seconds: dict[str, float] = {}
    graphs = timed("state graphs", lambda: [state_graph(spoken, lexicon, system.transitions) for spoken in words])
    timed("log-likelihoods", lambda: [own_scores(graph, x, system.form.log_likelihoods)
                                      for graph, x in zip(graphs, features, strict=True)])
    exact = timed("exact", lambda: align(graphs, features, system.form.log_likelihoods))
    print(f"{len(features)} utterances of {sum(map(len, features)) / len(features) / 100:.1f} s, "
          f"{np.mean([len(graph.pdfs) for graph in graphs]):.0f} states each")
    for beam in (50.0, 100.0, 200.0):
        found = timed(f"beam {beam:g}", lambda beam=beam: align(graphs, features, system.form.log_likelihoods,
                                                                beam=beam))
        same = [a is not None and b is not None and np.array_equal(a.states, b.states)
                for a, b in zip(exact, found, strict=True)]
        first = [path is not None and path.beam == beam for path in found]
        print(f"beam {beam:g}: {100 * np.mean(same):.1f}% of the paths are the exact ones, {100 * np.mean(first):.1f}% "
              f"at the first try; exact takes {seconds['exact'] / seconds[f'beam {beam:g}']:.2f} times as long")
    for name, value in seconds.items():
        print(f"{name}: {value:.2f} core-seconds an hour" + (", log-likelihoods included" if name[0] in "eb" else ""))


if __name__ == "__main__":
    main()
