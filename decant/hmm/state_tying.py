"""Tied states: decision trees that give every HMM state of a phone, in its context, a pdf-id.

Trees ask about the phone, its left and its right neighbour, and split where the likelihood of one Gaussian a leaf gains
most (Young, Odell and Woodland 1994). As in Kaldi's train_deltas.sh, the variants of a phone share their trees, one for
each state position, silence is not split, and the questions are the clusters of an agglomerative clustering of the
phones. A triphone that was never seen finds its leaf by the same questions.

The letters: T frames, D feature dimensions, E events (a state of a triphone), P phones, Q questions.
"""

import hashlib
import heapq
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from decant.files import atomic_path
from decant.lang.lexicon import SILENCE_PHONE
from decant.settings import config_field
from decant.text import read_fields

Context = tuple[str, str, str]  # the left neighbour, the phone itself, the right neighbour
POSITIONS = ("left", "centre", "right")
NUM_STATES = 3
NUM_SILENCE_STATES = 5


def num_states(phone: str) -> int:
    """The emitting states of a phone's HMM."""
    return NUM_SILENCE_STATES if phone == SILENCE_PHONE else NUM_STATES


@dataclass(frozen=True)
class Split:
    """A question: is the phone at `position` (0 left, 1 centre, 2 right) one of `phones`? A leaf is a pdf-id."""

    position: int
    phones: frozenset[str]
    yes: "Split | int"
    no: "Split | int"

    def leaves(self) -> Iterator[int]:
        for child in (self.yes, self.no):
            if isinstance(child, Split):
                yield from child.leaves()
            else:
                yield child


@dataclass(frozen=True)
class DecisionTree:
    """The pdf-ids of all states in all contexts. phones: silence first; roots: a tree or a pdf-id by phone and state
    (0 is a phone's first)."""

    phones: tuple[str, ...]
    roots: Mapping[tuple[str, int], Split | int]

    def pdf(self, context: Context, state: int) -> int:
        """The pdf-id of a phone's state in its context. Raises KeyError for a phone that the tree does not know."""
        node = self.roots[context[1], state]
        while isinstance(node, Split):
            node = node.yes if context[node.position] in node.phones else node.no
        return node

    def label(self, events: np.ndarray) -> np.ndarray:
        """The pdf-id of each event (int64 [T, 4]: left, centre, right phone by their place in `phones`, state)."""
        keys, inverse = np.unique(event_keys(events, len(self.phones)), return_inverse=True)
        return np.array([self.pdf((self.phones[left], self.phones[phone], self.phones[right]), state)
                         for left, phone, right, state in events_of(keys, len(self.phones)).tolist()])[inverse]

    def depends_on_context(self, phone: str) -> bool:
        return any(isinstance(self.roots[phone, state], Split) for state in range(num_states(phone)))

    def pdfs_of(self, phone: str, state: int) -> list[int]:
        """All leaves under a root, which may be those of other phones too."""
        root = self.roots[phone, state]
        return list(root.leaves()) if isinstance(root, Split) else [root]

    @cached_property
    def num_pdfs(self) -> int:
        return 1 + max(pdf for phone, state in self.roots for pdf in self.pdfs_of(phone, state))

    @cached_property
    def fingerprint(self) -> str:
        """What models and graphs made with this tree keep, to know it again: the SHA-256 of its file."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        shared: dict[int, tuple[int, Split | int, list[str]]] = {}
        for (phone, state), root in self.roots.items():
            shared.setdefault(id(root) if isinstance(root, Split) else -1 - root, (state, root, []))[2].append(phone)
        trees = [{"phones": " ".join(phones), "state": state, "tree": _to_json(root)}
                 for state, root, phones in shared.values()]
        return json.dumps({"phones": " ".join(self.phones), "trees": trees}, indent=1) + "\n"


def _to_json(node: Split | int) -> int | dict:
    if not isinstance(node, Split):
        return node
    return {f"{POSITIONS[node.position]} in": " ".join(sorted(node.phones)),
            "yes": _to_json(node.yes), "no": _to_json(node.no)}


def _from_json(node: int | dict) -> Split | int:
    if isinstance(node, int):
        return node
    question, phones = next(iter(node.items()))
    return Split(POSITIONS.index(question.removesuffix(" in")), frozenset(phones.split(" ")),
                 _from_json(node["yes"]), _from_json(node["no"]))


def write_tree(path: Path, tree: DecisionTree) -> None:
    """Writes the tree as JSON: each root's phones and state, and its questions, one inside the other."""
    with atomic_path(path) as temporary:
        temporary.write_text(tree.to_json(), encoding="utf-8")


