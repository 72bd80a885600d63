"""Hidden Markov models of phones, and the graph of HMM states that an utterance's transcript allows.

A phone has three emitting states from left to right, silence has five with a free middle: the topologies of Kaldi's
recipes (gen_topo.pl). A decision tree (decant.hmm.state_tying) gives each state in its context a pdf-id; transition
probabilities belong to pdf-ids. Beyond an utterance's ends there is silence, for the tree's questions.

The letters: S pdf-ids, N states of an utterance's graph, K predecessors of a state.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from decant.files import atomic_path
from decant.hmm.state_tying import NUM_SILENCE_STATES, Context, DecisionTree, num_states, read_tree, write_tree
from decant.lang.lexicon import SILENCE_PHONE, Lexicon
from decant.settings import config_field

EXIT = NUM_SILENCE_STATES  # the column of leaving a phone in tables of transitions
NUM_COLUMNS = EXIT + 1


@dataclass(frozen=True)
class HmmConfig:
    """The hidden Markov models: silence, and the weight of transitions."""

    silence_prob: float = config_field(0.5, "Probability of a silence before, between and after words.")
    # In alignment likelihoods are not scaled, while Kaldi's are by 0.1: transitions weigh a tenth of Kaldi's there.
    transition_scale: float = config_field(
        1.0, "Scale of the log-probabilities of which state follows, once one is left (Kaldi: 1.0).")
    self_loop_scale: float = config_field(
        0.1, "Scale of the log-probabilities of staying in a state and of leaving it (Kaldi: 0.1).")
    alignment_beam: float = config_field(
        100.0, "Forced alignment looks at states that are at most so far behind the best one, in natural "
        "log-probability; where that fails, at four times as many, then at all (0: at once). Kaldi's 10, unscaled.")

    def __post_init__(self) -> None:
        if not 0 < self.silence_prob < 1:
            raise ValueError(f"silence_prob is {self.silence_prob}; it has to lie between 0 and 1, both excluded")
        if self.alignment_beam < 0:
            raise ValueError(f"alignment_beam is {self.alignment_beam}; it may not be negative (0: no beam)")


def initial_transitions(phone: str) -> np.ndarray:
    """Transition probabilities [n, 6] of a phone's n emitting states, before training, to its states and to EXIT.

    Silence may go from its first state into any of the middle three, among those freely, and leaves by the fifth.
    """
    n = num_states(phone)
    probs = np.zeros((n, NUM_COLUMNS))
    for state in range(n):
        probs[state, state], probs[state, state + 1 if state + 1 < n else EXIT] = 0.75, 0.25
    if phone == SILENCE_PHONE:
        probs[0, :4] = probs[1:4, 1:5] = 0.25
        probs[0, 4:] = probs[1:4, 5:] = 0.0
    return probs


class TransitionModel:
    """The phones' HMMs: each state's pdf-id, and for each pdf-id which state follows with what probability.

    probs: float64 [S, 6], rows sum to one: the probability that the phone's state 0 ... 4 follows, or that the phone
    is left (EXIT). state_of_pdf: int64 [S], the state of its phone that a pdf-id belongs to.
    """

    def __init__(self, tree: DecisionTree, config: HmmConfig, probs: np.ndarray | None = None):
        self.tree, self.config = tree, config
        self.phones, self.num_pdfs = tree.phones, tree.num_pdfs
        self.state_of_pdf = np.zeros(self.num_pdfs, np.int64)
        initial = np.zeros((self.num_pdfs, NUM_COLUMNS))
        for phone, state in tree.roots:
            leaves = tree.pdfs_of(phone, state)
            self.state_of_pdf[leaves], initial[leaves] = state, initial_transitions(phone)[state]
        self.probs = initial if probs is None else probs
        self._pdfs: dict[Context, list[int]] = {}

    @property
    def silence_pdfs(self) -> np.ndarray:
        """The pdf-ids of silence, int64."""
        return np.unique([self.tree.pdfs_of(SILENCE_PHONE, state) for state in range(NUM_SILENCE_STATES)])

    def pdfs(self, context: Context) -> list[int]:
        """The pdf-ids of a phone's states in its context, in order."""
        if context not in self._pdfs:
            self._pdfs[context] = [self.tree.pdf(context, state) for state in range(num_states(context[1]))]
        return self._pdfs[context]

    @cached_property
    def log_probs(self) -> np.ndarray:
        """The scaled natural logarithms of `probs`: float64 [S, 6], -inf where there is no transition."""
        stay = np.take_along_axis(self.probs, self.state_of_pdf[:, None], axis=1)
        with np.errstate(divide="ignore"):
            scaled = (self.config.transition_scale * np.log(self.probs / (1 - stay))
                      + self.config.self_loop_scale * np.log(1 - stay))
            np.put_along_axis(scaled, self.state_of_pdf[:, None], self.config.self_loop_scale * np.log(stay), axis=1)
        return scaled

    @property
    def self_loop_log_prob(self) -> np.ndarray:
        """Scaled natural log-probability [S] of staying in the state of each pdf-id."""
        return np.take_along_axis(self.log_probs, self.state_of_pdf[:, None], axis=1)[:, 0]

    def phone_arcs(self, context: Context) -> list[tuple[int, int, int, float]]:
        """The arcs of a phone's HMM other than self-loops: (from, to, pdf-id of `to`, scaled natural log-probability).

        State 0 is the entry and n + 1 the exit, which emit nothing (pdf-id -1); 1 to n are the emitting states.
        """
        pdfs = self.pdfs(context)
        arcs = [(0, 1, pdfs[0], 0.0)]
        for state, pdf in enumerate(pdfs):
            for to in np.flatnonzero(self.probs[pdf]).tolist():
                if to != state:
                    target, next_pdf = (len(pdfs) + 1, -1) if to == EXIT else (to + 1, pdfs[to])
                    arcs.append((state + 1, target, next_pdf, float(self.log_probs[pdf, to])))
        return arcs

    def reestimated(self, counts: np.ndarray, floor: float = 0.01) -> "TransitionModel":
        """The model with probabilities from `counts` [S, 6]: frames in the pdf-id of the row followed by the phone's
        state of the column, or by leaving it. A topology's allowed transitions keep at least `floor`."""
        allowed = self.probs > 0
        seen = np.where(allowed, counts, 0.0)
        total = seen.sum(axis=1, keepdims=True)
        new = np.where(allowed, np.maximum(seen / np.maximum(total, 1.0), floor), 0.0)
        new /= new.sum(axis=1, keepdims=True)
        return TransitionModel(self.tree, self.config, np.where(total >= 10, new, self.probs))


