"""Audio without transcripts, which students learn from beside the training frames (stage 9)."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_recipe import kill_when, results, run

from decant.nnet.acoustic_model import load_model
from decant.nnet.frame_store import read_frame_store


def without_transcripts(data: Path, directory: Path, speaker: str) -> Path:
    """A data directory of the same audio, with other names of its utterances, and of its speakers."""
    directory.mkdir()
    for name in ("wav.scp", "utt2spk"):
        rows = [line.split(maxsplit=1) for line in (data / name).read_text().splitlines()]
        values = [speaker + value if name == "utt2spk" else str((data / value).resolve()) for _, value in rows]
        lines = [f"new-{key} {value}\n" for (key, _), value in zip(rows, values, strict=True)]
        (directory / name).write_text("".join(lines))
    utterances = {}
    for line in (directory / "utt2spk").read_text().splitlines():
        utterances.setdefault(line.split()[1], []).append(line.split()[0])
    (directory / "spk2utt").write_text("".join(f"{key} {' '.join(ids)}\n" for key, ids in sorted(utterances.items())))
    return directory


def test_students_learn_from_audio_without_transcripts(left_alone, tmp_path):
    """Here dev's, under other names: its frames are then known, and so are the labels that it should have."""
    exp = left_alone.with_name("unlabelled")
    shutil.copytree(left_alone, exp)
    data = without_transcripts(exp / "data/dev", tmp_path / "audio", "new-")
    options = ("--soft_targets.unlabelled", str(data), "--stop-stage", "10")
    kill_when(exp, "soft_targets.partial/unlabelled/fmllr.scp", *options)
    kill_when(exp, "soft_targets.partial/frames/utterances.txt", *options)
    done = run(exp, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    train, dev = (read_frame_store(exp / "alignment" / split) for split in ("train", "dev"))
    both = read_frame_store(exp / "soft_targets/frames")
    assert both.utterances == train.utterances + tuple(f"new-{name}" for name in dev.utterances)
    assert torch.equal(both.frames, torch.cat([train.frames, dev.frames]))
    [of_ensemble] = [row["frame_accuracy"] for row in results(left_alone)
                     if (row["system"], row["split"]) == ("ensemble", "dev")]
    assert (both.pdfs[len(train):] == dev.pdfs).double().mean() == pytest.approx(of_ensemble, abs=0.03)
    records = np.load(exp / "soft_targets/pass_0/shard_0.npy", allow_pickle=False)
    best = torch.from_numpy(records["states"][len(train):, 0].astype(int))
    assert (best == both.pdfs[len(train):]).double().mean() > 0.98  # but for ties in bfloat16
    name = "temperature_1_seed_1"
    with_audio, without = (load_model(folder / "students" / name)[0] for folder in (exp, left_alone))
    assert not torch.equal(with_audio.layers[1].weight, without.layers[1].weight)
    data = without_transcripts(exp / "data/train", tmp_path / "again", "new-")
    lists = {name: (data / name).read_text() for name in ("wav.scp", "utt2spk", "spk2utt")}
    for name, lines in lists.items():
        (data / name).write_text(lines.replace("new-", ""))
    done = run(exp, "--soft_targets.unlabelled", str(data), "--stop-stage", "9", "--processes", "2")
    assert "Traceback" not in (exp / "soft_targets.partial/log").read_text()
    assert done.returncode != 0 and re.search(r"again/utt2spk: utterance \S+ is one of train's too", done.stderr)
    shutil.rmtree(exp)


def test_students_of_a_live_teacher_learn_from_filterbanks_of_such_audio(left_alone, tmp_path):
    exp = left_alone.with_name("live")
    shutil.copytree(left_alone, exp)
    data = without_transcripts(exp / "data/dev", tmp_path / "audio", "new-")
    done = run(exp, "--frames.features", "fbank", "--ensemble.num_members", "2", "--distillation.generations", "1",
               "--distillation.num_seeds", "1", "--soft_targets.temperatures", "[2.0]",
               "--soft_targets.stored", "false", "--soft_targets.unlabelled", str(data), "--stop-stage", "10",
               "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    train, dev = (read_frame_store(exp / "alignment" / split) for split in ("train", "dev"))
    assert torch.equal(read_frame_store(exp / "soft_targets/frames").frames, torch.cat([train.frames, dev.frames]))
    assert not (exp / "soft_targets/pass_0").exists()
    model, _ = load_model(exp / "students/temperature_2_seed_1")
    assert model.features == "fbank" and torch.equal(model.log_priors, load_model(exp / "baseline")[0].log_priors)
    shutil.rmtree(exp)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_audio_of_speakers_of_dev_and_test_is_refused(left_alone, tmp_path, split):
    exp = left_alone.with_name(f"refused_{split}")
    shutil.copytree(left_alone, exp)
    data = without_transcripts(exp / "data" / split, tmp_path / "audio", "")
    done = run(exp, "--soft_targets.unlabelled", str(data), "--stop-stage", "9")
    assert done.returncode != 0
    assert re.search(rf"speakers in more than one split: .*audio, {split}\); results on known voices", done.stderr)
    shutil.rmtree(exp)