def read_tree(path: Path) -> DecisionTree:
    """Reads what `write_tree` wrote. Raises ValueError naming a damaged file."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        phones = tuple(content["phones"].split(" "))
        roots: dict[tuple[str, int], Split | int] = {}
        for tree in content["trees"]:
            root = _from_json(tree["tree"])
            roots |= {(phone, tree["state"]): root for phone in tree["phones"].split(" ")}
    except (ValueError, KeyError, TypeError, StopIteration, AttributeError) as error:
        raise ValueError(f"{path}: no decision tree of decant ({error}); run the stage that writes it again") from error
    if missing := [phone for phone in phones for state in range(num_states(phone)) if (phone, state) not in roots]:
        raise ValueError(f"{path}: no tree for the phone {missing[0]}; run the stage that writes it again")
    return DecisionTree(phones, {(phone, state): roots[phone, state] for phone in phones
                                 for state in range(num_states(phone))})


def monophone_tree(phones: Sequence[str]) -> DecisionTree:
    """Every state of every phone its own pdf-id, whatever its context, in order."""
    states = [(phone, state) for phone in phones for state in range(num_states(phone))]
    return DecisionTree(tuple(phones), {state: pdf for pdf, state in enumerate(states)})


@dataclass(frozen=True)
class StateTyingConfig:
    """The decision tree that ties triphone states, the pdf-ids that networks predict."""

    num_leaves: int = config_field(0, "pdf-ids at most; 0: no tying, the monophone's states stay.", paper=14000)
    min_occupancy: float = config_field(100.0, "Frames that each leaf has at least.")
    questions: str = config_field("", "File with a set of phones a line; without it they are found by clustering.")

    def __post_init__(self) -> None:
        if self.num_leaves < 0 or self.min_occupancy <= 0:
            raise ValueError("num_leaves may not be negative, and min_occupancy has to be above 0")


@dataclass(frozen=True)
class Statistics:
    """A Gaussian's sufficient statistics of every event seen. events: int64 [E, 4], the phones (their indices) at left,
    centre and right, and the state; moments: float64 [E, 1 + 2 D], frames, sum and sum of squares."""

    events: np.ndarray
    moments: np.ndarray


def event_keys(events: np.ndarray, num_phones: int) -> np.ndarray:
    """Events (int64 [T, 4]: left, centre and right phone, state) as numbers, int64 [T]."""
    return events @ np.array([num_phones**2, num_phones, 1, num_phones**3])


def events_of(keys: np.ndarray, num_phones: int) -> np.ndarray:
    """What `event_keys` made numbers of."""
    places = [keys // radix % num_phones for radix in (num_phones**2, num_phones, 1)]
    return np.stack([*places, keys // num_phones**3], axis=1)


def accumulate(utterances: Iterable[tuple[np.ndarray, np.ndarray]], num_phones: int) -> Statistics:
    """The statistics of (features float32 [T, D], events int64 [T, 4]) of all utterances, of one at least."""
    return merged([_of_utterance(features, event_keys(events, num_phones), num_phones)
                   for features, events in utterances], num_phones)


def _of_utterance(features: np.ndarray, keys: np.ndarray, num_phones: int) -> Statistics:
    order = np.argsort(keys, kind="stable")
    seen, first = np.unique(keys[order], return_index=True)
    x = features[order].astype(np.float64)
    moments = np.add.reduceat(np.concatenate([np.ones((len(x), 1)), x, x * x], axis=1), first, axis=0)
    return Statistics(events_of(seen, num_phones), moments)


def merged(parts: Sequence[Statistics], num_phones: int) -> Statistics:
    """The statistics of the frames of all parts, added up in their order."""
    keys, place = np.unique(np.concatenate([event_keys(part.events, num_phones) for part in parts]),
                            return_inverse=True)
    moments, start = np.zeros((len(keys), parts[0].moments.shape[1])), 0
    for part in parts:
        moments[place[start:start + len(part.events)]] += part.moments
        start += len(part.events)
    return Statistics(events_of(keys, num_phones), moments)


def log_likelihood(moments: np.ndarray, variance_floor: float = 0.01) -> np.ndarray:
    """The log-likelihood of frames under the diagonal Gaussian that fits them best: [...] of moments [..., 1 + 2 D]."""
    dims = moments.shape[-1] // 2
    frames = np.maximum(moments[..., :1], 1e-10)
    means = moments[..., 1:1 + dims] / frames
    variances = np.maximum(moments[..., 1 + dims:] / frames - means**2, variance_floor)
    return -0.5 * moments[..., 0] * (dims * (1 + math.log(2 * math.pi)) + np.log(variances).sum(axis=-1))


def phone_questions(statistics: Statistics, phones: Sequence[str],
                    groups: Sequence[Sequence[str]]) -> list[frozenset[str]]:
    """Sets of phones that sound alike: every cluster on the way from single groups to one, merging at each step the two
    that lose least likelihood. Groups are phones that count as one; their clusters' middle states are compared."""
    middle = statistics.events[:, 3] == 1
    index = {phone: i for i, phone in enumerate(phones)}
    clusters = [frozenset(group) for group in groups]
    moments = np.stack([statistics.moments[middle & np.isin(statistics.events[:, 1], [index[phone] for phone in group])]
                        .sum(axis=0) for group in groups])
    questions = list(clusters)
    while len(clusters) > 2:  # the last merge would be of all phones: no question
        alone = log_likelihood(moments)
        rows, columns = np.triu_indices(len(clusters), 1)
        loss = alone[rows] + alone[columns] - log_likelihood(moments[rows] + moments[columns])
        a, b = rows[loss.argmin()], columns[loss.argmin()]
        clusters[a], moments[a] = clusters[a] | clusters[b], moments[a] + moments[b]
        del clusters[b]
        moments = np.delete(moments, b, axis=0)
        questions.append(clusters[a])
    return questions