@dataclass(frozen=True)
class StateGraph:
    """The HMM states that a transcript allows, ready for Viterbi.

    pdfs: int64 [N]. predecessors: int64 [N, K], padded with 0. log_probs: float32 [N, K] of the arc from each
    predecessor, padded with -inf; the state itself comes first (the self-loop). initial, final: float32 [N].
    phones: of every phone instance; phone_instance, phone_state: int64 [N], which instance each state belongs to and
    which of its states it is. word_log_probs, arc_columns, final_log_probs: what `reweighted` makes log_probs and final
    of: the part of each that is not the HMM's, and the column of TransitionModel.log_probs that is.
    """

    pdfs: np.ndarray
    predecessors: np.ndarray
    log_probs: np.ndarray
    initial: np.ndarray
    final: np.ndarray
    phones: tuple[str, ...]
    phone_instance: np.ndarray
    phone_state: np.ndarray
    word_log_probs: np.ndarray
    arc_columns: np.ndarray
    final_log_probs: np.ndarray

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

    def reweighted(self, transitions: TransitionModel) -> "StateGraph":
        """The same states with the log-probabilities of a model of the same tree."""
        table = transitions.log_probs
        log_probs = self.word_log_probs + table[self.pdfs[self.predecessors], self.arc_columns]
        return replace(self, log_probs=log_probs.astype(np.float32),
                       final=(self.final_log_probs + table[self.pdfs, EXIT]).astype(np.float32))

    def events(self, states: np.ndarray, index: dict[str, int]) -> np.ndarray:
        """Each frame's left neighbour, phone and right neighbour, by `index`, and the phone's state, on the path
        `states` (int64 [T]): int64 [T, 4]."""
        instance = self.phone_instance[states]
        first = np.flatnonzero(np.diff(instance, prepend=-1))
        spoken = [index[SILENCE_PHONE], *(index[self.phones[i]] for i in instance[first]), index[SILENCE_PHONE]]
        contexts = np.lib.stride_tricks.sliding_window_view(np.array(spoken), 3)
        contexts = np.repeat(contexts, np.diff(first, append=len(states)), axis=0)
        return np.concatenate([contexts, self.phone_state[states][:, None]], axis=1)


