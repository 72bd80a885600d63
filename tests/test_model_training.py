from dataclasses import replace

import torch
from small_training import CONFIG, SIZES, network

from decant.feat.fbank import FbankConfig
from decant.nnet import data_parallel
from decant.nnet.acoustic_model import load_model
from decant.nnet.minibatches import Shuffled
from decant.nnet.model_training import NetworkTask, train_models, train_new_models
from decant.nnet.objectives import hard_labels


def task(store):
    states = {"num_pdfs": 2, "tree": "", "features": "fbank"}
    return NetworkTask(store, states, torch.tensor([0.25, 0.75]).log(), FbankConfig())


def test_a_checkpoint_stays_until_every_process_has_seen_its_model(store, tmp_path, monkeypatch):
    """Of several processes one writes the model; the others may not remove the checkpoint before it has."""
    there = []
    checkpoint, model = (tmp_path / "one" / f"{name}.safetensors" for name in ("checkpoint", "model"))
    monkeypatch.setattr(data_parallel, "wait", lambda: there.append((checkpoint.exists(), model.exists())))
    train_new_models(task(store), SIZES, [1], len(store), hard_labels(store, SIZES.window), replace(CONFIG, epochs=1),
                     [tmp_path / "one"])
    assert there == [(False, False), (True, True)] and not checkpoint.exists()


def test_a_training_begins_with_the_weights_that_it_is_given(store, tmp_path):
    """At no learning rate to speak of it ends with them; and a model that is there is not trained again."""
    config = replace(CONFIG, epochs=1, learning_rate=1e-12, weight_decay=0.0, precision="float32")
    for seed in (7, 8):
        model, order = network(seed), Shuffled(len(store), 1)
        train_models(task(store), [model], [order], hard_labels(store, SIZES.window), config, [tmp_path / "model"])
        found, _ = load_model(tmp_path / "model")
        for x, expected in zip(found.parameters(), network(7).parameters(), strict=True):
            torch.testing.assert_close(x, expected, rtol=0, atol=1e-6)
    assert found.log_priors.exp().tolist() == [0.25, 0.75]
