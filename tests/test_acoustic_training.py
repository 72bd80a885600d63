from dataclasses import replace

import torch
from small_training import CONFIG, SIZES, network
from torch.nn.functional import one_hot

from decant.distill.mixing import mixture
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig
from decant.nnet import data_parallel
from decant.nnet.frame_store import read_frame_store
from decant.nnet.losses import hard_label_loss
from steps.acoustic_training import hard_labels, soft_labels, train_models
from steps.common import Stage


def with_opinions(seed):
    """A network that does not begin with the same answer to everything."""
    model = network(seed)
    torch.nn.init.normal_(model.layers[-1].weight, generator=torch.Generator().manual_seed(seed))
    return model


def test_hard_labels_are_smoothed_as_the_config_says(store):
    model, index = with_opinions(7), torch.arange(len(store))
    for smoothing in (0.0, 0.2):
        objective = hard_labels(store, SIZES, replace(CONFIG, label_smoothing=smoothing))
        expected = hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index), smoothing)
        torch.testing.assert_close(objective.loss(model, *objective.read(index, 0)), expected)


def test_a_student_learns_the_teachers_answer_to_its_epochs_mixture_and_both_frames_labels(store):
    model, teacher, index = with_opinions(7), with_opinions(8), torch.arange(0, len(store), 3)
    live = LiveTargets([teacher], SoftTargetsConfig(num_states=2, precision="float32"), 2.0)
    objective = soft_labels(store, SIZES, lambda epoch: (mixture(len(store), epoch), live), 2.0,
                            DistillationConfig(soft_target_weight=0.7, hard_label_weight=0.5), CONFIG)
    for epoch in (0, 1, 2, 1):
        mixed = mixture(len(store), epoch)
        share, partner = mixed.share[index][:, None], mixed.partner[index]
        own, other = (store.windows(frames, SIZES.window).float() for frames in (index, partner))
        windows = share[:, :, None] * own + (1 - share[:, :, None]) * other
        labels = share * one_hot(store.labels(index), 2) + (1 - share) * one_hot(store.labels(partner), 2)
        soft = -((teacher(windows) / 2).softmax(dim=1) * (model(windows) / 2).log_softmax(dim=1)).sum(dim=1).mean()
        hard = -(labels * model(windows).log_softmax(dim=1)).sum(dim=1).mean()
        torch.testing.assert_close(objective.loss(model, *objective.read(index, epoch)), 0.7 * 4 * soft + 0.5 * hard)


def test_a_checkpoint_stays_until_every_process_has_seen_its_model(left_alone, tmp_path, monkeypatch):
    """Of several processes one writes the model; the others may not remove the checkpoint before it has."""
    alignment, there = left_alone / "alignment", []
    checkpoint, model = (tmp_path / "one" / f"{name}.safetensors" for name in ("checkpoint", "model"))
    store = read_frame_store(alignment / "train")
    monkeypatch.setattr(data_parallel, "wait", lambda: there.append((checkpoint.exists(), model.exists())))
    config = replace(CONFIG, epochs=1, batch_size=512)
    train_models(Stage(left_alone, tmp_path, 1, torch.device("cpu"), ""), alignment, SIZES, store,
                 hard_labels(store, SIZES, config), config, [1], [tmp_path / "one"])
    assert there == [(False, False), (True, True)] and not checkpoint.exists()
