"""Decoding and scoring of systems: tuning on dev, then the test sets with what dev chose.

LM weight and word insertion penalty belong to a system's variant: those with which all its runs together make the
fewest errors on dev. A run's own choice would be one of dev's accidents where dev is small. To choose them dev is
searched once, or twice: its lattices tell the words of each setting. What counts is then decoded with what was chosen.
What is done already is kept, so that an interrupted stage goes on.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from decant.distill.scorer import score
from decant.experiment import Experiment
from decant.feat.archive import read_int_vectors
from decant.feat.data_dir import read_words
from decant.files import atomic_path
from decant.parallel import parallel_map
from decant.score.results import COMPARED, Comparison, ResultRow
from decant.score.scoring import (
    ScoringConfig,
    Sentences,
    choose_setting,
    paired_difference,
    utterance_errors,
    wer_interval,
    word_errors,
    write_alignments,
)
from decant.score.systems import System, frames_of, parameters, scorer_of, training_seconds
from decant.search.beam_search import Hypotheses, LatticeSearch, SearchConfig
from decant.search.engine import Engine
from decant.search.lattice import Setting

log = logging.getLogger(__name__)

FAR = 1.6  # a lattice tells little of LM weights so many times higher or lower than its search's
Variant = tuple[str, str]  # system and variant: whose runs share an LM weight and a penalty


@dataclass(frozen=True)
class Evaluation:
    """How the systems of an experiment are decoded. out: the folder of what is found. search: what counts; tuning: what
    the settings are chosen by. jobs: processes that search for one system."""

    experiment: Experiment
    out: Path
    search: SearchConfig
    tuning: LatticeSearch
    engine: Engine
    device: torch.device
    jobs: int = 1

    def decode(self, system: System, split: str, settings: Sequence[Setting],
               search: SearchConfig) -> tuple[Sentences, dict[Setting, Hypotheses], dict[str, np.ndarray]]:
        """The references of a split; what the system recognises with each setting; for each frame of the aligned
        utterances whether its most probable pdf-id is the aligned one, bool [T]."""
        labels = dict(read_int_vectors(self.experiment.alignment(split) / "ali.scp"))
        scorer, right = scorer_of(self.experiment, system, self.device), {}

        def log_likelihoods() -> Iterator[tuple[str, np.ndarray]]:
            for utterance, frames in frames_of(self.experiment, system, split):
                scored = score(scorer, frames)
                if utterance in labels:
                    right[utterance] = scored.best == labels[utterance]
                yield utterance, scored.log_likelihoods

        graph = self.experiment.graph(system.states)
        grid = self.engine.decode(log_likelihoods(), graph, settings, search, self.jobs)
        refs = read_words(self.experiment.data(split))
        # An utterance too short for a frame is recognised as nothing: its words count as deleted.
        return refs, {setting: Hypotheses(dict.fromkeys(refs, ()) | found.words, found.partial,
                                          dict.fromkeys(refs, ()) | found.rescored)
                      for setting, found in grid.items()}, right

    @property
    def passes(self) -> tuple[str, ...]:
        """What there are words of, fields of Hypotheses: those of the graph's language model, and of a larger one."""
        return ("words", "rescored") if self.tuning.language_models else ("words",)

    def dev_errors(self, system: System, settings: Sequence[Setting]) -> list[Counter[Setting]]:
        """For each of the passes the system's word errors on dev with each setting, of one search, or of a second one
        where the first was at a weight far from the best; dev_errors/<label>.json keeps them."""
        file = self.dev_file(system)
        if not file.exists():
            search = self.tuning
            found = self._errors_of(system, settings, search)
            best, _ = choose_setting({(weight, penalty): errors for weight, penalty, errors in found[-1]})
            if not 1 / FAR <= best / search.lm_weight <= FAR:
                search = replace(search, lm_weight=best)
                found = self._errors_of(system, settings, search)
            with atomic_path(file) as path:
                path.write_text(json.dumps({"lm_weight": search.lm_weight, "errors": found}))
        return [Counter({(weight, penalty): errors for weight, penalty, errors in one})
                for one in json.loads(file.read_text())["errors"]]

    def _errors_of(self, system: System, settings: Sequence[Setting], search: LatticeSearch) -> list[list]:
        """For each of the passes (LM weight, penalty, word errors on dev) of the settings."""
        refs, grid, _ = self.decode(system, "dev", settings, search)
        return [[[*setting, word_errors(refs, getattr(grid[setting], name)).total] for setting in settings]
                for name in self.passes]

    def score(self, system: System, splits: Sequence[str], setting: Setting, *rescored: Setting) -> None:
        """Writes the system's rows to rows/<label>.json, its alignments to details/, and what it counted in every
        utterance to counts/, unless they are there. rescored: the setting of a larger language model, if there is one;
        it scores the lattices that dev's were like."""
        if (rows_file := self.rows_file(system)).exists():
            return
        rows = []
        for split in splits:
            refs, grid, right = self.decode(system, split, [setting], self.search)
            words, partial = grid[setting].words, grid[setting].partial
            if partial:
                log.warning("%s, %s: %d of %d utterances end in no final state; their best partial paths count: %s",
                            system.label, split, len(partial), len(words), " ".join(partial))
            write_alignments(self.out / "details" / f"{system.label}_{split}.txt", refs, words)
            row, others = self.row(system, split, setting, refs, words, right), {}
            for other in rescored:
                search = replace(self.tuning, lm_weight=json.loads(self.dev_file(system).read_text())["lm_weight"])
                others = self.decode(system, split, [other], search)[1][other].rescored
                write_alignments(self.out / "details" / f"{system.label}_{split}_rescored.txt", refs, others)
                errors, (low, high) = word_errors(refs, others), wer_interval(refs, others)
                row = replace(row, rescored_wer=errors.wer, rescored_wer_low=low, rescored_wer_high=high,
                              rescored_lm_weight=other[0], rescored_word_insertion_penalty=other[1])
            write_counts(self.counts_file(system, split), refs, words, right, others)
            rows.append(row)
        with atomic_path(rows_file) as path:
            path.write_text(json.dumps([asdict(row) for row in rows]))

    def row(self, system: System, split: str, setting: Setting, refs: Sentences, words: Sentences,
            right: dict[str, np.ndarray]) -> ResultRow:
        errors, (low, high) = word_errors(refs, words), wer_interval(refs, words)
        frames = np.concatenate(list(right.values()))
        aligned = system.states == self.experiment.mixtures[-1]  # other states have no frame accuracy
        first = system.folders[0].relative_to(self.experiment.root)
        return ResultRow(
            **asdict(system.run), variant=system.run.variant, split=split, chosen=system.chosen,
            frames=len(frames) if aligned else None, frame_accuracy=float(frames.mean()) if aligned else None,
            words=errors.words, wer=errors.wer, wer_low=low, wer_high=high, parameters=parameters(system),
            seconds=training_seconds(system), lm_weight=setting[0], word_insertion_penalty=setting[1],
            config=f"{first.parts[0]}/stage.toml" if system.is_mixtures else f"{first}/config.toml")

    def dev_file(self, system: System) -> Path:
        return self.out / "dev_errors" / f"{system.label}.json"

    def rows_file(self, system: System) -> Path:
        return self.out / "rows" / f"{system.label}.json"

    def counts_file(self, system: System, split: str) -> Path:
        return self.out / "counts" / f"{system.label}_{split}.json"


