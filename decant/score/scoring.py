"""Word errors, their confidence interval, and whether two systems differ.

The word error rate is the substitutions, deletions and insertions of the cheapest alignment (kaldialign) over
the words of the reference. No utterance may be missing from either side, so that systems compare.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import kaldialign
import numpy as np

from decant.files import atomic_path
from decant.settings import config_field

Sentences = Mapping[str, Sequence[str]]  # the words of each utterance
GAP = "***"  # stands opposite a word that was left out or put in


@dataclass(frozen=True)
class ScoringConfig:
    """What is tried on dev, whose best decodes test."""

    lm_weights: tuple[float, ...] = config_field(
        (4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 17.0),
        "Weights of the language model that are tried on dev, with the first word insertion penalty.")
    word_insertion_penalties: tuple[float, ...] = config_field(
        (0.0, -1.0, 1.0), "Costs of a word that are tried on dev, with the best language model weight.")

    def __post_init__(self) -> None:
        if not self.lm_weights or min(self.lm_weights) <= 0 or not self.word_insertion_penalties:
            raise ValueError("lm_weights needs one or more, all above 0, "
                             "and word_insertion_penalties needs one or more")


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
    counts = Counter(_kind_of_error(*pair) for pair in kaldialign.align(ref, hyp, GAP))
    return WordErrors(counts["S"], counts["D"], counts["I"], counts["C"] + counts["S"] + counts["D"])


def wer_interval(refs: Sentences, hyps: Sentences, replications: int = 10_000) -> tuple[float, float]:
    """The 95% confidence interval of the word error rate, as fractions: a bootstrap over utterances.

    Bisani and Ney (2004), as Kaldi's compute-wer-bootci; the same input gives the same interval.
    """
    _check_same_utterances(refs, hyps)
    utterances = sorted(refs)
    result = kaldialign.bootstrap_wer_ci(
        [list(refs[utterance]) for utterance in utterances],
        [list(hyps[utterance]) for utterance in utterances],
        replications=replications, seed=0,
    )
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
            pairs = kaldialign.align(refs[utterance], hyps[utterance], GAP)
            columns = [(ref, hyp, _kind_of_error(ref, hyp)) for ref, hyp in pairs]
            for row, name in enumerate(("ref", "hyp", "op ")):
                cells = [column[row].ljust(max(map(len, column))) for column in columns]
                print(" ".join((utterance, name, *cells)).rstrip(), file=file)
            errors = [error for _, _, error in columns]
            print(utterance, "#csid", *map(errors.count, "CSID"), file=file)


def _kind_of_error(ref: str, hyp: str) -> str:
    """Correct, Substituted, Inserted or Deleted, by its first letter."""
    if ref == hyp:
        return "C"
    return "I" if ref == GAP else "D" if hyp == GAP else "S"


def _check_same_utterances(refs: Sentences, hyps: Sentences) -> None:
    if missing := sorted(refs.keys() ^ hyps.keys()):
        side = "reference" if missing[0] in hyps else "hypothesis"
        raise ValueError(f"utterance {missing[0]} has no {side} ({len(missing)} utterances are on one side "
                         "only); decode and score the same utterances")
    if not any(refs.values()):
        raise ValueError("the references hold no words; a word error rate is not defined")
