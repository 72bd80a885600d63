import numpy as np
import pytest
import torch

from decant.acoustic_model import AcousticModel, AcousticModelConfig
from decant.ensemble import mean_probabilities
from decant.frame_store import pack, read_frame_store, write_frame_store
from decant.mixing import mixture
from decant.soft_targets import DistillationConfig, SoftTargetsConfig, read_soft_targets, write_soft_targets


@pytest.fixture
def teacher(tmp_path):
    config = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=1, hidden_units=4)
    members = [AcousticModel(config, num_bins=2, num_pdfs=3).initialize(seed) for seed in (1, 2)]
    for seed, model in enumerate(members):
        torch.nn.init.normal_(model.layers[-1].weight, generator=torch.Generator().manual_seed(seed))
    frames = np.random.default_rng(0).normal(size=(11, 2))
    write_frame_store(tmp_path / "store", pack([("a", frames, np.zeros(11, int))]))
    return members, read_frame_store(tmp_path / "store")


def test_the_file_holds_what_the_ensemble_says_at_each_temperature(teacher, tmp_path):
    members, store = teacher
    write_soft_targets(tmp_path, members, store, 0, (1.0, 5.0), batch_size=4)
    windows = members[0].windows(store, torch.arange(11))
    for temperature, expected in zip((1.0, 5.0), mean_probabilities(members, windows, (1.0, 5.0)), strict=True):
        targets = read_soft_targets(tmp_path, 0, temperature, 11)
        assert targets.dtype == torch.float16
        torch.testing.assert_close(targets.float(), expected, rtol=1e-3, atol=1e-6)
        assert targets.float().sum(dim=1).tolist() == pytest.approx([1.0] * 11, abs=2e-3)


def test_a_later_pass_holds_the_teachers_answer_to_the_mixture_that_the_student_sees(teacher, tmp_path):
    members, store = teacher
    write_soft_targets(tmp_path, members, store, 1, (2.0,), batch_size=4)
    mixed, index = mixture(11, 1, store.frames.device), torch.arange(11)
    [expected] = mean_probabilities(members, mixed.windows(store, index, 1, 1), [2.0])
    torch.testing.assert_close(read_soft_targets(tmp_path, 1, 2.0, 11).float(), expected, rtol=1e-3, atol=1e-6)


def test_a_temperature_that_was_not_written_and_another_store_are_refused(teacher, tmp_path):
    members, store = teacher
    write_soft_targets(tmp_path, members, store, 0, (2.0,))
    with pytest.raises(FileNotFoundError, match="pass_0_temperature_5.npy: no soft targets of this pass"):
        read_soft_targets(tmp_path, 0, 5.0, 11)
    with pytest.raises(ValueError, match="targets for 11 frames, but the store has 12"):
        read_soft_targets(tmp_path, 0, 2.0, 12)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="all above 0"):
        SoftTargetsConfig(temperatures=(0.0, 1.0))
    with pytest.raises(ValueError, match="may not be negative"):
        DistillationConfig(hard_label_weight=-0.5)
