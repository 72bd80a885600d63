"""Decoding and forced alignment with k2 (https://k2-fsa.github.io/k2/): lattices, in batches, on a CPU or a GPU.

k2 works on the graphs that kaldi-decoder and decant.hmm.alignment search (HCLG.fst, state graphs), with the same costs:
the graph's at scale 1, log-likelihoods divided by the language model weight. Its dense intersection follows no epsilon,
so input epsilons are removed first, after which an arc may give out several words.

k2 is built for one exact torch. So this module, with its command line (decant.search.k2_command), runs in an
environment of its own (`make .venv-k2/installed`), takes all it needs from files, imports nothing that needs kaldifst
or torchaudio, and works with torch 1.13.1 and later.

The letters: T frames, S pdf-ids, A arcs.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from decant.feat.archive import read_matrices, read_scp
from decant.progress import progress
from decant.search.fst_arrays import FstArrays, read_graph_arrays
from decant.search.lattice import Lattice, frames_before

try:
    import k2
except ImportError as error:
    raise ImportError(
        f"k2 cannot be imported by {sys.executable} ({error}): `make .venv-k2/installed` makes an environment for it, "
        "to be called as .venv-k2/bin/python; or install the wheel for your own torch from "
        "https://k2-fsa.github.io/k2/") from error

log = logging.getLogger("decant.search.k2_search")

K2_ARC = np.dtype([("source", "<i4"), ("target", "<i4"), ("label", "<i4"), ("score", "<f4")])  # k2/csrc/fsa.h
MIN_ACTIVE = 20  # states of a frame below which the beam is widened; kaldi-decoder's default
Batch = list[tuple[str, np.ndarray]]  # (utterance, log-likelihoods [T, S]), the longest first


@dataclass(frozen=True)
class K2SearchConfig:
    beam: float = 13.0  # a state that costs this much more than the frame's best is given up
    max_active: int = 7000  # states of a frame above which the beam is narrowed
    lattice_beam: float = 8.0  # the lattice keeps the paths that cost at most this much more than the best

    def __post_init__(self) -> None:
        if self.beam <= 0 or self.lattice_beam <= 0:
            raise ValueError(f"beam is {self.beam}, lattice_beam {self.lattice_beam}; they have to be positive "
                             "(10 to 16 and 6 to 10 are usual)")
        if self.max_active <= MIN_ACTIVE:
            raise ValueError(f"max_active is {self.max_active}; it has to be above {MIN_ACTIVE} (7000 is usual)")


@dataclass(frozen=True)
class K2Graph:
    """fsa: a vector of one transducer without epsilons. Scores are negative costs, and so are graph_scores, which
    lattices keep apart; labels, pdf-ids + 1; aux_labels, indices into `words`, sequences of words, of which the first
    is empty."""

    fsa: k2.Fsa
    words: Sequence[tuple[str, ...]]
    num_pdfs: int


@dataclass(frozen=True)
class Hypothesis:
    """cost: of the path through the graph and of its log-likelihoods / LM weight. times: the frame, from 0, in which
    the path gives out each word. That is inside the word or at its end, where the graph can tell it from all others,
    not where it begins. partial: no path reached a final state of the graph, this is the best so far."""

    words: tuple[str, ...]
    cost: float
    times: tuple[int, ...]
    partial: bool = False


def to_arcs(fst: FstArrays) -> tuple[np.ndarray, np.ndarray]:
    """The transducer as k2 has it: it starts in state 0, and arcs with label -1 lead to one final state, the last.

    Returns arcs (K2_ARC [A]), sorted by source, and the output label of each, int32 [A].
    """
    num_states, ends = len(fst.final), np.flatnonzero(np.isfinite(fst.final))
    number = np.arange(num_states + 1)
    number[[0, fst.start]] = fst.start, 0
    arcs = np.empty(len(fst.arcs) + len(ends), K2_ARC)
    arcs["source"] = number[np.append(fst.sources, ends)]
    arcs["target"] = number[np.append(fst.arcs["target"], np.full_like(ends, num_states))]
    arcs["label"] = np.append(fst.arcs["input"], np.full_like(ends, -1))
    arcs["score"] = -np.append(fst.arcs["cost"], fst.final[ends])
    order = np.argsort(arcs["source"], kind="stable")
    return arcs[order], np.append(fst.arcs["output"], np.zeros(len(ends), np.int32))[order]


def to_fsa(arcs: np.ndarray, aux_labels: np.ndarray) -> k2.Fsa:
    """What `to_arcs` returned, as an Fsa."""
    return k2.Fsa(torch.from_numpy(arcs.view(np.int32).reshape(-1, 4)), aux_labels=torch.from_numpy(aux_labels))


def fold_words(arcs: np.ndarray, words: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """The same paths without input epsilons that give out words, of which k2.remove_epsilon keeps only the cheapest
    between two states: each becomes copies of the arcs that follow it, with its word in front of theirs.

    Takes and returns arcs (K2_ARC, sorted by source), and their output labels. The labels returned are indices into the
    list returned third, of sequences of words: 0 is none, a word's number that word alone. The arcs of a state come in
    reverse: of paths that cost the same, as homophones' may, k2 takes the last arc and kaldi-decoder the first.
    """
    sequences = [(), *((number,) for number in range(1, words.max() + 1))]
    index = {sequence: number for number, sequence in enumerate(sequences)}
    degree = np.bincount(arcs["source"], minlength=arcs["target"].max() + 1)
    first = np.cumsum(degree) - degree
    kept_arcs, kept_words, kept_places = [], [], []
    new_arcs, new_words, places = arcs, words, np.arange(len(arcs))
    while len(new_arcs):
        fold = (new_arcs["label"] == 0) & (new_words > 0)
        kept_arcs.append(new_arcs[~fold])
        kept_words.append(new_words[~fold])
        kept_places.append(places[~fold])
        folded = np.repeat(np.flatnonzero(fold), degree[new_arcs["target"][fold]])
        copied = np.concatenate([np.arange(0), *(np.arange(first[state], first[state] + degree[state])
                                                 for state in new_arcs["target"][fold])])
        score = new_arcs["score"][folded] + arcs["score"][copied]
        longer = [sequences[a] + sequences[b] for a, b in zip(new_words[folded], words[copied], strict=True)]
        for sequence in longer:
            if sequence not in index:
                index[sequence] = len(sequences)
                sequences.append(sequence)
        source, places = new_arcs["source"][folded], places[folded]
        new_arcs, new_words = arcs[copied], np.array([index[sequence] for sequence in longer], np.int32)
        new_arcs["source"], new_arcs["score"] = source, score
    arcs, words = np.concatenate(kept_arcs), np.concatenate(kept_words)
    order = np.lexsort((-np.concatenate(kept_places), arcs["source"]))
    return arcs[order], words[order], sequences


def read_graph(graph_dir: Path, word_insertion_penalty: float = 0.0, device: str = "cpu",
               ends_anywhere: bool = False) -> K2Graph:
    """The graph that decant.search.decoding_graph.build_graph wrote, with the penalty added to the cost of every word.

    ends_anywhere: every state is final, at no cost. Raises FileNotFoundError and ValueError for a graph that is not
    there or damaged.
    """
    fst, words, num_pdfs = read_graph_arrays(Path(graph_dir), word_insertion_penalty)
    if ends_anywhere:
        fst = replace(fst, final=np.zeros_like(fst.final))
    k2_arcs, labels, sequences = fold_words(*to_arcs(fst))
    fsa = k2.remove_epsilon(to_fsa(k2_arcs, labels))
    if isinstance(fsa.aux_labels, k2.RaggedTensor):  # of the arcs that each was made of; at most one of them has any
        has_label = fsa.aux_labels.shape.row_splits(1).diff() > 0
        fsa.aux_labels = has_label.int().masked_scatter(has_label, fsa.aux_labels.values)
    fsa = k2.create_fsa_vec([k2.connect(fsa)]).to(device)
    fsa.graph_scores = fsa.scores.clone()
    return K2Graph(fsa, [tuple(words[number] for number in sequence) for sequence in sequences], num_pdfs)


def read_batches(scp: Path, num_pdfs: int, max_frames: int) -> Iterator[Batch]:
    """The utterances of an archive, in its order, in batches of at most `max_frames` frames (or one utterance).

    Raises what `read_matrices` does, and ValueError for a matrix that is empty, not finite or not as wide as S.
    """
    batch: Batch = []
    for utterance, x in progress(read_matrices(scp), len(read_scp(scp)), str(scp)):
        if x.ndim != 2 or x.shape[1] != num_pdfs:
            raise ValueError(f"{scp}: utterance {utterance}: log-likelihoods of shape {list(x.shape)} for a graph of "
                             f"{num_pdfs} pdf-ids; use a model and a graph that come from the same HMM")
        if not len(x) or not np.isfinite(x).all():
            raise ValueError(f"{scp}: utterance {utterance}: log-likelihoods without frames, or not all finite; "
                             "compute them again")
        if batch and sum(len(other) for _, other in batch) + len(x) > max_frames:
            yield _longest_first(batch)
            batch = []
        batch.append((utterance, x))
    yield _longest_first(batch)


def _longest_first(batch: Batch) -> Batch:
    return sorted(batch, key=lambda item: -len(item[1]))  # as DenseFsaVec wants them


def dense_fsas(batch: Batch, lm_weight: float, device: torch.device | str) -> k2.DenseFsaVec:
    """The log-likelihoods / LM weight as k2 intersects them: label 0 has a column too, which no arc uses."""
    padded = pad_sequence([torch.from_numpy(np.float32(x / lm_weight)) for _, x in batch], batch_first=True)
    scores = torch.nn.functional.pad(padded, (1, 0))
    segments = torch.tensor([[i, 0, len(x)] for i, (_, x) in enumerate(batch)], dtype=torch.int32)
    return k2.DenseFsaVec(scores.to(device), segments)


def lattices(graph: K2Graph, batch: Batch, lm_weight: float, config: K2SearchConfig) -> k2.Fsa:
    """The lattices of a batch, in its order; empty where no path within the beam reached a final state."""
    return k2.intersect_dense_pruned(
        graph.fsa, dense_fsas(batch, lm_weight, graph.fsa.device), search_beam=config.beam,
        output_beam=config.lattice_beam, min_active_states=MIN_ACTIVE, max_active_states=config.max_active)


def unpacked(fsas: k2.Fsa, words: Sequence[tuple[str, ...]], lm_weight: float) -> list[Lattice]:
    """The transducers of a vector, each state's arcs leading to later ones, in numpy; k2 leaves arcs that lead to no
    final state in its lattices, and they are left out."""
    shape, arcs, scores = fsas.arcs.shape(), fsas.arcs.values(), fsas.scores.double()
    first_states = shape.row_splits(1).long()
    first_state = first_states[shape.row_ids(1)[shape.row_ids(2).long()].long()]  # of each arc's transducer
    sources, targets = (first_state + arcs[:, column] for column in (0, 1))
    through = fsas.get_forward_scores(True, False)[sources] + fsas.get_backward_scores(True, False)[targets]
    kept = torch.isfinite(through).nonzero()[:, 0]
    graph_scores = fsas.graph_scores.double()
    arcs, labels, graph, acoustic = (x[kept].cpu().numpy() for x in (
        arcs, fsas.aux_labels, -graph_scores, (graph_scores - scores) * lm_weight))
    first_arcs = np.searchsorted(kept.cpu().numpy(), shape.row_splits(2)[first_states].cpu().numpy()).tolist()
    unpacked = []
    for i, num_states in enumerate(first_states.diff().tolist()):
        its = slice(*first_arcs[i:i + 2])
        levels = frames_before(num_states, 0, arcs[its, 0], arcs[its, 1], np.ones(len(arcs[its]), bool))
        unpacked.append(Lattice(arcs[its, 0], arcs[its, 1], graph[its], acoustic[its], labels[its], words, levels))
    return unpacked


def best_hypotheses(lattice: k2.Fsa, words: Sequence[tuple[str, ...]], lm_weight: float,
                    partial: bool = False) -> list[Hypothesis | None]:
    """The best path of each lattice of a vector; None for an empty one."""
    paths = unpacked(k2.shortest_path(lattice, use_double_scores=True), words, lm_weight)
    return [_hypothesis(path, lm_weight, partial) if len(path.labels) else None for path in paths]


def _hypothesis(path: Lattice, lm_weight: float, partial: bool) -> Hypothesis:
    num_frames = len(path.labels) - 1  # an arc a frame, and one into the final state
    given_out = [(word, min(t, num_frames - 1)) for t, label in enumerate(path.labels.tolist())
                 for word in path.words[label]]
    cost = float(path.graph_costs.sum() + path.acoustic_costs.sum() / lm_weight)
    return Hypothesis(tuple(word for word, _ in given_out), cost, tuple(t for _, t in given_out), partial)


def decode(scp: Path, graph_dir: Path, lm_weight: float, config: K2SearchConfig, word_insertion_penalty: float = 0.0,
           device: str = "cpu", max_frames: int = 30_000,
           read: Callable[..., K2Graph] = read_graph) -> Iterator[tuple[str, Hypothesis, Lattice]]:
    """(utterance, its best path, its lattice) for each utterance of an archive of log-likelihoods; batches of at most
    `max_frames` frames, the longest utterance of each first.

    An utterance that reaches no final state is decoded once more with all states final, as kaldi-decoder does. read: a
    `read_graph` that remembers what it read serves several calls. Raises ValueError for an LM weight that is not
    positive, and what `read_graph` and `read_batches` do.
    """
    if lm_weight <= 0:
        raise ValueError(f"the LM weight is {lm_weight}; it has to be positive (4 to 17 is usual)")
    graph = read(graph_dir, word_insertion_penalty, device)
    anywhere = None
    for batch in read_batches(scp, graph.num_pdfs, max_frames):
        lattice = lattices(graph, batch, lm_weight, config)
        best = best_hypotheses(lattice, graph.words, lm_weight)
        for item, hypothesis, its_lattice in zip(batch, best, unpacked(lattice, graph.words, lm_weight), strict=True):
            if hypothesis is None:
                anywhere = anywhere or read(graph_dir, word_insertion_penalty, device, ends_anywhere=True)
                again = lattices(anywhere, [item], lm_weight, config)
                [hypothesis] = best_hypotheses(again, graph.words, lm_weight, partial=True)
                [its_lattice] = unpacked(again, graph.words, lm_weight)
            if hypothesis is None:
                raise ValueError(f"{scp}: utterance {item[0]}: no path within the beam, {config.beam}; widen it")
            yield item[0], hypothesis, its_lattice


def align(graphs: Mapping[str, FstArrays], scp: Path, num_pdfs: int, device: str = "cpu",
          max_frames: int = 10_000) -> Iterator[tuple[str, np.ndarray | None, float]]:
    """(utterance, int32 [T] pdf-ids of its best path through its graph, the path's cost), exact (no beam), the longest
    utterance of each batch first; None and inf where the frames are too few to reach a final state.

    Raises what `read_batches` does, and ValueError for an utterance without a graph.
    """
    for batch in read_batches(scp, num_pdfs, max_frames):
        if missing := [utterance for utterance, _ in batch if utterance not in graphs]:
            raise ValueError(f"{scp}: utterance {missing[0]} has no state graph; write the graphs of all utterances")
        fsas = k2.create_fsa_vec([to_fsa(*to_arcs(graphs[utterance])) for utterance, _ in batch]).to(device)
        kept = k2.intersect_dense(k2.arc_sort(fsas), dense_fsas(batch, 1.0, device), output_beam=1.0)
        paths = k2.shortest_path(kept, use_double_scores=True)
        first_arcs = paths.arcs.shape().row_splits(2)[paths.arcs.shape().row_splits(1).long()].tolist()
        labels, scores = paths.labels.cpu().numpy(), paths.scores.double().cpu().numpy()
        for (utterance, _), first, end in zip(batch, first_arcs[:-1], first_arcs[1:], strict=True):
            if first == end:
                yield utterance, None, float("inf")
            else:
                yield utterance, labels[first:end - 1] - 1, float(-scores[first:end].sum())  # the last arc: to the end


def can_use_gpu() -> bool:
    """Whether a GPU is there that k2 computes on: its builds lack the GPUs that are newer than they are."""
    try:
        return torch.cuda.is_available() and bool(k2.linear_fsa([1]).to("cuda").get_tot_scores(True, False).isfinite())
    except RuntimeError as error:
        log.info("k2 works on the CPU: it cannot use the GPU here (%s)", str(error).partition("\n")[0])
        return False
