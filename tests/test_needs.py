import logging
import shutil

import numpy as np
import pytest
import torch

from decant.distill import needs
from decant.distill.needs import Frames, Needs, of_soft_targets, of_students, of_trainings
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig, finish_pass, made_from, write_shard
from decant.feat.fbank import FbankConfig
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, num_parameters, save_model
from decant.nnet.checkpoint import TrainingState, save_checkpoint
from decant.nnet.frame_store import pack
from decant.nnet.training import TrainingConfig

SIZES = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=2, hidden_units=64)
HUGE = Frames(720_000_000, 40, 14_000)


def bytes_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.*") if path.is_file())


def test_a_network_and_two_checkpoints_are_what_a_training_needs_on_disk(tmp_path):
    frames = Frames(200, 40, 500)
    model = AcousticModel(SIZES, 40, 500)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    best = {name: x.clone() for name, x in model.state_dict().items()}
    save_model(tmp_path / "model", model, FbankConfig())
    save_checkpoint(tmp_path / "checkpoint", model, optimizer, TrainingState(best=best))
    wanted = bytes_of(tmp_path / "model") + 2 * bytes_of(tmp_path / "checkpoint")
    assert frames.parameters(SIZES) == num_parameters(model)
    assert of_trainings(frames, SIZES, TrainingConfig(), 1, 1).disk == pytest.approx(wanted, rel=0.03)


def test_soft_targets_need_what_their_shards_take(tmp_path):
    frames, config = Frames(3000, 2, 6), SoftTargetsConfig(num_states=3, num_passes=2)
    store = pack([("a", np.zeros((3000, 2)), np.zeros(3000))])
    members = [AcousticModel(SIZES, 2, 6)]
    for number in range(2):
        write_shard(tmp_path, members, store, config, number, 0)
        finish_pass(tmp_path, number, made_from(members, store, config))
    assert of_soft_targets(frames, SIZES, config, 1, 1).disk == pytest.approx(bytes_of(tmp_path), rel=0.02)


def test_passes_are_eight_of_up_to_a_pool_of_frames_and_one_of_more_unless_they_are_said():
    assert [SoftTargetsConfig().passes(n) for n in (1, 2**23, 2**23 + 1)] == [8, 8, 1]
    assert [SoftTargetsConfig(num_passes=3).passes(n) for n in (1, 2**24)] == [3, 3]
    with pytest.raises(ValueError, match="num_passes may not be negative"):
        SoftTargetsConfig(num_passes=-1)


def test_memory_of_a_training_does_not_grow_with_frames_beyond_a_pool():
    config = TrainingConfig()
    sizes = [of_trainings(Frames(n, 40, 500), SIZES, config, 1, 1, record=96).memory for n in (2**23, 2**24, 10**9)]
    assert sizes[1] == sizes[2] and sizes[0] == sizes[1] < 3e9
    assert of_trainings(Frames(2**22, 40, 500), SIZES, config, 1, 1).memory < sizes[0]


def test_live_teachers_take_memory_and_later_generations_disk():
    training, config = TrainingConfig(), DistillationConfig(generations=2)
    stored = of_students(HUGE, SIZES, training, SoftTargetsConfig(), config, members=10, jobs=1)
    live = of_students(HUGE, SIZES, training, SoftTargetsConfig(stored=False), config, members=10, jobs=1)
    assert stored.disk - live.disk == 720_000_000 * (4 * 20 + 4 * 4)  # one pass: 69 GB
    networks = [of_students(HUGE, SIZES, training, SoftTargetsConfig(stored=False), DistillationConfig(num_seeds=n),
                            members=10, jobs=1) for n in (1, 2)]
    assert networks[1].disk - networks[0].disk == 4 * HUGE.parameters(SIZES)


def test_what_is_needed_is_said_and_a_disk_that_is_short_refused_before_any_work(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**12, 0, 5 * 10**9))
    with caplog.at_level(logging.INFO, logger=needs.logger.name):
        Needs(disk=5 * 10**9, memory=1_440_000_000).announce(tmp_path)
    assert f"needs about 5.0 GB of disk in {tmp_path}, 1.4 GB of memory" in caplog.text
    with pytest.raises(OSError, match=r"about 6.0 GB more are needed on this disk, and 5.0 GB are free; make room"):
        Needs(disk=6 * 10**9, memory=0).announce(tmp_path)


def test_what_an_interrupted_run_left_is_not_needed_again(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**6, 0, 60))
    (tmp_path / "pass_0").mkdir()
    (tmp_path / "pass_0/shard_0.npy").write_bytes(bytes(40))
    Needs(disk=100, memory=0).announce(tmp_path)
    with pytest.raises(OSError, match="GB more are needed"):
        Needs(disk=101, memory=0).announce(tmp_path)
