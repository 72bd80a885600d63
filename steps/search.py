"""Alignment and decoding by the engine that the run asks for: kaldi-decoder and decant.hmm.alignment, or k2."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from decant.hmm.alignment import LogLikelihoods, align
from decant.hmm.topology import StateGraph
from decant.search import beam_search, k2_engine
from decant.search.beam_search import Hypotheses, SearchConfig, Setting
from steps.common import Stage


def k2_device(stage: Stage) -> str:
    """k2 has a torch of its own, which may not see the GPU that the networks are on."""
    return "cpu" if stage.device.type == "cpu" else "auto"


def best_pdfs(stage: Stage, graphs: Mapping[str, StateGraph], features: Mapping[str, Tensor],
              log_likelihoods: LogLikelihoods, jobs: int) -> dict[str, np.ndarray]:
    """The best path's pdf-ids (int64 [T]) of every utterance of which a path reaches the end, in their order.

    features, log_likelihoods and jobs: as in decant.hmm.alignment.align.
    """
    features = {utterance: features[utterance] for utterance in graphs}
    if stage.engine == "k2":
        found = k2_engine.align(graphs, features, log_likelihoods, k2_device(stage), stage.out)
    else:
        paths = align(list(graphs.values()), list(features.values()), log_likelihoods, jobs)
        found = {utterance: path and path.pdfs for utterance, path in zip(graphs, paths, strict=True)}
    return {utterance: pdfs for utterance, pdfs in found.items() if pdfs is not None}


def decode_grid(stage: Stage, scp: Path, graph_dir: Path, settings: Sequence[Setting], search: SearchConfig,
                jobs: int) -> dict[Setting, Hypotheses]:
    """What an archive of log-likelihoods is recognised as with each LM weight and penalty of the settings."""
    weights, penalties = (sorted(set(values)) for values in zip(*settings, strict=True))
    if stage.engine == "k2":
        return k2_engine.decode_grid(scp, graph_dir, weights, penalties, search, k2_device(stage), stage.out)
    return beam_search.decode_grid(scp, graph_dir, weights, penalties, search, jobs)