def read_questions(path: Path, phones: Sequence[str]) -> list[frozenset[str]]:
    """Questions of a file like Kaldi's extra_questions.txt: a set of phones a line.

    Raises ValueError naming the line of a phone that is not in the phone set.
    """
    questions = []
    for place, names in read_fields(path):
        if unknown := sorted(set(names) - set(phones)):
            raise ValueError(f"{place}: {unknown[0]} is not in the phone set; correct the question")
        questions.append(frozenset(names))
    return questions


def grow_tree(statistics: Statistics, phones: Sequence[str], groups: Sequence[Sequence[str]],
              questions: Sequence[frozenset[str]], config: StateTyingConfig) -> tuple[DecisionTree, float]:
    """The tree of at most `config.num_leaves` leaves, and the log-likelihood a frame that its splits gain.

    groups: phones that share their trees; silence, alone, is not split. Of all possible splits the one that gains most
    comes first, whichever tree it is in. Growing ends early where every split would leave a leaf of less than
    `min_occupancy` frames. Raises ValueError if there are more roots than leaves.
    """
    index = {phone: i for i, phone in enumerate(phones)}
    asked = np.array([[phone in question for phone in phones] for question in questions])  # [Q, P]

    def best_split(rows: np.ndarray) -> tuple[float, int, int]:
        """(gain, position, question) of the best split of the events `rows`; a gain of 0 if there is none."""
        events, moments = statistics.events[rows], statistics.moments[rows]
        total = moments.sum(axis=0)
        best = (0.0, 0, 0)
        for position in range(3):
            yes = asked[:, events[:, position]].astype(np.float64) @ moments
            no = total - yes
            usable = np.minimum(yes[:, 0], no[:, 0]) >= config.min_occupancy
            if usable.any():
                gain = np.full(len(questions), -np.inf)
                gain[usable] = log_likelihood(yes[usable]) + log_likelihood(no[usable]) - log_likelihood(total)
                best = max(best, (float(gain.max()), -position, -int(gain.argmax())))
        return best[0], -best[1], -best[2]

    # Nodes by number: the events there, and once split (position, question, yes, no).
    members: list[np.ndarray] = []
    splits: dict[int, tuple[int, int, int, int]] = {}
    roots: dict[tuple[str, int], int] = {}
    heap: list[tuple[float, int, int, int]] = []

    def add(rows: np.ndarray, may_split: bool) -> int:
        members.append(rows)
        if may_split and len(rows) > 1:
            gain, position, question = best_split(rows)
            if gain > 0:
                heapq.heappush(heap, (-gain, len(members) - 1, position, question))
        return len(members) - 1

    for group in groups:
        here = np.isin(statistics.events[:, 1], [index[phone] for phone in group])
        for state in range(num_states(group[0])):
            root = add(np.flatnonzero(here & (statistics.events[:, 3] == state)), group[0] != SILENCE_PHONE)
            roots |= {(phone, state): root for phone in group}
    num_leaves, total_gain = len(members), 0.0
    if num_leaves > config.num_leaves:
        raise ValueError(f"num_leaves is {config.num_leaves}, but the phones' states have {num_leaves} trees, of a "
                         "leaf or more each; raise state_tying.num_leaves")
    while heap and num_leaves < config.num_leaves:
        gain, node, position, question = heapq.heappop(heap)
        rows = members[node]
        yes = asked[question, statistics.events[rows, position]]
        splits[node] = (position, question, add(rows[yes], True), add(rows[~yes], True))
        num_leaves, total_gain = num_leaves + 1, total_gain - gain

    numbers: dict[int, Split | int] = {}

    def finished(node: int, pdfs: Iterator[int]) -> Split | int:
        if node not in splits:
            return next(pdfs)
        position, question, yes, no = splits[node]
        return Split(position, frozenset(questions[question]), finished(yes, pdfs), finished(no, pdfs))

    pdfs = iter(range(num_leaves))
    for root in dict.fromkeys(roots[phone, state] for phone in phones for state in range(num_states(phone))):
        numbers[root] = finished(root, pdfs)
    tree = DecisionTree(tuple(phones), {(phone, state): numbers[roots[phone, state]] for phone in phones
                                        for state in range(num_states(phone))})
    return tree, total_gain / max(statistics.moments[:, 0].sum(), 1.0)


