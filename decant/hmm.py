"""Hidden Markov models of phones, and the graph of HMM states that an utterance's transcript allows.

A phone has three emitting states from left to right, silence has five with a free middle: the topologies of Kaldi's
recipes (gen_topo.pl). Every emitting state has one pdf-id here; a decision tree will make it depend on the context.

The letters: S pdf-ids (states), N states of an utterance's graph, K predecessors of a state.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from decant.files import atomic_path
from decant.lexicon import SILENCE_PHONE, Lexicon

NUM_STATES = 3
NUM_SILENCE_STATES = 5


@dataclass(frozen=True)
class HmmConfig:
    silence_prob: float = 0.5  # probability of a silence before, between and after words
    # In alignment likelihoods are not scaled, while Kaldi's are by 0.1: transitions weigh a tenth of Kaldi's there.
    transition_scale: float = 1.0  # on the log-probabilities of which state follows, once one is left (Kaldi: 1.0)
    self_loop_scale: float = 0.1  # on the log-probabilities of staying in a state and of leaving it (Kaldi: 0.1)

    def __post_init__(self) -> None:
        if not 0 < self.silence_prob < 1:
            raise ValueError(f"silence_prob is {self.silence_prob}; it has to lie between 0 and 1, both excluded")


def initial_transitions(phone: str) -> np.ndarray:
    """Transition probabilities [n, n + 1] of a phone's n emitting states, before training; the last column is the exit.

    Silence may go from its first state into any of the middle three, among those freely, and leaves by the fifth.
    """
    n = NUM_SILENCE_STATES if phone == SILENCE_PHONE else NUM_STATES
    probs = np.zeros((n, n + 1))
    for state in range(n):
        probs[state, state], probs[state, state + 1] = 0.75, 0.25
    if phone == SILENCE_PHONE:
        probs[0, :4] = probs[1:4, 1:5] = 0.25
        probs[0, 4:] = probs[1:4, 5:] = 0.0
    return probs


class TransitionModel:
    """The phones' HMMs: which states follow which with what probability, and each state's pdf-id.

    phones: silence first. probs[i]: float64 [n, n + 1], rows sum to one, of phones[i]. State s of phone i has pdf-id
    `first_pdf[i] + s`.
    """

    def __init__(self, phones: Sequence[str], config: HmmConfig, probs: Sequence[np.ndarray] | None = None):
        self.phones = tuple(phones)
        self.config = config
        self.index = {phone: i for i, phone in enumerate(self.phones)}
        self.probs = [initial_transitions(phone) for phone in self.phones] if probs is None else list(probs)
        sizes = [len(matrix) for matrix in self.probs]
        self.first_pdf = [sum(sizes[:i]) for i in range(len(sizes))]
        self.num_pdfs = sum(sizes)

    def pdfs(self, phone: str) -> range:
        """The pdf-ids of a phone's states, in order."""
        i = self.index[phone]
        return range(self.first_pdf[i], self.first_pdf[i] + len(self.probs[i]))

    def pdf_names(self) -> list[str]:
        """A name such as `AH.0` for every pdf-id."""
        return [f"{phone}.{state}" for phone in self.phones for state in range(len(self.pdfs(phone)))]

    def phone_arcs(self, phone: str) -> list[tuple[int, int, int, float]]:
        """The arcs of a phone's HMM other than self-loops: (from, to, pdf-id of `to`, scaled natural log-probability).

        State 0 is the entry and n + 1 the exit, which emit nothing (pdf-id -1); 1 to n are the emitting states.
        """
        probs, pdfs = self.probs[self.index[phone]], self.pdfs(phone)
        n = len(probs)
        arcs = [(0, 1, pdfs[0], 0.0)]
        for state, to in zip(*np.nonzero(probs), strict=True):
            if to != state:
                leave = 1.0 - probs[state, state]
                log_prob = (self.config.transition_scale * math.log(probs[state, to] / leave)
                            + self.config.self_loop_scale * math.log(leave))
                arcs.append((int(state) + 1, int(to) + 1, pdfs[to] if to < n else -1, log_prob))
        return arcs

    @property
    def self_loop_log_prob(self) -> np.ndarray:
        """Scaled natural log-probability [S] of staying in the state of each pdf-id."""
        return self.config.self_loop_scale * np.log(np.concatenate([np.diagonal(probs) for probs in self.probs]))

    def reestimated(self, counts: np.ndarray, floor: float = 0.01) -> "TransitionModel":
        """The model with probabilities from `counts` [S, S + 1]: frames in the row's pdf-id followed by the column's;
        the last column counts exits of the phone. A topology's allowed transitions keep at least `floor`."""
        probs = []
        for first, old in zip(self.first_pdf, self.probs, strict=True):
            n = len(old)
            seen = np.concatenate([counts[first:first + n, first:first + n], counts[first:first + n, -1:]], axis=1)
            new = np.where(old > 0, seen, 0.0)
            total = new.sum(axis=1, keepdims=True)
            new = np.where(old > 0, np.maximum(new / np.maximum(total, 1.0), floor), 0.0)
            probs.append(np.where(total >= 10, new / new.sum(axis=1, keepdims=True), old))
        return TransitionModel(self.phones, self.config, probs)


