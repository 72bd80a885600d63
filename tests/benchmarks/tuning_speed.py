"""Tuning on dev by one search with lattices, beside a search for each setting: CPU seconds, their ratio, word errors.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/tuning_speed.py exp/an4 [--system monophone]

A system of Gaussian mixtures by its name, or `baseline`. The searches are what earlier versions did: one for every LM
weight with the first penalty, then for every penalty with the best weight.
"""

import argparse
import time
import tomllib
from pathlib import Path

import torch

from decant.distill.scorer import score
from decant.experiment import Experiment, Run
from decant.feat.data_dir import read_words
from decant.score.scoring import ScoringConfig, choose_setting, word_errors
from decant.score.systems import System, frames_of, scorer_of
from decant.search.beam_search import LatticeSearch, SearchConfig, decode_grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("exp", type=Path)
    parser.add_argument("--system", default="baseline")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiment, table = Experiment(given.exp), tomllib.loads((given.exp / "config.toml").read_text())
    config = ScoringConfig(**{name: tuple(value) if isinstance(value, list) else value
                              for name, value in table.get("scoring", {}).items()})
    states = {path.name: path for path in experiment.mixtures}.get(given.system, experiment.mixtures[-1])
    folder = experiment.member(1) if given.system == "baseline" else states
    system = System(Run(given.system), (folder,), states)
    scorer, graph = scorer_of(experiment, system, torch.device("cpu")), experiment.graph(states)
    splits = ("dev", "test")
    scored = {split: [(utterance, score(scorer, frames).log_likelihoods)
                      for utterance, frames in frames_of(experiment, system, split)] for split in splits}
    refs = {split: read_words(experiment.data(split)) for split in splits}

    def errors(split: str, settings: list, search: SearchConfig) -> tuple[dict, float]:
        """Word errors by setting, CPU seconds."""
        started = time.process_time()
        found = decode_grid(scored[split], graph, settings, search)
        return {setting: word_errors(refs[split], dict.fromkeys(refs[split], ()) | of.words).total
                for setting, of in found.items()}, time.process_time() - started

    search, penalties = SearchConfig(), config.word_insertion_penalties
    first, first_seconds = errors("dev", [(weight, penalties[0]) for weight in config.lm_weights], search)
    weight, _ = choose_setting(first)
    grid, seconds = errors("dev", [(weight, penalty) for penalty in penalties], search)
    lattices = LatticeSearch(config.lattice_search_beam, search.max_active, config.search_weight, config.lattice_beam)
    once, once_seconds = errors("dev", config.settings, lattices)
    for name, by_setting in (("searches", grid), ("lattices", once)):
        setting = choose_setting(by_setting)
        [test] = errors("test", [setting], search)[0].values()
        print(f"{name}: LM weight {setting[0]:g}, penalty {setting[1]:g}: {by_setting[setting]} word errors on dev; "
              f"decoded with it: {errors('dev', [setting], search)[0][setting]} on dev, {test} on test")
    seconds += first_seconds
    print(f"{given.system}: {len(first) + len(grid)} searches {seconds:.2f} s; one search and {len(once)} settings "
          f"{once_seconds:.2f} s; ratio {seconds / once_seconds:.1f}")
    same = sum(once[setting] == count for setting, count in (first | grid).items())
    print(f"as many errors with {same} of {len(first | grid)} settings")


if __name__ == "__main__":
    main()
