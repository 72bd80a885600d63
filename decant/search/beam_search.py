"""Beam search: from log-likelihoods of the pdf-ids to words, through a decoding graph.

kaldi-decoder's FasterDecoder is a Viterbi search that keeps, at each frame, the states within a beam of the
best. As in Kaldi, costs of the graph stay at scale 1 and log-likelihoods are divided by the language model
weight, so that the beam is one of graph costs; a word insertion penalty is a cost added for every word.

The letters: T frames, S pdf-ids.
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import kaldi_decoder
import kaldifst
import numpy as np

from decant.feat.archive import read_matrix, read_scp
from decant.parallel import parallel_map
from decant.search.fst_arrays import read_graph_arrays, write_arrays
from decant.settings import config_field

log = logging.getLogger(__name__)

Setting = tuple[float, float]  # language model weight, word insertion penalty


@dataclass(frozen=True)
class SearchConfig:
    """The beam search that recognises the words."""

    beam: float = config_field(13.0, "A state that costs this much more than the frame's best is given up.")
    max_active: int = config_field(7000, "States kept in a frame, at most.")

    def __post_init__(self) -> None:
        if self.beam <= 0:
            raise ValueError(f"beam is {self.beam}; it has to be positive (10 to 16 is usual)")
        if self.max_active < 1:
            raise ValueError(f"max_active is {self.max_active}; it has to be at least 1 (7000 is usual)")


@dataclass(frozen=True)
class AdaptationConfig(SearchConfig):
    """Adaptation to dev's and test's speakers, by what is recognised."""

    lm_weight: float = config_field(12.0, "The language model's weight in that first recognition.")
    passes: int = config_field(
        3, "Estimations of the transforms, each but the first from an alignment under those before.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lm_weight <= 0 or self.passes < 1:
            raise ValueError(f"lm_weight is {self.lm_weight}, passes {self.passes}; they have to be positive")


@dataclass(frozen=True)
class Graph:
    """A decoding graph in memory. Hold it as long as a decoder of it, which does not keep it alive."""

    fst: kaldifst.StdConstFst
    words: tuple[str, ...]  # by output label
    num_pdfs: int


@dataclass(frozen=True)
class Hypotheses:
    """What was recognised in a set of utterances, in the order of their archive."""

    words: dict[str, tuple[str, ...]]  # by utterance
    partial: tuple[str, ...]  # utterances that ended in no final state of the graph; their best path is kept


def read_graph(graph_dir: Path, word_insertion_penalty: float = 0.0) -> Graph:
    """The graph that `build_graph` wrote, with the penalty added to the cost of every word.

    Raises FileNotFoundError and ValueError for a graph that is not there or damaged.
    """
    fst, words, num_pdfs = read_graph_arrays(Path(graph_dir), word_insertion_penalty)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "HCLG.fst")
        write_arrays(path, fst)
        return Graph(kaldifst.StdConstFst.read(str(path)), words, num_pdfs)


def decode(
    graph: Graph, log_likelihoods: np.ndarray, lm_weight: float, config: SearchConfig
) -> tuple[tuple[str, ...], bool]:
    """The words of an utterance, and whether the search ended in a final state; else the best path's so far.

    log_likelihoods: [T, S]. Raises ValueError for a matrix that is empty, not finite or not as wide as S.
    """
    if log_likelihoods.ndim != 2 or log_likelihoods.shape[1] != graph.num_pdfs:
        raise ValueError(f"log-likelihoods of shape {list(log_likelihoods.shape)} for a graph of "
                         f"{graph.num_pdfs} pdf-ids; use a model and a graph that come from the same HMM")
    if not len(log_likelihoods) or not np.isfinite(log_likelihoods).all():
        raise ValueError("log-likelihoods without frames, or not all finite; compute them again")
    options = kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active)
    decoder = kaldi_decoder.FasterDecoder(graph.fst, options)
    scaled = np.float32(log_likelihoods / lm_weight)
    decoder.decode(kaldi_decoder.DecodableCtc(scaled))  # an input label less 1 is a column
    found, path = decoder.get_best_path()
    labels = kaldifst.get_linear_symbol_sequence(path)[2] if found else []
    return tuple(graph.words[label] for label in labels), decoder.reached_final()


def decode_grid(
    scp: Path,
    graph_dir: Path,
    lm_weights: Sequence[float],
    word_insertion_penalties: Sequence[float],
    config: SearchConfig,
    jobs: int,
) -> dict[Setting, Hypotheses]:
    """The words of every utterance of an archive of log-likelihoods, by LM weight and insertion penalty.

    Works in `jobs` processes that read the archive themselves; the results do not depend on their number.
    Raises what `decode` does, naming the utterance, and what `read_scp`, `read_matrix` and `read_graph` do.
    """
    places = list(read_scp(scp).items())
    num_shares = min(len(places), 4 * jobs if jobs > 1 else 1)  # smaller than a job's part: jobs end together
    settings = list(itertools.product(lm_weights, word_insertion_penalties))
    shares = [(places[i::num_shares], graph_dir, settings, config) for i in range(num_shares)]
    decoded = {}
    for share in parallel_map(_decode_share, shares, jobs, f"decoding {scp}"):
        decoded |= share
    grid = {}
    for setting in settings:
        words = {utterance: decoded[utterance][setting][0] for utterance, _ in places}
        partial = tuple(utterance for utterance in words if not decoded[utterance][setting][1])
        grid[setting] = Hypotheses(words, partial)
        if partial:
            log.warning("%s: LM weight %g, word insertion penalty %g: %d of %d utterances end in no final "
                        "state; their best partial paths count: %s", scp, *setting, len(partial), len(words),
                        " ".join(partial))
    return grid


def _decode_share(
    places: Sequence[tuple[str, str]], graph_dir: Path, settings: Sequence[Setting], config: SearchConfig
) -> dict[str, dict[Setting, tuple[tuple[str, ...], bool]]]:
    """What `decode` returns for each (utterance, place of its matrix) at every setting."""
    graphs = {penalty: read_graph(graph_dir, penalty) for penalty in {penalty for _, penalty in settings}}
    decoded = {}
    for utterance, place in places:
        log_likelihoods = read_matrix(place)
        try:
            decoded[utterance] = {
                (weight, penalty): decode(graphs[penalty], log_likelihoods, weight, config)
                for weight, penalty in settings
            }
        except ValueError as error:
            raise ValueError(f"{place}: utterance {utterance}: {error}") from error
    return decoded