def evaluate(evaluation: Evaluation, systems: Sequence[System], config: ScoringConfig, tests: Sequence[str],
             at_a_time: int) -> list[ResultRow]:
    """The rows of all systems: dev for all, the test sets for those that dev chose; `at_a_time` of them in parallel."""
    for folder in ("dev_errors", "rows", "details", "counts"):
        (evaluation.out / folder).mkdir(exist_ok=True)
    settings = choose_settings(evaluation, systems, config, at_a_time)
    tasks = [(system, ("dev", *tests) if system.chosen else ("dev",), *settings[variant(system)]) for system in systems]
    for _ in parallel_map(evaluation.score, tasks, at_a_time, "decoding"):
        pass
    return [ResultRow(**row) for system in systems for row in json.loads(evaluation.rows_file(system).read_text())]


def variant(system: System) -> Variant:
    return system.run.system, system.run.variant


def choose_settings(evaluation: Evaluation, systems: Sequence[System], config: ScoringConfig,
                    at_a_time: int) -> dict[Variant, list[Setting]]:
    """Of each variant the LM weight and the penalty with which all its runs together make the fewest errors on dev, in
    each of the evaluation's passes."""
    tasks = [(system, config.settings) for system in systems]
    errors: dict[Variant, list[Counter[Setting]]] = {}
    for system, found in zip(systems, parallel_map(evaluation.dev_errors, tasks, at_a_time, "dev"), strict=True):
        for total, of_run in zip(errors.setdefault(variant(system), [Counter() for _ in found]), found, strict=True):
            total.update(of_run)
    chosen = {one: [choose_setting(counts) for counts in errors[one]] for one in errors}
    edges = {min(config.lm_weights), max(config.lm_weights)} if len(config.lm_weights) > 1 else set()
    for one, settings in sorted(chosen.items()):
        for (weight, _), where in zip(settings, ("", ", with the larger language model"), strict=False):
            if weight in edges:
                log.warning("%s%s: dev chose the LM weight %g, at the edge of scoring.lm_weights; try more beyond it",
                            " ".join(one).strip(), where, weight)
    return chosen


def write_counts(path: Path, refs: Sentences, hyps: Sentences, right: dict[str, np.ndarray],
                 rescored: Sentences) -> None:
    """{utterance: [word errors, words, right frames, frames]}, and word errors with a larger language model if there
    is one; without an alignment, no frames."""
    counts = {}
    for utterance in sorted(refs):
        errors, frames = utterance_errors(refs[utterance], hyps[utterance]), right.get(utterance, np.zeros(0, bool))
        counts[utterance] = [errors.total, errors.words, int(frames.sum()), len(frames)]
        if rescored:
            counts[utterance].append(utterance_errors(refs[utterance], rescored[utterance]).total)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(counts))


def comparisons(evaluation: Evaluation, systems: Sequence[System], tests: Sequence[str]) -> Iterator[Comparison]:
    """The systems that results name for it, each with another, on every test set."""
    def counts(name: str, split: str) -> np.ndarray:
        """The mean over a system's runs of what write_counts wrote: float64 [U, 4 or 5]."""
        runs = [json.loads(evaluation.counts_file(system, split).read_text())
                for system in systems if system.run.system == name and system.chosen]
        return np.mean([[run[utterance] for utterance in sorted(run)] for run in runs], axis=0)

    there = {system.run.system for system in systems}
    for split in tests:
        for system, against in COMPARED:
            if {system, against} <= there:
                ours, theirs = counts(system, split), counts(against, split)
                for figure, count, size in (("frame_accuracy", 2, 3), ("wer", 0, 1), ("rescored_wer", 4, 1)):
                    if count == ours.shape[1]:
                        break
                    yield Comparison(system, against, figure,
                                     *paired_difference(ours[:, count], theirs[:, count], ours[:, size]), split)