def to_dot(tree: DecisionTree, phone: str, state: int) -> str:
    """The tree of a phone's state as Graphviz text, for `dot -Tsvg`."""
    lines = [f'digraph "{phone}.{state}" {{', "  node [shape=box]"]

    def draw(node: Split | int) -> str:
        name = f"n{len(lines)}"
        if not isinstance(node, Split):
            lines.append(f'  {name} [label="pdf {node}" shape=ellipse]')
            return name
        lines.append(f'  {name} [label="{POSITIONS[node.position]} in\\n{" ".join(sorted(node.phones))}"]')
        for answer in ("yes", "no"):
            child = draw(getattr(node, answer))
            lines.append(f'  {name} -> {child} [label="{answer}"]')
        return name

    draw(tree.roots[phone, state])
    return "\n".join([*lines, "}"]) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python -m decant.hmm.state_tying tree.json PHONE STATE | dot -Tsvg > tree.svg")
    try:
        tree = read_tree(Path(sys.argv[1]))
        if (sys.argv[2], sys.argv[3]) not in {(phone, str(state)) for phone, state in tree.roots}:
            raise ValueError(f"there is no state {sys.argv[3]} of {sys.argv[2]}; the phones are "
                             f"{' '.join(tree.phones)}, their states 0 to {NUM_STATES - 1}")
        sys.stdout.write(to_dot(tree, sys.argv[2], int(sys.argv[3])))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
