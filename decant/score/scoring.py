"""Word errors, their confidence interval, and whether two systems differ.

The word error rate is the substitutions, deletions and insertions of the cheapest alignment (kaldialign) over
the words of the reference. No utterance may be missing from either side, so that systems compare. An <UNK> that was
recognised is never right: it stands for a word that the lexicon lacks, and does not say which.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path

import kaldialign
import numpy as np

from decant.files import atomic_path
from decant.lang.lexicon import UNKNOWN_WORD
from decant.settings import config_field
from decant.text import read_fields

Sentences = Mapping[str, Sequence[str]]  # the words of each utterance
GAP = "***"  # what is written opposite a word that was left out or put in


@dataclass(frozen=True)
class ScoringConfig:
    """What is tried on dev, on lattices; the best decodes test."""

    lm_weights: tuple[float, ...] = config_field(
        (4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0), "Weights of the language model that are tried on dev.")
    word_insertion_penalties: tuple[float, ...] = config_field(
        (0.0, -1.0, 1.0), "Costs of a word that are tried on dev, with every language model weight.")
    lattice_lm_weight: float = config_field(
        0.0, "The language model weight of dev's one search, which is slower the higher it is; 0: the one a third of "
        "the way up lm_weights.")
    lattice_search_beam: float = config_field(
        10.0, "As search.beam, in dev's one search, which has no search.max_active; 13 takes several times as long.")
    lattice_beam: float = config_field(
        8.0, "The lattices keep the paths that cost at most this much more than the best one.")
    larger_lm: str = config_field(
        "", "A language model that scores such lattices again: an ARPA file; whole, the one that stage 1 pruned; or, "
        "left empty, the corpus's own if it brings one.")

    def __post_init__(self) -> None:
        if not self.lm_weights or min(self.lm_weights) <= 0 or not self.word_insertion_penalties:
            raise ValueError("lm_weights needs one or more, all above 0, "
                             "and word_insertion_penalties needs one or more")
        if self.lattice_lm_weight < 0 or min(self.lattice_search_beam, self.lattice_beam) <= 0:
            raise ValueError(f"lattice_lm_weight is {self.lattice_lm_weight}, lattice_search_beam "
                             f"{self.lattice_search_beam}, lattice_beam {self.lattice_beam}; the first may not be "
                             "negative, and both beams have to be positive (10 and 8 are usual)")

    @property
    def files(self) -> tuple[str, ...]:
        """The fields that name files of the user's."""
        return ("larger_lm",) if self.larger_lm not in ("", "whole") else ()

    @property
    def settings(self) -> list[tuple[float, float]]:
        """What is tried: (language model weight, word insertion penalty)."""
        return list(product(self.lm_weights, self.word_insertion_penalties))

    @property
    def search_weight(self) -> float:
        """The language model weight of dev's one search."""
        return self.lattice_lm_weight or sorted(self.lm_weights)[len(self.lm_weights) // 3]


@dataclass(frozen=True)
class WordErrors:
    substitutions: int
    deletions: int
    insertions: int
    words: int  # in the references

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """The word error rate as a fraction, which may exceed 1."""
        return self.total / self.words


def word_errors(refs: Sentences, hyps: Sentences) -> WordErrors:
    """The word errors of all utterances together.

    Raises ValueError naming the utterance that only one side has, and if the references hold no words.
    """
    _check_same_utterances(refs, hyps)
    found = [utterance_errors(ref, hyps[utterance]) for utterance, ref in refs.items()]
    return WordErrors(*(sum(getattr(errors, field.name) for errors in found) for field in fields(WordErrors)))


def utterance_errors(ref: Sequence[str], hyp: Sequence[str]) -> WordErrors:
    """The word errors of one utterance."""
    counts = Counter(kind for _, _, kind in _align(ref, hyp))
    return WordErrors(counts["S"], counts["D"], counts["I"], counts["C"] + counts["S"] + counts["D"])


def word_errors_without(refs: Sentences, hyps: Sentences, excluded: Collection[str]) -> WordErrors:
    """The word errors at the words of the references that are not `excluded`, by the best alignment of all words.

    Insertions belong to no word of a reference and count all. `words` may be 0: then there is no rate.
    """
    _check_same_utterances(refs, hyps)
    counts = Counter(kind for utterance, ref in refs.items() for word, _, kind in _align(ref, hyps[utterance])
                     if word not in excluded)
    return WordErrors(counts["S"], counts["D"], counts["I"], counts["C"] + counts["S"] + counts["D"])


def wer_interval(refs: Sentences, hyps: Sentences, replications: int = 10_000) -> tuple[float, float]:
    """The 95% confidence interval of the word error rate, as fractions: a bootstrap over utterances.

    Bisani and Ney (2004), as Kaldi's compute-wer-bootci; the same input gives the same interval.
    """
    _check_same_utterances(refs, hyps)
    pairs = [_numbered(refs[utterance], hyps[utterance]) for utterance in sorted(refs)]
    result = kaldialign.bootstrap_wer_ci([ref for ref, _ in pairs], [hyp for _, hyp in pairs],
                                         replications=replications, seed=0)
    return max(result["ci95min"], 0.0), result["ci95max"]


def paired_difference(counts: np.ndarray, others: np.ndarray, sizes: np.ndarray,
                      replications: int = 10_000) -> tuple[float, float, float]:
    """How much larger a rate of one system is than of another on the same utterances, and its 95% confidence interval.

    counts, others: what the two count in each utterance, such as word errors or right frames, float64 [U], of several
    runs their mean; sizes: what the rates are of, such as words, [U]. A bootstrap over utterances, each drawn for both
    systems at once (Bisani and Ney 2004): what is hard for both does not blur their difference.
    """
    generator, drawn = np.random.default_rng(0), []
    for _ in range(0, replications, 100):
        weights = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=100)
        drawn.append(weights @ (counts - others) / np.maximum(weights @ sizes, 1))
    low, high = np.percentile(np.concatenate(drawn), [2.5, 97.5])
    return float((counts - others).sum() / sizes.sum()), float(low), float(high)


