"""The default recipe, small, through all its stages: left alone, and killed on the way."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tomli_w
import torch
from small_recipe import ROOT, kill_when, results, run

from decant.distill.ensemble import EnsembleConfig
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.experiment import MIXTURES, Experiment
from decant.feat.archive import read_int_vectors, read_matrices
from decant.feat.data_dir import at_speed, read_data_dir, read_words, with_copies
from decant.feat.fbank import load_features, read_unusable
from decant.feat.front_end import read_filterbanks
from decant.hmm.gmm import load_gmm
from decant.hmm.shards import write_shards
from decant.lang.language_model import estimate_ngram, write_arpa
from decant.nnet.acoustic_model import load_model
from decant.nnet.frame_store import read_frame_store
from decant.score.regularization_results import read_regularization
from decant.score.systems import find_systems
from decant.search import adaptation
from decant.search.engine import Engine
from decant.search.shard_labels import adaptation as adaptation_of
from decant.search.shard_labels import labels_of, transforms_found
from steps import decode_and_score, report
from steps.adapted_features import labelling
from steps.align import label_all
from steps.stage_program import Stage


def test_the_recipe_scores_every_system_of_the_paper(left_alone):
    rows = results(left_alone)
    runs = {(row["system"], row["variant"], row["split"], row["seed"]) for row in rows}
    mixtures = {"monophone", "triphone", "triphone_lda", "triphone_sat"}
    assert {system for system, *_ in runs} == mixtures | {"baseline", "ensemble", "student"}
    assert {seed for system, _, split, seed in runs if (system, split) == ("baseline", "test")} == {1, 2, 3}
    students = [row for row in rows if row["system"] == "student"]
    variants = {row["variant"] for row in students if row["split"] == "dev"}
    chosen = json.loads((left_alone / "students/chosen.json").read_text())["temperature"]
    assert variants == {"temperature 1", "temperature 2", f"temperature {chosen:g} generation 2"}
    assert len({row["variant"] for row in students if row["split"] == "test"}) == 1  # only what dev chose sees test
    assert all(0 <= row["wer_low"] <= row["wer"] <= row["wer_high"] for row in rows)
    # Frame accuracy is against the last system's alignment: the states of those before are others.
    others = mixtures - {"triphone_sat"}
    assert {row["system"] for row in rows if row["frame_accuracy"] is None} == others
    assert all(0 < row["frame_accuracy"] < 1 for row in rows if row["system"] not in others)
    chance = 1 / 100
    assert all(row["frame_accuracy"] > 10 * chance for row in rows if row["system"] == "ensemble")


FRAMES_OF_A_SHARE = "score/regularization.json"


def test_soft_targets_regularise_a_small_share_of_the_data(left_alone):
    rows = read_regularization(left_alone / FRAMES_OF_A_SHARE)
    assert [(row.share, row.targets, row.seed) for row in rows] == [
        (1.0, "hard", 1), (0.2, "hard", 1), (0.2, "soft on mixtures", 1),
        (0.2, "hard", 2), (0.2, "soft on mixtures", 2)]
    hard, soft = (sum(row.dev for row in rows[kind::2]) for kind in (1, 2))
    assert soft > hard
    baseline = [row["frame_accuracy"] for row in results(left_alone)
                if (row["system"], row["split"], row["seed"]) == ("baseline", "test", 1)]
    assert baseline == pytest.approx([rows[0].test], abs=1e-3)
    assert "its soft targets keep" in (left_alone / "report/RESULTS.md").read_text()


def test_two_processes_train_the_networks_that_one_trains(left_alone):
    """All of them; the ensemble's members side by side, and the second generation's soft targets by both as well.
    Weights are compared where all is in float32: in bfloat16 sums of another order go further apart every step."""
    exp = left_alone.with_name("together")
    shutil.copytree(left_alone, exp)
    done = run(exp, "--stage", "9", "--stop-stage", "9", "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for note in ("soft_targets/pass_0/pass.json", "soft_targets/pass_1/pass.json"):
        assert (exp / note).read_text() == (left_alone / note).read_text()
    done = run(exp, "--stage", "7", "--stop-stage", "11", "--processes", "2", "--ensemble.side_by_side", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("baseline", "ensemble", "students", "regularization"):
        assert "training on cpu, processes: 2" in (exp / stage / "log").read_text()
    assert "member_02, member_03: training" in (exp / "ensemble/log").read_text()
    for name in ("baseline", "ensemble/member_03"):
        one, two = (json.loads((folder / name / "history.json").read_text()) for folder in (left_alone, exp))
        assert [epoch["loss"] for epoch in two] == pytest.approx([epoch["loss"] for epoch in one], rel=1e-3)
        for a, b in zip(*(load_model(folder / name)[0].parameters() for folder in (left_alone, exp)), strict=True):
            torch.testing.assert_close(a, b, rtol=0.01, atol=0.01)
    models, expected = ({path.relative_to(folder) for stage in ("students", "regularization")
                         for path in (folder / stage).glob("**/model.safetensors")} for folder in (exp, left_alone))
    assert models == expected and len(models) > 4
    shutil.rmtree(exp)


def test_networks_see_what_the_adapted_mixtures_see(left_alone):
    exp = left_alone
    speaker_of = dict(line.split() for line in (exp / "data/dev/utt2spk").read_text().splitlines())
    transforms = dict(read_matrices(exp / "alignment/dev/fmllr.scp"))
    assert transforms.keys() == set(speaker_of.values())
    assert all(x.shape == (20, 21) and not np.array_equal(x, np.eye(20, 21)) for x in transforms.values())
    # The store holds what the mixtures saw of the first utterance, before its speaker's transform and after it.
    _, seen = load_gmm(exp / "tied/triphone_sat")
    name, before = next(read_filterbanks(exp / "fbank/dev").for_mixtures(seen))
    transform = transforms[speaker_of[name]]
    store = read_frame_store(exp / "alignment/dev")
    after = before.numpy() @ transform[:, :-1].T + transform[:, -1]
    np.testing.assert_allclose(store.frames[dict(store.utterance_slices())[name]], after, rtol=2e-3, atol=1e-2)
    model, _ = load_model(exp / "students" / next(p.name for p in (exp / "students").glob("temperature_*")))
    assert model.features == "fmllr" and model.num_bins == 20


def test_networks_learn_from_copies_at_another_speed(left_alone):
    """They have frames, transforms and labels of their own: the utterance's phones, a ninth longer."""
    exp = left_alone
    store = read_frame_store(exp / "alignment/train")
    rows, labels = dict(store.utterance_slices()), dict(read_int_vectors(exp / "alignment/train/ali.scp"))
    originals = [name for name in rows if not name.startswith("sp0.9-")]
    assert list(rows) == originals + [f"sp0.9-{name}" for name in originals] and labels.keys() == rows.keys()
    speakers = {line.split()[1] for line in (exp / "data/train/utt2spk").read_text().splitlines()}
    transforms = dict(read_matrices(exp / "alignment/perturbed/fmllr.scp"))
    assert transforms.keys() == {f"sp0.9-{name}" for name in speakers}
    assert not any(np.array_equal(x, np.eye(20, 21)) for x in transforms.values())
    alike = []
    for name in originals:
        one, other = store.pdfs[rows[name]], store.pdfs[rows[f"sp0.9-{name}"]]
        assert len(other) == pytest.approx(len(one) / 0.9, abs=4)
        assert np.array_equal(labels[f"sp0.9-{name}"], other)
        at = (torch.arange(len(other)) * len(one) / len(other)).long()  # the same moment of the utterance
        alike.append((one[at] == other).double().mean().item())
    assert np.mean(alike) > 0.6