@dataclass(frozen=True)
class StateGraph:
    """The HMM states that a transcript allows, ready for Viterbi.

    pdfs: int64 [N]. predecessors: int64 [N, K], padded with 0. log_probs: float32 [N, K] of the arc from each
    predecessor, padded with -inf; the state itself comes first (the self-loop). initial, final: float32 [N].
    phone_instance: int64 [N], counts the phones of the graph, so that a phone's repetition is seen.
    """

    pdfs: np.ndarray
    predecessors: np.ndarray
    log_probs: np.ndarray
    initial: np.ndarray
    final: np.ndarray
    phone_instance: np.ndarray

    @property
    def min_frames(self) -> int:
        """The fewest frames that reach the end."""
        frames = np.where(np.isfinite(self.initial), 1.0, np.inf)
        arc_frames = np.where(np.isfinite(self.log_probs), 1.0, np.inf)
        while True:  # shortest paths by relaxation
            shorter = np.minimum(frames, (frames[self.predecessors] + arc_frames).min(axis=1))
            if np.array_equal(shorter, frames):
                return int(frames[np.isfinite(self.final)].min())
            frames = shorter


START = -1


def phone_graph(words: Sequence[str], lexicon: Lexicon, silence_prob: float):
    """A transcript's phones: all pronunciations, an optional silence before, between and after words.

    Returns (nodes, ends). A node is (phone, [(previous node or START, log-probability), ...]); ends are the
    (node, log-probability) pairs at which the utterance may end. Pronunciations of a word weigh the same (1.0, as
    Kaldi's lexicon.txt without probabilities).
    """
    nodes: list[tuple[str, list[tuple[int, float]]]] = []

    def add(phone: str, previous: list[tuple[int, float]]) -> list[tuple[int, float]]:
        nodes.append((phone, previous))
        return [(len(nodes) - 1, 0.0)]

    def optional_silence(ends: list[tuple[int, float]]) -> list[tuple[int, float]]:
        silence = add(SILENCE_PHONE, [(node, weight + math.log(silence_prob)) for node, weight in ends])
        return silence + [(node, weight + math.log(1.0 - silence_prob)) for node, weight in ends]

    ends = optional_silence([(START, 0.0)])
    for word in words:
        after_word = []
        for pronunciation in lexicon.pronunciations[word]:
            previous = ends
            for phone in pronunciation:
                previous = add(phone, previous)
            after_word += previous
        ends = optional_silence(after_word)
    return nodes, ends


def state_graph(words: Sequence[str], lexicon: Lexicon, transitions: TransitionModel) -> StateGraph:
    """The graph of HMM states of a transcript. Raises ValueError if it is empty."""
    if not words:
        raise ValueError("the transcript is empty")
    nodes, ends = phone_graph(words, lexicon, transitions.config.silence_prob)
    if any(node == START for node, _ in ends):
        raise ValueError("the transcript has no phones")
    phone_arcs = {phone: transitions.phone_arcs(phone) for phone, _ in nodes}
    offsets = np.concatenate([[0], np.cumsum([len(transitions.pdfs(phone)) for phone, _ in nodes])])
    pdfs = np.concatenate([np.array(transitions.pdfs(phone)) for phone, _ in nodes])
    self_loops = transitions.self_loop_log_prob
    initial, final = np.full(len(pdfs), -np.inf), np.full(len(pdfs), -np.inf)
    arcs: list[list[tuple[int, float]]] = [[(state, self_loops[pdf])] for state, pdf in enumerate(pdfs)]

    def exits(node: int) -> list[tuple[int, float]]:
        phone = nodes[node][0]
        n = len(transitions.pdfs(phone))
        return [(offsets[node] + source - 1, weight) for source, to, _, weight in phone_arcs[phone] if to == n + 1]

    for node, (phone, previous) in enumerate(nodes):
        first = offsets[node]
        for before, weight in previous:
            if before == START:
                initial[first] = weight
            else:
                arcs[first] += [(state, weight + leave) for state, leave in exits(before)]
        for source, to, pdf, weight in phone_arcs[phone]:
            if source > 0 and pdf >= 0:
                arcs[first + to - 1].append((first + source - 1, weight))
    for node, weight in ends:
        for state, leave in exits(node):
            final[state] = weight + leave

    width = max(map(len, arcs))
    predecessors, log_probs = np.zeros((len(arcs), width), np.int64), np.full((len(arcs), width), -np.inf)
    for state, incoming in enumerate(arcs):
        predecessors[state, :len(incoming)] = [source for source, _ in incoming]
        log_probs[state, :len(incoming)] = [weight for _, weight in incoming]
    instance = np.repeat(np.arange(len(nodes)), np.diff(offsets))
    return StateGraph(pdfs, predecessors, log_probs.astype(np.float32), initial.astype(np.float32),
                      final.astype(np.float32), instance)


def write_transitions(path: Path, transitions: TransitionModel) -> None:
    """Writes phones, settings and probabilities as JSON, a phone a line."""
    rows = ",\n  ".join(json.dumps([phone, probs.tolist()])
                        for phone, probs in zip(transitions.phones, transitions.probs, strict=True))
    with atomic_path(path) as temporary:
        temporary.write_text(f'{{"config": {json.dumps(asdict(transitions.config))},\n "phones": [\n  {rows}]}}\n')


def read_transitions(path: Path) -> TransitionModel:
    """Reads what `write_transitions` wrote."""
    content = json.loads(Path(path).read_text())
    phones, probs = zip(*content["phones"], strict=True)
    return TransitionModel(phones, HmmConfig(**content["config"]), [np.array(rows) for rows in probs])
