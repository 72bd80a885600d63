from dataclasses import replace

import torch
from small_training import CONFIG, SIZES, network

from decant.losses import hard_label_loss
from steps.acoustic_training import hard_labels


def test_hard_labels_are_smoothed_as_the_config_says(store):
    model = network()
    torch.nn.init.normal_(model.layers[-1].weight)
    index = torch.arange(len(store))
    for smoothing in (0.0, 0.2):
        objective = hard_labels(store, SIZES, replace(CONFIG, label_smoothing=smoothing))
        expected = hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index), smoothing)
        torch.testing.assert_close(objective.loss(model, *objective.read(index, 0)), expected)