def test_a_copy_that_has_an_utterances_id_is_refused(left_alone, tmp_path):
    utterances = read_data_dir(left_alone / "data/train")
    copy = at_speed(utterances[0], 0.9)
    with pytest.raises(ValueError, match=f"data/train: frames.speeds would make {copy.id}, which is there already"):
        with_copies([*utterances, copy], [0.9], tmp_path / "data/train")


def stage_in(out, exp):
    """Stage 6 at work in the folder `out`."""
    return Stage(Experiment(exp, "alignment", out), out, 1, torch.device("cpu"), "", Engine(scratch=out))


@pytest.mark.parametrize("frames_at_a_time", [adaptation.FRAMES_AT_A_TIME, 1])
def test_transforms_of_dev_come_from_its_audio_alone(left_alone, tmp_path, monkeypatch, frames_at_a_time):
    """Without data/, and so without a transcript, they are the same; and speaker by speaker, too."""
    monkeypatch.setattr(adaptation, "FRAMES_AT_A_TIME", frames_at_a_time)
    exp = tmp_path / "exp"
    shutil.copytree(left_alone, exp, ignore=shutil.ignore_patterns("data"))
    shutil.copy(exp / "alignment/stage.toml", tmp_path)
    filterbanks, adapting = read_filterbanks(exp / "fbank/dev"), adaptation_of(labelling(stage_in(tmp_path, exp)))
    features = dict(filterbanks.for_mixtures(adapting.adapted.features))
    found = adapting.transforms(features, filterbanks.speaker_of)
    for speaker, transform in read_matrices(exp / "alignment/dev/fmllr.scp"):
        np.testing.assert_allclose(found[speaker], transform, atol=1e-5)


