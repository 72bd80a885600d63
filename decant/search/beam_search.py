"""Beam search: from log-likelihoods of the pdf-ids to words, through a decoding graph.

kaldi-decoder's FasterDecoder is a Viterbi search that keeps, at each frame, the states within a beam of the
best. As in Kaldi, costs of the graph stay at scale 1 and log-likelihoods are divided by the language model
weight, so that the beam is one of graph costs; a word insertion penalty is a cost added for every word. To tell
what many weights and penalties would give, a lattice of one search is enough (decant.search.lattice).

The letters: T frames, S pdf-ids.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import kaldi_decoder
import kaldifst
import numpy as np

from decant.lang.mapped_model import read_mapped
from decant.parallel import parallel_stream
from decant.search.fst_arrays import map_fst, read_graph_arrays, write_arrays
from decant.search.lattice import Lattice, Setting, best_words
from decant.search.lattice_search import search_lattice
from decant.search.rescoring import Rescorer
from decant.settings import config_field


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
class LatticeSearch(SearchConfig):
    """One search for all settings. lm_weight: at which it searches. lattice_beam: it keeps the paths that cost at most
    this much more than the best. language_models: a folder with the graph's and a larger one, which scores the lattices
    again (Experiment.language_models). kaldi-decoder has no max_active here."""

    lm_weight: float = 10.0
    lattice_beam: float = 8.0
    language_models: Path | None = None


@dataclass(frozen=True)
class Graph:
    """A decoding graph in memory. Hold it as long as a decoder of it, which does not keep it alive."""

    fst: kaldifst.StdConstFst
    words: tuple[str, ...]  # by output label
    num_pdfs: int


@dataclass(frozen=True)
class Hypotheses:
    """What was recognised in a set of utterances, in the order in which they came."""

    words: dict[str, tuple[str, ...]]  # by utterance
    partial: tuple[str, ...]  # utterances that ended in no final state of the graph; their best path is kept
    rescored: dict[str, tuple[str, ...]] = field(default_factory=dict)  # the words with a larger language model, if any


def read_graph(graph_dir: Path, word_insertion_penalty: float = 0.0) -> Graph:
    """The graph that `build_graph` wrote, with the penalty added to the cost of every word.

    Without a penalty the graph's file is mapped, and its memory shared by all processes that search it.
    Raises FileNotFoundError and ValueError for a graph that is not there or damaged.
    """
    graph_dir = Path(graph_dir)
    fst, words, num_pdfs = read_graph_arrays(graph_dir, word_insertion_penalty)
    if not word_insertion_penalty:
        return Graph(map_fst(graph_dir / "HCLG.fst"), words, num_pdfs)
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "HCLG.fst")
        write_arrays(path, fst)
        return Graph(map_fst(path), words, num_pdfs)


def decode(
    graph: Graph, log_likelihoods: np.ndarray, lm_weight: float, config: SearchConfig
) -> tuple[tuple[str, ...], bool]:
    """The words of an utterance, and whether the search ended in a final state; else the best path's so far.

    log_likelihoods: [T, S]. Raises ValueError for a matrix that is empty, not finite or not as wide as S.
    """
    check_scores(graph, log_likelihoods)
    options = kaldi_decoder.FasterDecoderOptions(beam=config.beam, max_active=config.max_active)
    decoder = kaldi_decoder.FasterDecoder(graph.fst, options)
    scaled = np.float32(log_likelihoods / lm_weight)
    decoder.decode(kaldi_decoder.DecodableCtc(scaled))  # an input label less 1 is a column
    found, path = decoder.get_best_path()
    labels = kaldifst.get_linear_symbol_sequence(path)[2] if found else []
    return tuple(graph.words[label] for label in labels), decoder.reached_final()


def check_scores(graph: Graph, log_likelihoods: np.ndarray) -> None:
    """Raises ValueError for a matrix that is empty, not finite or not as wide as the graph has pdf-ids."""
    if log_likelihoods.ndim != 2 or log_likelihoods.shape[1] != graph.num_pdfs:
        raise ValueError(f"log-likelihoods of shape {list(log_likelihoods.shape)} for a graph of "
                         f"{graph.num_pdfs} pdf-ids; use a model and a graph that come from the same HMM")
    if not len(log_likelihoods) or not np.isfinite(log_likelihoods).all():
        raise ValueError("log-likelihoods without frames, or not all finite; compute them again")


def decode_grid(
    scored: Iterable[tuple[str, np.ndarray]],
    graph_dir: Path,
    settings: Sequence[Setting],
    config: SearchConfig,
    jobs: int = 1,
) -> dict[Setting, Hypotheses]:
    """The words of every utterance with each setting, of a search each; with a LatticeSearch of one search, which holds
    the best path of a setting as far as its beams reach. scored: (utterance, log-likelihoods float32 [T, S]).

    Log-likelihoods are searched as they come, in `jobs` processes, and no more of them are kept than these have work
    with; the results do not depend on their number. Raises what `decode` does, naming the utterance, and what
    `read_graph` does.
    """
    grid = {setting: Hypotheses({}, ()) for setting in settings}
    for part in _by_parts(_decode_part, scored, graph_dir, jobs, settings, config):
        for utterance, by_setting in part:
            for setting, (words, whole, *rescored) in zip(settings, by_setting, strict=True):
                grid[setting].words[utterance] = words
                grid[setting].rescored.update((utterance, others) for others in rescored)
                if not whole:
                    grid[setting] = replace(grid[setting], partial=(*grid[setting].partial, utterance))
    return grid


def _by_parts(function: Callable[..., list], scored: Iterable[tuple[str, np.ndarray]], graph_dir: Path, jobs: int,
              *arguments: Any) -> Iterator[list]:
    """function(part, read, *arguments) of parts of the utterances as they come; read: the graph by a penalty."""
    if jobs <= 1:
        read = cache(partial(read_graph, graph_dir))
        yield from (function(part, read, *arguments) for part in _parts(scored))
    else:
        read_graph(graph_dir)  # a fault of the graph is told here, once
        tasks = ((function, part, graph_dir, *arguments) for part in _parts(scored))
        yield from parallel_stream(_in_worker, tasks, jobs)


Part = list[tuple[str, np.ndarray]]
# An utterance, and at every setting what `decode` returns, and the words with a larger language model if there is one.
Found = tuple[str, list[tuple]]
PART_BYTES = 2**25  # of log-likelihoods that a process is given at a time


def _parts(scored: Iterable[tuple[str, np.ndarray]]) -> Iterator[Part]:
    part: Part = []
    for utterance, log_likelihoods in scored:
        part.append((utterance, log_likelihoods))
        if sum(x.nbytes for _, x in part) >= PART_BYTES:
            yield part
            part = []
    if part:
        yield part


def _decode_part(part: Part, read: Callable[[float], Graph], settings: Sequence[Setting],
                 config: SearchConfig) -> list[Found]:
    if isinstance(config, LatticeSearch):
        return _from_lattices(part, read(0.0), settings, config)
    _check_part(read(settings[0][1]), part)
    return [(utterance, [decode(read(penalty), log_likelihoods, weight, config) for weight, penalty in settings])
            for utterance, log_likelihoods in part]


def _check_part(graph: Graph, part: Part) -> None:
    for utterance, log_likelihoods in part:
        try:
            check_scores(graph, log_likelihoods)
        except ValueError as error:
            raise ValueError(f"utterance {utterance}: {error}") from error


def _from_lattices(part: Part, graph: Graph, settings: Sequence[Setting], config: LatticeSearch) -> list[Found]:
    searched = search_lattices(graph, part, config)
    whole = {utterance: whole for utterance, _, whole in searched}
    lattices = {utterance: lattice for utterance, lattice, _ in searched if lattice}
    words = [_best_words(lattices, settings)]
    if config.language_models:
        rescore = _rescorer(config.language_models, graph.words)
        words.append(_best_words({utterance: rescore(lattice, whole[utterance], (config.lm_weight, 0.0))
                                  for utterance, lattice in lattices.items()}, settings))
    nothing = [()] * len(settings)
    return [(utterance, [(first, whole[utterance], *rescored) for first, *rescored in zip(
        *(found.get(utterance, nothing) for found in words), strict=True)]) for utterance in whole]


def _best_words(lattices: dict[str, Lattice], settings: Sequence[Setting]) -> dict[str, list[tuple[str, ...]]]:
    return dict(zip(lattices, best_words(list(lattices.values()), settings), strict=True)) if lattices else {}


@cache
def _rescorer(language_models: Path, words: tuple[str, ...]) -> Rescorer:
    first, larger = (read_mapped(language_models / name) for name in ("first", "larger"))
    return Rescorer(first, larger, _outputs(words))


def _outputs(words: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """By output label the words that an arc gives out."""
    return (), *((word,) for word in words[1:])


def search_lattices(graph: Graph, part: Part, config: LatticeSearch) -> list[tuple[str, Lattice | None, bool]]:
    """(utterance, its lattice, whether it ends in final states); no lattice where the beam holds no path to the end."""
    _check_part(graph, part)
    words = _outputs(graph.words)
    with TemporaryDirectory() as scratch:
        return [(utterance, *search_lattice(graph.fst, words, log_likelihoods, config.lm_weight, config.beam,
                                            config.lattice_beam, Path(scratch, "lattice.fst")))
                for utterance, log_likelihoods in part]


_graph_of_worker = cache(read_graph)  # a worker serves one grid, and reads its graph once


def _in_worker(function: Callable[..., list], part: Part, graph_dir: Path, *arguments: Any) -> list:
    return function(part, partial(_graph_of_worker, graph_dir), *arguments)
