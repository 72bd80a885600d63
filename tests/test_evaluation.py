import logging
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from decant.experiment import Run
from decant.score import evaluation
from decant.score.evaluation import Evaluation, choose_settings
from decant.score.scoring import ScoringConfig
from decant.search.beam_search import Hypotheses, LatticeSearch, SearchConfig

CONFIG = ScoringConfig(lm_weights=(4.0, 8.0, 12.0), word_insertion_penalties=(0.0, 1.0))


def system(name, seed):
    return SimpleNamespace(run=Run(name, seed=seed), label=f"{name}_{seed}", states=None)


def chosen(errors):
    """What dev chooses by the errors of each run, {(system, seed): {setting: errors}}; 9 where it says nothing."""
    found = SimpleNamespace(dev_errors=lambda one, settings: [Counter(
        {setting: errors[one.run.system, one.run.seed].get(setting, 9) for setting in settings})])
    return {one: setting for one, [setting] in choose_settings(
        found, [system(*one) for one in errors], CONFIG, at_a_time=1).items()}


def test_every_weight_is_tried_with_every_penalty():
    assert chosen({("monophone", 1): {(8.0, 1.0): 3, (4.0, 0.0): 4}}) == {("monophone", ""): (8.0, 1.0)}


def test_the_runs_of_a_variant_choose_together_and_each_variant_for_itself():
    errors = {("baseline", 1): {(4.0, 0.0): 1, (8.0, 0.0): 2}, ("baseline", 2): {(4.0, 0.0): 5, (8.0, 0.0): 2},
              ("ensemble", 1): {(12.0, 0.0): 0}}
    assert chosen(errors) == {("baseline", ""): (8.0, 0.0), ("ensemble", ""): (12.0, 0.0)}


def test_a_weight_at_the_edge_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        chosen({("monophone", 1): {(12.0, 1.0): 3}})
    assert "monophone: dev chose the LM weight 12, at the edge of scoring.lm_weights" in caplog.text


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """An Evaluation of one utterance of one word, `right`: the settings that recognise it; and the searches made."""
    searches, right = [], {(8.0, 1.0)}

    def decode(scored, graph, settings, search, jobs):
        searches.append((search, list(scored)))
        return {setting: Hypotheses({"u": ("a",) if setting in right else ()}, ()) for setting in settings}

    experiment = SimpleNamespace(alignment=lambda split: tmp_path, graph=lambda states: None,
                                 data=lambda split: tmp_path)
    monkeypatch.setattr(evaluation, "read_int_vectors", lambda scp: [("u", np.array([0, 1]))])
    monkeypatch.setattr(evaluation, "scorer_of", lambda *of: None)
    monkeypatch.setattr(evaluation, "frames_of", lambda *of: [("u", np.zeros((2, 3), np.float32))])
    monkeypatch.setattr(evaluation, "score", lambda scorer, frames: SimpleNamespace(
        log_likelihoods=frames, best=np.array([0, 0])))
    monkeypatch.setattr(evaluation, "read_words", lambda data: {"u": ["a"]})
    tuning = LatticeSearch(lm_weight=CONFIG.search_weight)
    (tmp_path / "dev_errors").mkdir()
    one = Evaluation(experiment, tmp_path, SearchConfig(), tuning, SimpleNamespace(decode=decode), torch.device("cpu"))
    return one, right, searches


def test_dev_is_searched_once_for_all_settings_and_its_errors_are_kept(evaluated):
    one, _, searches = evaluated
    first = one.dev_errors(system("monophone", 1), CONFIG.settings)
    assert first == [{setting: int(setting != (8.0, 1.0)) for setting in CONFIG.settings}] and len(first[0]) == 6
    assert one.dev_errors(system("monophone", 1), CONFIG.settings) == first
    assert [search for search, _ in searches] == [one.tuning]


def test_dev_is_searched_again_at_the_best_weight_where_the_first_search_was_far_from_it(evaluated):
    one, right, searches = evaluated
    right.clear()
    right.add((4.0, 0.0))
    one.dev_errors(system("monophone", 1), CONFIG.settings)
    assert [search.lm_weight for search, _ in searches] == [8.0, 4.0]
    one.dev_errors(system("monophone", 1), CONFIG.settings)
    assert len(searches) == 2


@pytest.mark.parametrize("weights, given, expected", [((4.0, 8.0, 12.0), 0.0, 8.0), ((12.0, 4.0, 8.0), 0.0, 8.0),
                                                      ((4.0, 8.0), 0.0, 4.0), ((4.0, 8.0), 5.0, 5.0)])
def test_dev_is_searched_at_the_weight_a_third_of_the_way_up_or_the_one_that_is_given(weights, given, expected):
    assert ScoringConfig(weights, lattice_lm_weight=given).search_weight == expected


def test_beams_that_keep_nothing_are_refused():
    with pytest.raises(ValueError, match="lattice_beam 0.*both beams have to be positive"):
        ScoringConfig(lattice_beam=0.0)