def test_a_shard_is_labelled_by_its_name_alone_and_one_that_is_not_there_is_an_error(left_alone, tmp_path):
    fbank, work = left_alone / "fbank/dev", tmp_path / "work"
    work.mkdir()
    shutil.copy(left_alone / "alignment/stage.toml", tmp_path)
    labelling(stage_in(tmp_path, left_alone)).write(work)
    shards = write_shards(fbank, read_words(left_alone / "data/dev"), work / "shards")

    def by_name(shard):
        return subprocess.run([sys.executable, "-m", "decant.search.shard_labels", work, shard], cwd=ROOT,
                              capture_output=True, text=True)

    for shard in reversed(shards):
        done = by_name(shard)
        assert done.returncode == 0, done.stderr
    written = dict(read_int_vectors(left_alone / "alignment/dev/ali.scp"))
    assert written and labels_of(work, shards).keys() >= written.keys()
    for speaker, transform in read_matrices(left_alone / "alignment/dev/fmllr.scp"):
        np.testing.assert_array_equal(transforms_found(work, shards)[speaker], transform)
    nowhere = by_name(work / "shards/9999")
    assert nowhere.returncode == 1 and "shards/9999" in nowhere.stderr and "Traceback" not in nowhere.stderr


def test_networks_see_filterbanks_where_the_config_says_so(left_alone):
    exp = left_alone.parent / "fbank"
    shutil.copytree(left_alone, exp)
    done = run(exp, "--frames.features", "fbank", "--stop-stage", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    store, (name, frames) = read_frame_store(exp / "alignment/dev"), next(load_features(exp / "fbank/dev"))
    np.testing.assert_allclose(store.frames[dict(store.utterance_slices())[name]], frames, rtol=2e-3, atol=1e-2)
    model, _ = load_model(exp / "baseline")
    assert model.features == "fbank" and model.num_bins == 40


@pytest.mark.parametrize("there, systems", [
    ({"baseline", "ensemble", "students"}, {"baseline", "ensemble", "student"}),
    ({"baseline", "ensemble"}, {"baseline", "ensemble"}), ({"baseline"}, {"baseline"}), (set(), set())])
def test_stages_that_a_recipe_leaves_out_have_no_rows(left_alone, there, systems):
    experiment = Experiment(left_alone, there=frozenset(there | {"tied"}))
    found = {system.run.system for system in find_systems(
        experiment, EnsembleConfig(num_members=3), SoftTargetsConfig(temperatures=(1.0, 2.0)),
        DistillationConfig(num_seeds=2, generations=2))}
    assert found == {"monophone", "triphone", "triphone_lda", "triphone_sat"} | systems


def test_gaussian_mixtures_alone_are_scored_and_reported(left_alone, tmp_path):
    """Stages 13 and 14 of a recipe without networks."""
    exp = tmp_path / "exp"
    exp.mkdir()
    for name in ("data", "lang", "fbank", "monophone", "tied", "graph", "alignment"):
        (exp / name).symlink_to(left_alone / name)
    for name, main in (("score", decode_and_score.main), ("report", report.main)):
        (exp / name).mkdir()
        shutil.copy(left_alone / "alignment/stage.toml", exp / name)
        main(Stage(Experiment(exp, name, exp / name), exp / name, 1, torch.device("cpu")))
    expected = [row for row in results(left_alone) if row["system"] in MIXTURES]
    assert [row | {"seconds": None} for row in json.loads((exp / "score/results.json").read_text())] == expected
    assert "| triphone_sat |" in (exp / "report/RESULTS.md").read_text()


def test_a_larger_language_model_has_figures_of_its_own_beside_the_graphs(left_alone, tmp_path):
    exp = tmp_path / "exp"
    for name in ("score", "report"):
        (exp / name).mkdir(parents=True)
    for name in ("data", "lang", "fbank", "monophone", "tied", "graph", "alignment"):
        (exp / name).symlink_to(left_alone / name)
    config = tomllib.loads((left_alone / "alignment/stage.toml").read_text())
    config["scoring"] = {"lm_weights": [8.0], "larger_lm": str(left_alone / "lang/lm.arpa"),
                         "lattice_search_beam": 20.0}
    config["search"] = {"beam": 20.0, "max_active": 100_000}  # so that neither search gives up what the other finds
    (exp / "score/stage.toml").write_text(tomli_w.dumps(config))
    decode_and_score.main(Stage(Experiment(exp, "score", exp / "score"), exp / "score", 1, torch.device("cpu")))
    rows = json.loads((exp / "score/results.json").read_text())
    assert {row["system"] for row in rows} == set(MIXTURES)
    for row in rows:  # the same language model again
        assert row["rescored_wer"] == pytest.approx(row["wer"], abs=0.02)
        assert row["rescored_wer_low"] <= row["rescored_wer"] <= row["rescored_wer_high"]
        assert row["rescored_lm_weight"] == 8.0
    report.main(Stage(Experiment(exp, "report", exp / "report"), exp / "report", 1, torch.device("cpu")))
    table = (exp / "report/RESULTS.md").read_text()
    assert "| larger LM, test % |" in table and "Retained gain in WER, larger LM: undefined" in table


@pytest.mark.parametrize("model, engine, message", [
    ("whole", "kaldi", "lm_whole.arpa.gz: not there, since stage 1 has pruned no language model"),
    ("", "kaldi", "lm_larger.arpa: lacks the word B"), ("", "k2", "k2 does not score lattices with a larger")])
def test_a_larger_language_model_that_cannot_serve_is_refused(tmp_path, model, engine, message):
    for folder, name, text in (("lang", "lm.arpa", "A A A B"), ("data", "lm_larger.arpa", "A A")):
        (tmp_path / folder).mkdir()
        write_arpa(estimate_ngram([text.split()], 1, set(text.split())), tmp_path / folder / name)
    stage = Stage(Experiment(tmp_path, "score", tmp_path / "score"), tmp_path / "score", 1, torch.device("cpu"),
                  engine=Engine(engine))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        decode_and_score.write_larger(stage, model)
    assert not (tmp_path / "score").exists()


def test_words_that_the_lexicon_lacks_cost_labels_but_no_utterance(left_alone, tmp_path):
    """However many they are: max_unusable is for what cannot be decoded."""
    exp = tmp_path / "exp"
    shutil.copytree(left_alone, exp)
    text = exp / "data/dev/text"
    lines = text.read_text().splitlines()
    unknown = {line.split()[0] for line in lines[::2]}
    text.write_text("".join(f"{line}{' XYZZY' if line.split()[0] in unknown else ''}\n" for line in lines))
    shutil.copy(exp / "alignment/stage.toml", tmp_path)
    label_all(stage_in(tmp_path, exp))
    assert read_unusable(tmp_path / "dev").keys() == unknown
    assert {utterance for utterance, _ in read_int_vectors(tmp_path / "dev/ali.scp")} == (
        {line.split()[0] for line in lines} - unknown)


def test_a_run_killed_in_feature_extraction_and_in_training_gives_the_same_results(left_alone):
    exp = left_alone.parent / "killed"
    for there, unfinished in (("fbank.partial/train/feats.scp", "fbank"),
                              ("tied.partial/triphone_lda/gmm.safetensors", "tied"),
                              ("alignment.partial/perturbed/fbank/feats.scp", "alignment"),
                              ("alignment.partial/network_1/checkpoint.safetensors", "alignment"),
                              ("baseline.partial/checkpoint.safetensors", "baseline"),
                              ("baseline.partial/model.safetensors", "baseline"),
                              ("ensemble.partial/member_03/checkpoint.safetensors", "ensemble"),
                              ("students.partial/*/checkpoint.safetensors", "students"),
                              ("students.partial/soft_targets_2/pass_0/shard_0.npy", "students"),
                              ("students.partial/generation_2_*/checkpoint.safetensors", "students"),
                              ("regularization.partial/soft_*/checkpoint.safetensors", "regularization")):
        kill_when(exp, there)
        assert not (exp / unfinished).exists()
    done = run(exp)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(exp) == results(left_alone)
    assert read_regularization(exp / FRAMES_OF_A_SHARE) == read_regularization(left_alone / FRAMES_OF_A_SHARE)
    assert "triphone: done before, kept" in (exp / "tied/log").read_text()


def test_a_second_run_passes_over_all_stages(left_alone):
    done = run(left_alone)
    assert done.returncode == 0 and done.stdout.count("done, passed over") == 14


def test_a_changed_setting_makes_its_stage_and_what_follows_stale(left_alone):
    listed = run(left_alone, "--list", "--training.learning_rate", "0.002").stdout.splitlines()
    states = {line.split()[1]: line.split(maxsplit=2)[2] for line in listed}
    assert states["alignment"] == states["graph"] == "done"
    assert states["baseline"] == "stale: training.learning_rate changed"
    assert states["soft_targets"].startswith("stale") and states["score"].startswith("stale")


def test_a_stage_asked_for_before_its_inputs_exist_is_refused(left_alone):
    done = run(left_alone.parent / "empty", "--stage", "7")
    assert done.returncode != 0
    assert "error: stage 0 (data) is to do; run from there, or without --stage" in done.stderr


@pytest.mark.parametrize("option, message", [
    (("--training.epoch", "3"), "training.epoch"),
    (("--training.epochs", "many"), "training.epochs"),
    (("--training.epochs", "0"), "dev_epochs and checkpoint_steps have to be at least 1"),
    (("--conf", "nowhere.toml"), "nowhere.toml: no such config file"),
    (("--soft_targets.unlabelled", "nowhere"), "soft_targets.unlabelled: "),
    (("--soft_targets.unlabelled", "nowhere"), "nowhere: no such data directory; make it"),
    (("--triphone.speaker_adaptation", "false"),
     "frames.features is fmllr, which needs triphone.speaker_adaptation = true"),
    (("--processes", "2", "--training.shard_weights", "true", "--ensemble.side_by_side", "2"),
     "members side by side do not divide their weights"),
])
def test_a_wrong_option_fails_before_any_work(left_alone, option, message):
    done = run(left_alone.parent / "none", *option)
    assert done.returncode != 0 and message in done.stderr
    assert not (left_alone.parent / "none").exists()


def test_two_runs_in_one_folder_are_refused(left_alone):
    with open(left_alone / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(left_alone)
    assert done.returncode != 0 and "another run is working here" in done.stderr


def test_nothing_that_is_loaded_can_run_code():
    """No objects in .npy files; pickles, torch.load and shells are ruff's to refuse (ruff.toml, make test)."""
    sources = [path.read_text() for folder in ("decant", "steps", "local") for path in (ROOT / folder).glob("**/*.py")]
    assert not any("allow_pickle=True" in source for source in sources)
    assert os.environ.get("DECANT_RUN") is None
