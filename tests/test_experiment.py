import json

import pytest

from decant.experiment import Experiment, Run, read_choice, student_runs, training_seed


def test_a_stage_sees_its_own_folder_and_those_that_it_declares(tmp_path):
    out = tmp_path / "students.partial"
    experiment = Experiment(tmp_path, "students", out, frozenset({"alignment", "soft_targets"}))
    assert experiment.alignment("dev") == tmp_path / "alignment/dev"
    assert experiment.student(Run("student", 2.0, 1, 3)) == out / "temperature_2_seed_3"
    assert experiment.soft_targets(1) == tmp_path / "soft_targets"
    assert experiment.soft_targets(2) == out / "soft_targets_2"
    with pytest.raises(ValueError, match="stage students reads baseline, which its line in steps/stages.sh does not"):
        experiment.members(2)


def test_the_test_sets_are_the_folders_whose_names_say_so(tmp_path):
    for name in ("data/train", "data/dev", "data/test_other", "data/test_clean", "alignment/test"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/test_notes").write_text("")
    experiment = Experiment(tmp_path)
    assert experiment.splits("data") == ("train", "dev", "test_clean", "test_other")
    assert experiment.splits("alignment") == ("train", "dev", "test")


def test_the_mixtures_are_those_that_stage_4_names_after_the_monophones(tmp_path):
    experiment = Experiment(tmp_path)
    assert experiment.mixtures == [tmp_path / "monophone"]  # a recipe may leave stage 4 out
    (tmp_path / "tied").mkdir()
    (tmp_path / "tied/models.json").write_text(json.dumps(["triphone", "triphone_lda"]))
    assert [folder.name for folder in experiment.mixtures] == ["monophone", "triphone", "triphone_lda"]


def test_runs_that_differ_have_labels_and_folders_that_differ(tmp_path):
    runs = student_runs([1.0, 2.0, 5.0], num_seeds=2, generations=2, chosen=2.0)
    assert [(run.temperature, run.generation, run.seed) for run in runs] == [
        (1.0, 1, 1), (5.0, 1, 1), (2.0, 1, 1), (2.0, 1, 2), (2.0, 2, 1), (2.0, 2, 2)]
    assert runs[-1].variant == "temperature 2 generation 2"
    runs += [Run("ensemble"), Run("baseline", seed=1), Run("baseline", seed=2)]
    assert len({run.label for run in runs}) == len(runs)
    assert len({Experiment(tmp_path).student(run) for run in runs if run.system == "student"}) == 6
    with pytest.raises(ValueError, match="system is 'parrot'; it has to be one of monophone, "):
        Run("parrot")


def test_a_run_that_is_not_a_students_has_no_students_folder(tmp_path):
    assert Run("student", 2.0, 1, 3).of_student == (2.0, 1, 3)
    with pytest.raises(ValueError, match="is not a student's"):
        Experiment(tmp_path).student(Run("baseline", seed=1))


def test_networks_of_different_kinds_generations_and_draws_have_seeds_of_their_own():
    seeds = [training_seed(kind, number, draw, generation) for kind in ("member", "student", "regularized")
             for number in range(1, 11) for draw in range(3) for generation in (1, 2, 3)
             if kind == "student" or generation == 1]
    assert len(set(seeds)) == len(seeds)


def test_the_choice_of_dev_is_read_as_stage_10_wrote_it(tmp_path):
    (tmp_path / "chosen.json").write_text('{"temperature": 2.0, "generation": 1}')
    assert read_choice(tmp_path / "chosen.json") == (2.0, 1)
