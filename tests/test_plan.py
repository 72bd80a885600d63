"""What a recipe will need: its rows against figures worked out by hand, and what run.sh --plan prints."""

import subprocess
from pathlib import Path

import pytest

from decant.hmm.gmm_training import MonophoneConfig, TriphoneConfig
from decant.hmm.state_tying import StateTyingConfig
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.training import TrainingConfig
from decant.plan import Row, hours_of, sizes_of, stages
from decant.rates import RATES, rate
from steps.tables import SHARED_TABLES

ROOT = Path(__file__).parents[1]
SIZES = sizes_of({"train": 10.0, "dev": 1.0, "test": 2.0}, utterances=1000, ngrams=1e6)


def rows(sizes=SIZES, jobs=2, **tables):
    configured = {name: table() for name, table in SHARED_TABLES.items()} | tables
    return {row.stage: row for row in stages(configured, sizes, jobs)}


def test_filterbanks_are_four_bytes_a_bin_and_frame_and_take_their_rate():
    row = rows()["2 fbank"]
    assert row.disk == 13 * 360_000 * 40 * 4
    assert row.work == pytest.approx(13 * rate("fbank"))


def test_mixtures_take_an_alignment_and_a_re_estimation_a_round():
    config = MonophoneConfig(num_iterations=4, realign_iterations=(1, 2), last_split_iteration=2, utterances=500)
    assert hours_of(SIZES, 500) == 5 and hours_of(SIZES, 0) == hours_of(SIZES, 5000) == 10
    expected = 5 * (2 * rate("alignment of monophones") + 4 * rate("re-estimation"))
    assert rows(monophone=config)["3 monophone"].work == pytest.approx(expected)
    assert rows()["4 tied"].work == 0
    tied = rows(state_tying=StateTyingConfig(num_leaves=100), triphone=TriphoneConfig(
        num_iterations=4, realign_iterations=(2,), last_split_iteration=2))["4 tied"]
    assert tied.work == pytest.approx(10 * (2 * rate("alignment of triphones") + 4 * rate("re-estimation")))


def test_a_network_takes_six_operations_a_parameter_and_training_frame_and_two_a_frame_of_dev():
    model, training = AcousticModelConfig(hidden_layers=1, hidden_units=10), TrainingConfig(epochs=3)
    parameters = 26 * 40 * 10 + 10 + 10 * 120 + 120  # 120 states: 3 of each of 40 phones
    row = rows(acoustic_model=model, training=training)["7 baseline"]
    assert row.operations == parameters * 3 * 360_000 * (6 * 10 + 2 * 1)
    assert rows(acoustic_model=model, training=training)["8 ensemble"].operations == 9 * row.operations


def test_work_is_spread_over_jobs_and_networks_over_those_trained_at_a_time():
    row = Row("x", work=7200, operations=3600e9, steps=0.0, at_a_time=1)
    assert row.hours(jobs=2, core=1e9) == 1 + 1
    assert Row("x", operations=3600e9, at_a_time=9).hours(jobs=2, core=1e9) == 0.5


def test_a_gpu_takes_the_longer_of_its_operations_and_its_minibatches():
    assert Row("x", operations=3600 * rate("training, GPU"), steps=1).gpu_hours(jobs=2) == 1
    assert Row("x", operations=1.0, steps=3600 / rate("step, GPU")).gpu_hours(jobs=2) == 1
    assert rows()["7 baseline"].steps == 8 * 3_600_000 / 512


def test_an_estimated_language_model_has_n_grams_in_proportion_to_train():
    sizes = sizes_of({"train": 10.0, "dev": 1.0, "test": 2.0}, None, None)
    assert sizes.text == 98_400 and sizes.ngrams == pytest.approx(118_080)
    assert sizes.utterances == round(36_000 / rate("utterance"))
    assert rows(sizes)["1 lang"].work > rows(SIZES)["1 lang"].work - 2 * 1e6 * rate("n-gram reading")


def test_every_rate_says_its_unit_and_where_it_was_measured():
    assert all(about.value > 0 and about.unit and about.source for about in RATES.values())


def plan(recipe, *options, exp):
    command = [str(ROOT / f"recipes/{recipe}/run.sh"), "--plan", "--jobs", "2", "--exp", str(exp), *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=exp.parent)


def test_a_plan_is_printed_before_anything_runs_and_says_that_it_is_computed(tmp_path):
    done = plan("librispeech", exp=tmp_path / "exp")
    assert "Computed, not measured" in done.stdout and "100.6 hours of train, 10.7 of dev" in done.stdout
    stages = [line.split()[0] for line in done.stdout.splitlines()[3:] if line[0].isdigit()]
    assert stages == ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "13"]
    assert "together" in done.stdout and f"fbank: {rate('fbank'):g} core-seconds an hour" in done.stdout
    assert not (tmp_path / "exp").exists()


def test_hours_come_from_stage_0_or_the_command_line_and_are_asked_for_where_neither_knows(tmp_path):
    done = plan("an4", exp=tmp_path / "exp")
    assert done.returncode and "error: --plan: how much speech there is is not known" in done.stderr
    done = plan("an4", "--plan-hours", "2", "0.5", exp=tmp_path / "exp")
    assert "2.0 hours of train, 0.5 of dev, 0.1 of test (--plan-hours)" in done.stdout
    for split, seconds in (("train", "7200"), ("dev", "3600"), ("test_a", "1800"), ("test_b", "1800")):
        (tmp_path / "exp/data" / split).mkdir(parents=True)
        (tmp_path / "exp/data" / split / "utt2dur").write_text(f"u {seconds}\n")
    (tmp_path / "exp/data/stage.json").write_text("{}")
    (tmp_path / "exp/data/lm.arpa").write_text("\\data\\\nngram 1=1000000\nngram 2=2000000\n\n\\1-grams:\n")
    done = plan("an4", exp=tmp_path / "exp")
    assert "2.0 hours of train, 1.0 of dev, 1.0 of test" in done.stdout and "3 million n-grams;" in done.stdout