def choose_setting(errors: Mapping[tuple[float, float], int]) -> tuple[float, float]:
    """The (language model weight, word insertion penalty) with the fewest word errors.

    Of settings that do equally well, sorted by weight, then penalty, the middle one is taken, or the larger of two
    middle ones: it is the least likely to lie at the edge of what works.
    """
    best = sorted(setting for setting, count in errors.items() if count == min(errors.values()))
    return best[len(best) // 2]


def write_alignments(path: Path, refs: Sentences, hyps: Sentences) -> None:
    """Write each utterance's alignment as Kaldi's per_utt: lines of ref, hyp, op, and the counts #csid."""
    _check_same_utterances(refs, hyps)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for utterance in sorted(refs):
            columns = [(GAP if ref is None else ref, GAP if hyp is None else hyp, kind)
                       for ref, hyp, kind in _align(refs[utterance], hyps[utterance])]
            for row, name in enumerate(("ref", "hyp", "op ")):
                cells = [column[row].ljust(max(map(len, column))) for column in columns]
                print(" ".join((utterance, name, *cells)).rstrip(), file=file)
            errors = [error for _, _, error in columns]
            print(utterance, "#csid", *map(errors.count, "CSID"), file=file)


def read_alignments(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The words of the references and of what was recognised, of a file that `write_alignments` wrote."""
    found: dict[str, dict[str, list[str]]] = {"ref": {}, "hyp": {}}
    for _, (utterance, row, *cells) in read_fields(path):
        if row in found:
            found[row][utterance] = [cell for cell in cells if cell != GAP]
    return found["ref"], found["hyp"]


def _numbered(ref: Sequence[str], hyp: Sequence[str]) -> tuple[list[int], list[int]]:
    """The words as numbers from 0, the same word the same number; an <UNK> that was recognised has one of its own."""
    number = {word: i for i, word in enumerate(dict.fromkeys([*ref, *hyp]))}
    return [number[word] for word in ref], [len(number) if word == UNKNOWN_WORD else number[word] for word in hyp]


def _align(ref: Sequence[str], hyp: Sequence[str]) -> list[tuple[str | None, str | None, str]]:
    """(word of the reference, of the hypothesis, kind of error: C, S, I or D, its first letter) of the best alignment.

    None stands opposite a word that was left out or put in. kaldialign gets numbers, its gap -1, which no word is.
    """
    refs, hyps, columns = iter(ref), iter(hyp), []
    for a, b in kaldialign.align(*_numbered(ref, hyp), -1):
        kind = "C" if a == b else "I" if a < 0 else "D" if b < 0 else "S"
        columns.append((None if a < 0 else next(refs), None if b < 0 else next(hyps), kind))
    return columns


def _check_same_utterances(refs: Sentences, hyps: Sentences) -> None:
    if missing := sorted(refs.keys() ^ hyps.keys()):
        side = "reference" if missing[0] in hyps else "hypothesis"
        raise ValueError(f"utterance {missing[0]} has no {side} ({len(missing)} utterances are on one side "
                         "only); decode and score the same utterances")
    if not any(refs.values()):
        raise ValueError("the references hold no words; a word error rate is not defined")