START = -1
Nodes = list[tuple[str, list[tuple[int, float]]]]
Ends = list[tuple[int, float]]


def phone_graph(words: Sequence[str], lexicon: Lexicon, silence_prob: float) -> tuple[Nodes, Ends]:
    """A transcript's phones: all pronunciations, an optional silence before, between and after words.

    Returns (nodes, ends). A node is (phone, [(previous node or START, log-probability), ...]); ends are the
    (node, log-probability) pairs at which the utterance may end. Pronunciations of a word weigh as the
    lexicon says, or all the same (1.0, as Kaldi's lexicon.txt without probabilities). A word that the lexicon lacks is
    spoken as <UNK>, if that is there.
    """
    nodes: Nodes = []

    def add(phone: str, previous: list[tuple[int, float]]) -> list[tuple[int, float]]:
        nodes.append((phone, previous))
        return [(len(nodes) - 1, 0.0)]

    def optional_silence(ends: Ends) -> Ends:
        silence = add(SILENCE_PHONE, [(node, weight + math.log(silence_prob)) for node, weight in ends])
        return silence + [(node, weight + math.log(1.0 - silence_prob)) for node, weight in ends]

    ends = optional_silence([(START, 0.0)])
    for word in words:
        after_word = []
        spoken = lexicon.spoken(word)
        if spoken is None:
            raise ValueError(f"the lexicon lacks the word {word}")
        for pronunciation, log_prob in zip(lexicon.pronunciations[spoken], lexicon.log_probs(spoken), strict=True):
            previous = [(node, weight + log_prob) for node, weight in ends]
            for phone in pronunciation:
                previous = add(phone, previous)
            after_word += previous
        ends = optional_silence(after_word)
    return nodes, ends


def in_context(nodes: Nodes, ends: Ends,
               tree: DecisionTree) -> tuple[list[tuple[Context, list[tuple[int, float]]]], Ends]:
    """The phone graph with a copy of each node for every pair of neighbours that it may stand between; a phone that
    does not depend on its context stays one node, between silences by name."""
    phones = [phone for phone, _ in nodes]
    left = [sorted({SILENCE_PHONE if before == START else phones[before] for before, _ in previous})
            for _, previous in nodes]
    right: list[set[str]] = [set() for _ in nodes]
    for phone, previous in nodes:
        for before, _ in previous:
            if before != START:
                right[before].add(phone)
    for node, _ in ends:
        right[node].add(SILENCE_PHONE)

    tied = {phone: tree.depends_on_context(phone) for phone in set(phones)}
    copies: list[tuple[Context, list[tuple[int, float]]]] = []
    of_node: list[list[int]] = []  # the copies of each node

    def before_phone(node: int, phone: str) -> list[int]:
        return [copy for copy in of_node[node] if not tied[phones[node]] or copies[copy][0][2] == phone]

    for node, (phone, previous) in enumerate(nodes):
        of_node.append([])
        contexts = ([(a, phone, b) for a in left[node] for b in sorted(right[node])] if tied[phone] else
                    [(SILENCE_PHONE, phone, SILENCE_PHONE)])
        for context in contexts:
            arcs = []
            for before, weight in previous:
                if not tied[phone] or context[0] == (SILENCE_PHONE if before == START else phones[before]):
                    arcs += [(copy, weight) for copy in
                             ([START] if before == START else before_phone(before, phone))]
            of_node[node].append(len(copies))
            copies.append((context, arcs))
    return copies, [(copy, weight) for node, weight in ends for copy in before_phone(node, SILENCE_PHONE)]


