"""Forced alignment: the most probable HMM state of every frame, given the transcript; many utterances at once.

The letters: B utterances of a batch, T frames, N graph states, K predecessors, S pdf-ids, P of them in a transcript.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from decant.hmm.topology import EXIT, NUM_COLUMNS, StateGraph
from decant.parallel import parallel_map

LogLikelihoods = Callable[[Tensor, Tensor], Tensor]
"""(an utterance's features [T, ...], pdf-ids int64 [P]) -> their log-likelihoods, float32 [T, P]."""


@dataclass(frozen=True)
class BestPath:
    """An utterance's best path. states: int64 [T] in its graph; pdfs: int64 [T]; log_prob: of the whole path."""

    states: np.ndarray
    pdfs: np.ndarray
    log_prob: float


def _padded(arrays: Sequence[np.ndarray], shape: tuple[int, ...], fill: float, device: torch.device) -> Tensor:
    out = np.full((len(arrays), *shape), fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return torch.from_numpy(out).to(device)


def viterbi(graphs: Sequence[StateGraph], log_likelihoods: Sequence[Tensor]) -> list[BestPath | None]:
    """The best path of every utterance, exact (no beam).

    log_likelihoods: float32 [T, S] of each utterance, all on one device. None stands for an utterance whose final
    state no path reaches: it has fewer frames than its transcript has states. Raises FloatingPointError where they are
    NaN or infinite.
    """
    device = log_likelihoods[0].device
    lengths = torch.tensor([len(x) for x in log_likelihoods], device=device)
    num_frames, batch = int(lengths.max()), len(graphs)
    n = max(len(g.pdfs) for g in graphs)
    k = max(g.predecessors.shape[1] for g in graphs)
    pdfs = _padded([g.pdfs for g in graphs], (n,), 0, device)
    predecessors = _padded([g.predecessors.T for g in graphs], (k, n), 0, device)
    log_probs = _padded([g.log_probs.T for g in graphs], (k, n), -np.inf, device)
    scores = torch.nn.utils.rnn.pad_sequence(list(log_likelihoods))  # [T, B, S]

    # Only the scores are kept: which predecessor was the best is asked again on the way back, of one state a frame.
    best = scores.new_empty(num_frames, batch, n)
    best[0] = _padded([g.initial for g in graphs], (n,), -np.inf, device) + scores[0].gather(1, pdfs)
    for t in range(1, num_frames):
        candidates = best[t - 1].gather(1, predecessors.view(batch, k * n)).view(batch, k, n).add_(log_probs)
        value = candidates.amax(dim=1).add_(scores[t].gather(1, pdfs))
        torch.where((t < lengths)[:, None], value, best[t - 1], out=best[t])
    total, state = (best[-1] + _padded([g.final for g in graphs], (n,), -np.inf, device)).max(dim=1)

    states = torch.zeros((num_frames, batch), dtype=torch.int64, device=device)
    rows = torch.arange(batch, device=device)
    for t in range(num_frames - 1, 0, -1):
        states[t] = state
        before = predecessors[rows, :, state]
        choice = (best[t - 1].gather(1, before) + log_probs[rows, :, state]).argmax(dim=1, keepdim=True)
        state = torch.where(t < lengths, before.gather(1, choice)[:, 0], state)
    states[0] = state
    all_states, totals = states.cpu().numpy(), total.cpu().numpy()
    if not (totals < np.inf).all():  # -inf: no path; NaN is not less
        raise FloatingPointError("log-likelihoods are NaN or infinite; look at the model and the features")
    paths: list[BestPath | None] = []
    for b, graph in enumerate(graphs):
        mine = all_states[:len(log_likelihoods[b]), b]
        paths.append(BestPath(mine, graph.pdfs[mine], float(totals[b])) if np.isfinite(totals[b]) else None)
    return paths


def batches(lengths: Sequence[int], max_frames: int = 15_000) -> Iterator[list[int]]:
    """Indices in batches of similar length, each of at most `max_frames` frames with its padding (or one utterance)."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and lengths[i] * (len(batch) + 1) > max_frames:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def own_scores(graph: StateGraph, features: Tensor, log_likelihoods: LogLikelihoods) -> tuple[StateGraph, Tensor]:
    """The graph with its own pdf-ids numbered from 0, and their log-likelihoods alone: float32 [T, P]."""
    pdfs, places = np.unique(graph.pdfs, return_inverse=True)
    return replace(graph, pdfs=places), log_likelihoods(features, torch.from_numpy(pdfs))


def align(graphs: Sequence[StateGraph], features: Sequence[Tensor], log_likelihoods: LogLikelihoods,
          jobs: int = 1) -> list[BestPath | None]:
    """The best path of every utterance; None where no path reaches the end.

    features: [T, ...] of every utterance on the CPU, what `log_likelihoods` takes. Works in `jobs` processes, to which
    `log_likelihoods` goes with them (threads wait for one another: a search is many small steps), or in this one.
    """
    paths: list[BestPath | None] = [None] * len(graphs)
    order = list(batches([len(x) for x in features]))
    tasks = [([graphs[i] for i in batch], [features[i].numpy() for i in batch], log_likelihoods) for batch in order]
    for batch, found in zip(order, parallel_map(_align_batch, tasks, jobs, "alignment"), strict=True):
        for i, path in zip(batch, found, strict=True):
            paths[i] = path
    return paths


def _align_batch(graphs: Sequence[StateGraph], features: Sequence[np.ndarray],
                 log_likelihoods: LogLikelihoods) -> list[BestPath | None]:
    own, scores = zip(*(own_scores(graph, torch.from_numpy(x), log_likelihoods)
                        for graph, x in zip(graphs, features, strict=True)), strict=True)
    width = max(x.shape[1] for x in scores)
    found = viterbi(own, [pad(x, (0, width - x.shape[1])) for x in scores])
    return [None if path is None else replace(path, pdfs=graph.pdfs[path.states])
            for path, graph in zip(found, graphs, strict=True)]


def transition_counts(graph: StateGraph, states: np.ndarray, num_pdfs: int) -> np.ndarray:
    """How often each pdf-id was followed by each state of its phone on the path, or its phone was left: [S, 6], the
    columns of TransitionModel.probs."""
    stays = np.append(np.diff(graph.phone_instance[states]) == 0, False)
    columns = np.where(stays, np.roll(graph.phone_state[states], -1), EXIT)
    counts = np.zeros((num_pdfs, NUM_COLUMNS))
    np.add.at(counts, (graph.pdfs[states], columns), 1)
    return counts


def equal_alignment(graph: StateGraph, num_frames: int) -> np.ndarray | None:
    """A path of states [T] for the flat start: silence at both ends, none between words, the last pronunciation of
    each word, equally many frames for every state. None if there are fewer frames than states."""
    state = int(np.flatnonzero(np.isfinite(graph.final))[-1])  # of the last silence
    chain = []
    while state >= 0:
        chain.append(state)
        # State graphs list predecessors with silence first; a smaller number is an earlier state.
        earlier = graph.predecessors[state][np.isfinite(graph.log_probs[state]) & (graph.predecessors[state] < state)]
        state = int(earlier[-1]) if len(earlier) else -1
    if num_frames < len(chain):
        return None
    return np.array(chain[::-1])[np.arange(num_frames) * len(chain) // num_frames]
