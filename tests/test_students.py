import torch
from small_training import SIZES, with_opinions
from torch.nn.functional import one_hot

from decant.distill.mixing import Mixture
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig
from decant.distill.students import soft_labels


def test_a_student_learns_the_teachers_answer_to_its_epochs_mixture_and_both_frames_labels(store):
    model, teacher, index = with_opinions(7), with_opinions(8), torch.arange(0, len(store), 3)
    live = LiveTargets([teacher], SoftTargetsConfig(num_states=2, precision="float32"), 2.0)
    objective = soft_labels(store, SIZES.window, lambda epoch: (Mixture(len(store), epoch), live), 2.0,
                            DistillationConfig(soft_target_weight=0.7, hard_label_weight=0.5))
    for epoch in (0, 1, 2, 1):
        mixed = Mixture(len(store), epoch)
        partner, weight = mixed.partners(index)
        weight = weight[:, None]
        own, other = (store.windows(frames, SIZES.window).float() for frames in (index, partner))
        windows = weight[:, :, None] * own + (1 - weight[:, :, None]) * other
        labels = weight * one_hot(store.labels(index), 2) + (1 - weight) * one_hot(store.labels(partner), 2)
        soft = -((teacher(windows) / 2).softmax(dim=1) * (model(windows) / 2).log_softmax(dim=1)).sum(dim=1).mean()
        hard = -(labels * model(windows).log_softmax(dim=1)).sum(dim=1).mean()
        torch.testing.assert_close(objective.loss(model, *objective.read(index, epoch)), 0.7 * 4 * soft + 0.5 * hard)
