"""Forced alignment: the most probable HMM state of every frame, given the transcript; many utterances at once.

The letters: B utterances of a batch, T frames, N graph states, K predecessors, S pdf-ids, P of them in a transcript.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from decant.hmm.state_tying import NUM_SILENCE_STATES
from decant.hmm.topology import EXIT, NUM_COLUMNS, StateGraph
from decant.parallel import parallel_map

LogLikelihoods = Callable[[Tensor, Tensor], Tensor]
"""(an utterance's features [T, ...], pdf-ids int64 [P]) -> their log-likelihoods, float32 [T, P]."""

MAX_FRAMES = 60_000  # of a batch with its padding: within a beam, a frame has some 200 states; without, 1000
BLOCK = 16  # frames between two looks at the beam
BACK = NUM_SILENCE_STATES  # states that an arc may go back, among those of silence
WIDER = 4.0  # how many times as wide a beam is tried where one fails (Kaldi: retry-beam 40 after 10)


@dataclass(frozen=True)
class BestPath:
    """An utterance's best path. states: int64 [T] in its graph; pdfs: int64 [T]; log_prob: of the whole path."""

    states: np.ndarray
    pdfs: np.ndarray
    log_prob: float
    beam: float = math.inf  # that found it


def _padded(arrays: Sequence[np.ndarray], shape: tuple[int, ...], fill: float, device: torch.device) -> Tensor:
    out = np.full((len(arrays), *shape), fill, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return torch.from_numpy(out).to(device)


def viterbi(graphs: Sequence[StateGraph], log_likelihoods: Sequence[Tensor],
            beam: float = math.inf) -> list[BestPath | None]:
    """The best path of every utterance; exact without a beam.

    log_likelihoods: float32 [T, S] of each utterance, all on one device. beam: natural log-probability; every BLOCK
    frames, the states from the first to the last whose best path is no more than this behind the best one go on, and
    those that can be reached from them. None stands for an utterance whose final state no path reaches: it has fewer
    frames than its transcript has states, or the beam is too narrow. Raises FloatingPointError where they are NaN or
    infinite.
    """
    device, batch = log_likelihoods[0].device, len(graphs)
    n, k = max(len(g.pdfs) for g in graphs), max(g.predecessors.shape[1] for g in graphs)
    pdfs = _padded([g.pdfs for g in graphs], (n,), 0, device)
    predecessors = _padded([g.predecessors.T for g in graphs], (k, n), 0, device)
    log_probs = _padded([g.log_probs.T for g in graphs], (k, n), -np.inf, device)
    final = _padded([g.final for g in graphs], (n,), -np.inf, device)
    reach = _padded([_reach(g, BLOCK) for g in graphs], (n,), 0, device)
    scores = torch.nn.utils.rnn.pad_sequence(list(log_likelihoods))  # [T, B, S]
    lengths = torch.tensor([len(x) for x in log_likelihoods], device=device)
    rows = torch.arange(batch, device=device)

    # Of each block its first frame, each utterance's first state, and [T, B, W], the best paths' log-probabilities.
    # Only these are kept: which predecessor was the best is asked again on the way back, of one state a frame.
    blocks: list[tuple[int, Tensor, Tensor]] = []
    low = lengths.new_zeros(batch)
    before = _padded([g.initial for g in graphs], (n,), -np.inf, device)  # frame 0 follows no other
    total, end = before.new_full((batch,), -np.inf), lengths.new_zeros(batch)
    for start in range(0, len(scores), BLOCK):
        low, width, before = _window(before, low, reach, beam)
        states, here, (sources, arcs) = _states(low, width, predecessors, log_probs)
        # [T, B, W]: what each state of the window says of each frame
        said = scores[start:start + BLOCK]
        said = said.gather(2, torch.where(here, pdfs.gather(1, states), 0).expand(len(said), -1, -1))
        best = torch.empty_like(said)
        for t in range(len(said)):
            if start + t == 0:
                value = before + said[0]
            else:
                candidates = before.gather(1, sources.view(batch, -1)).view(sources.shape).add_(arcs)
                value = candidates.amax(dim=1).add_(said[t])
            before = torch.where((start + t < lengths)[:, None], value, before, out=best[t])
        blocks.append((start, low, best))
        ended = (lengths > start) & (lengths <= start + len(said))
        value, place = (before + torch.where(here, final.gather(1, states), -np.inf)).max(dim=1)
        total, end = torch.where(ended, value, total), torch.where(ended, low + place, end)

    path = torch.zeros((len(scores), batch), dtype=torch.int64, device=device)
    state = end  # in its whole graph
    for number in range(len(blocks) - 1, -1, -1):
        start, low, best = blocks[number]
        for t in range(len(best) - 1, -1, -1):
            path[start + t] = state
            if start + t == 0:
                break
            source = predecessors[rows, :, state]
            earlier, offset = (best[t - 1], low) if t else (blocks[number - 1][2][-1], blocks[number - 1][1])
            place = source - offset[:, None]
            there = (place >= 0) & (place < earlier.shape[1])
            value = torch.where(there, earlier.gather(1, torch.where(there, place, 0)), -np.inf)
            choice = (value + log_probs[rows, :, state]).argmax(dim=1, keepdim=True)
            state = torch.where(start + t < lengths, source.gather(1, choice)[:, 0], state)
    all_states, totals = path.cpu().numpy(), total.cpu().numpy()
    if not (totals < np.inf).all():  # -inf: no path; NaN is not less
        raise FloatingPointError("log-likelihoods are NaN or infinite; look at the model and the features")
    paths: list[BestPath | None] = []
    for b, graph in enumerate(graphs):
        mine = all_states[:len(log_likelihoods[b]), b]
        paths.append(BestPath(mine, graph.pdfs[mine], float(totals[b])) if np.isfinite(totals[b]) else None)
    return paths


def _reach(graph: StateGraph, num_frames: int) -> np.ndarray:
    """The last state that any state up to each one can come to in so many frames: int64 [N]."""
    target, column = np.nonzero(np.isfinite(graph.log_probs))
    next_state = np.arange(len(graph.pdfs))
    np.maximum.at(next_state, graph.predecessors[target, column], target)
    next_state = np.maximum.accumulate(next_state)
    reached = next_state
    for _ in range(num_frames - 1):
        reached = next_state[reached]
    return reached


def _window(before: Tensor, low: Tensor, reach: Tensor, beam: float) -> tuple[Tensor, int, Tensor]:
    """The states that the next block looks at: each utterance's first one, int64 [B]; how many, W; and the
    log-probabilities `before` (float32 [B, W'], from the states `low` on) with the window's states as columns."""
    alive = before >= before.amax(dim=1, keepdim=True) - beam if beam < math.inf else torch.isfinite(before)
    columns = torch.arange(before.shape[1], device=before.device)
    earliest = torch.where(alive, columns, before.shape[1]).amin(dim=1).clamp(max=before.shape[1] - 1)
    last = torch.where(alive, columns, 0).amax(dim=1)
    new_low = (low + earliest - BACK).clamp(min=0)
    high = reach.gather(1, (low + last)[:, None])[:, 0]
    width = int((torch.maximum(high, low + last) - new_low).max()) + 1
    places = new_low[:, None] + torch.arange(width, device=before.device) - low[:, None]
    there = (places >= 0) & (places < before.shape[1])
    return new_low, width, torch.where(there, before.gather(1, torch.where(there, places, 0)), -np.inf)


def _states(low: Tensor, width: int, predecessors: Tensor,
            log_probs: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """The `width` states from `low` on, int64 [B, W], and whether there are so many; of each the columns of its
    predecessors in the window, int64 [B, K, W], and the arcs' log-probabilities."""
    states = low[:, None] + torch.arange(width, device=low.device)
    here = states < predecessors.shape[2]
    states = torch.where(here, states, 0)
    wide = states[:, None].expand(-1, predecessors.shape[1], -1)
    sources = predecessors.gather(2, wide) - low[:, None, None]
    there = (sources >= 0) & (sources < width) & here[:, None]
    return states, here, (torch.where(there, sources, 0), torch.where(there, log_probs.gather(2, wide), -np.inf))


def batches(lengths: Sequence[int], max_frames: int) -> Iterator[list[int]]:
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
          jobs: int = 1, beam: float = 0.0) -> list[BestPath | None]:
    """The best path of every utterance; None where no path reaches the end.

    features: [T, ...] of every utterance on the CPU, what `log_likelihoods` takes. beam: as in `viterbi`; where it
    fails, again WIDER times as wide, then exact (Kaldi's retry-beam); 0: exact at once. Works in `jobs` processes, to
    which `log_likelihoods` goes with them (threads wait for one another: a search is many small steps), or in this one.
    """
    paths: list[BestPath | None] = [None] * len(graphs)
    order = list(batches([len(x) for x in features], MAX_FRAMES if beam else MAX_FRAMES // 4))
    tasks = [([graphs[i] for i in batch], [features[i].numpy() for i in batch], log_likelihoods, beam)
             for batch in order]
    for batch, found in zip(order, parallel_map(_align_batch, tasks, jobs, "alignment"), strict=True):
        for i, path in zip(batch, found, strict=True):
            paths[i] = path
    return paths


def _align_batch(graphs: Sequence[StateGraph], features: Sequence[np.ndarray], log_likelihoods: LogLikelihoods,
                 beam: float) -> list[BestPath | None]:
    own, scores = zip(*(own_scores(graph, torch.from_numpy(x), log_likelihoods)
                        for graph, x in zip(graphs, features, strict=True)), strict=True)
    width = max(x.shape[1] for x in scores)
    padded = [pad(x, (0, width - x.shape[1])) for x in scores]
    found: list[BestPath | None] = [None] * len(graphs)
    for tried in (beam, WIDER * beam, math.inf) if beam else (math.inf,):
        left = [i for i, path in enumerate(found) if path is None]
        if left:
            for i, path in zip(left, viterbi([own[i] for i in left], [padded[i] for i in left], tried), strict=True):
                found[i] = path and replace(path, beam=tried)
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
