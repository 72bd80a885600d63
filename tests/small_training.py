"""A network small enough for tests, which learns in seconds, and its training."""

import numpy as np
import torch

from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig
from decant.nnet.frame_store import FrameStore, pack
from decant.nnet.losses import hard_label_loss
from decant.nnet.minibatches import Shuffled
from decant.nnet.objectives import Objective
from decant.nnet.training import TrainingConfig, train

SIZES = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=2, hidden_units=16)
CONFIG = TrainingConfig(epochs=3, batch_size=32, learning_rate=1e-2, checkpoint_steps=4)


def two_bins() -> FrameStore:
    """200 frames of two bins whose label says which bin is larger."""
    frames = np.random.default_rng(0).normal(size=(200, 2))
    return pack([("a", frames, (frames[:, 0] > frames[:, 1]).astype(int))])


def network(seed: int = 7) -> AcousticModel:
    return AcousticModel(SIZES, num_bins=2, num_pdfs=2).initialize(seed)


def with_opinions(seed):
    """A network that does not begin with the same answer to everything."""
    model = network(seed)
    torch.nn.init.normal_(model.layers[-1].weight, generator=torch.Generator().manual_seed(seed))
    return model


def train_on(store, directory, config=CONFIG, loss=None):
    model = network()

    def batch_loss(model, index, epoch):
        return hard_label_loss(model(store.windows(index, SIZES.window)), store.labels(index))

    objective = Objective(lambda index, epoch: (index, torch.tensor(epoch)), loss or batch_loss)
    [history] = train([model], [Shuffled(len(store), 7)], store, objective, config, directory, ["test"])
    return model, history