def state_graph(words: Sequence[str], lexicon: Lexicon, transitions: TransitionModel) -> StateGraph:
    """The graph of HMM states of a transcript. Raises ValueError if it is empty."""
    if not words:
        raise ValueError("the transcript is empty")
    phones, ends = phone_graph(words, lexicon, transitions.config.silence_prob)
    if any(node == START for node, _ in ends):
        raise ValueError("the transcript has no phones")
    nodes, ends = in_context(phones, ends, transitions.tree)
    sizes = [num_states(phone) for (_, phone, _), _ in nodes]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).tolist()
    initial, final = np.full(offsets[-1], -np.inf), np.full(offsets[-1], -np.inf)
    # The arcs into each state: (source, log-probability that is not the HMM's, column of the source's transitions).
    phone_state = [state for size in sizes for state in range(size)]
    arcs: list[list[tuple[int, float, int]]] = [[(i, 0.0, state)] for i, state in enumerate(phone_state)]
    for node, (context, previous) in enumerate(nodes):
        first = offsets[node]
        for before, weight in previous:
            if before == START:
                initial[first] = weight
            else:
                arcs[first].append((offsets[before + 1] - 1, weight, EXIT))  # a phone is left by its last state
        for state, row in enumerate(_TOPOLOGY[num_states(context[1])]):
            for to in row:
                arcs[first + to].append((first + state, 0.0, to))
    for node, weight in ends:
        final[offsets[node + 1] - 1] = weight

    width = max(map(len, arcs))
    shape = (len(arcs), width)
    predecessors, columns, constants = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.full(shape, -np.inf)
    for state, incoming in enumerate(arcs):
        predecessors[state, :len(incoming)], constants[state, :len(incoming)], columns[state, :len(incoming)] = (
            zip(*incoming, strict=True))
    graph = StateGraph(np.concatenate([transitions.pdfs(context) for context, _ in nodes]), predecessors, constants,
                       initial.astype(np.float32), final, tuple(phone for (_, phone, _), _ in nodes),
                       np.repeat(np.arange(len(nodes)), sizes), np.array(phone_state), constants, columns, final)
    return graph.reweighted(transitions)


# By number of states: the states that may follow each, other than itself and the exit.
_TOPOLOGY = {num_states(phone): [[to for to in np.flatnonzero(row[:EXIT]).tolist() if to != state]
                                 for state, row in enumerate(initial_transitions(phone))]
             for phone in (SILENCE_PHONE, "")}


def write_transitions(directory: Path, transitions: TransitionModel) -> None:
    """Writes `tree.json`, and settings and probabilities as `transitions.json`, a pdf-id a line."""
    write_tree(directory / "tree.json", transitions.tree)
    rows = ",\n  ".join(json.dumps(row) for row in transitions.probs.tolist())
    with atomic_path(directory / "transitions.json") as temporary:
        temporary.write_text(f'{{"config": {json.dumps(asdict(transitions.config))},\n'
                             f' "tree": "{transitions.tree.fingerprint}",\n "probs": [\n  {rows}]}}\n')


def read_transitions(directory: Path, phones: Sequence[str]) -> TransitionModel:
    """Reads what `write_transitions` wrote. Raises ValueError if the tree is another, or of other phones than these."""
    content, tree = json.loads((directory / "transitions.json").read_text()), read_tree(directory / "tree.json")
    if tree.fingerprint != content["tree"]:
        raise ValueError(f"{directory}: tree.json is not the tree that transitions.json was made with; run the stage "
                         "that writes them again")
    if tuple(phones) != tree.phones:
        differing = sorted({*phones} ^ {*tree.phones})
        raise ValueError(f"{directory / 'tree.json'}: the tree of another phone set than the lexicon's (only in one of "
                         f"them: {' '.join(differing) or 'none, the order differs'}); train its system again with this "
                         "lexicon")
    return TransitionModel(tree, HmmConfig(**content["config"]), np.array(content["probs"]))
