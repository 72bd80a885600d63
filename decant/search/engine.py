"""What aligns and decodes: kaldi-decoder and our own Viterbi (decant.hmm.alignment), or k2. The same words in, the same
words out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from decant.hmm.alignment import LogLikelihoods, align
from decant.hmm.topology import StateGraph
from decant.search import beam_search, k2_engine
from decant.search.beam_search import Hypotheses, SearchConfig
from decant.search.lattice import Setting

ENGINES = ("kaldi", "k2")


@dataclass(frozen=True)
class Engine:
    """name: one of ENGINES. device: k2's, cpu or auto; it has a torch of its own, which may not see the GPU that the
    networks are on. scratch: a folder for k2's files meanwhile."""

    name: str = "kaldi"
    device: str = "cpu"
    scratch: Path = Path()

    def align(self, graphs: Mapping[str, StateGraph], features: Mapping[str, Tensor], log_likelihoods: LogLikelihoods,
              jobs: int, beam: float = 0.0) -> dict[str, np.ndarray]:
        """The best path's pdf-ids (int64 [T]) of every utterance of which a path reaches the end, in the graphs' order.

        features, log_likelihoods, jobs and beam: as in decant.hmm.alignment.align; k2's paths are exact.
        """
        features = {utterance: features[utterance] for utterance in graphs}
        if self.name == "k2":
            found = k2_engine.align(graphs, features, log_likelihoods, self.device, self.scratch)
        else:
            paths = align(list(graphs.values()), list(features.values()), log_likelihoods, jobs, beam)
            found = {utterance: None if path is None else path.pdfs
                     for utterance, path in zip(graphs, paths, strict=True)}
        return {utterance: pdfs for utterance, pdfs in found.items() if pdfs is not None}

    def decode(self, scored: Iterable[tuple[str, np.ndarray]], graph_dir: Path, settings: Sequence[Setting],
               config: SearchConfig, jobs: int) -> dict[Setting, Hypotheses]:
        """What utterances are recognised as with each LM weight and penalty of the settings, by a search each or, with
        a LatticeSearch, by one; scored: as in decant.search.beam_search.decode_grid."""
        if self.name == "k2":
            return k2_engine.decode_grid(scored, graph_dir, settings, config, self.device, self.scratch)
        return beam_search.decode_grid(scored, graph_dir, settings, config, jobs)
