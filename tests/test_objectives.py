import torch
from small_training import SIZES, with_opinions

from decant.nnet.losses import hard_label_loss
from decant.nnet.objectives import hard_labels


def test_hard_labels_are_smoothed_as_the_config_says(store):
    model, index = with_opinions(7), torch.arange(len(store))
    for smoothing in (0.0, 0.2):
        objective = hard_labels(store, SIZES.window, smoothing)
        expected = hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index), smoothing)
        torch.testing.assert_close(objective.loss(model, *objective.read(index, 0)), expected)
