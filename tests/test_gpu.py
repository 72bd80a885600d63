"""A training's devices on a GPU, checked without one: tensors that have a device and a shape and no numbers."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from decant.distill.mixing import Mixture
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig
from decant.distill.students import soft_labels
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig, SideBySide
from decant.nnet.frame_store import FrameStore
from decant.nnet.objectives import hard_labels
from decant.nnet.training import accuracy_and_loss

GPU = torch.device("cuda", 0)
SIZES = AcousticModelConfig(left_context=2, right_context=1, hidden_layers=2, hidden_units=16, residual=True)


@pytest.fixture
def gpu():
    """A store of 100 frames and two models, on a GPU that need not be there."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        with GPU:
            store = FrameStore(torch.zeros(100, 5, dtype=torch.float16), torch.tensor([0, 60, 100]),
                               torch.zeros(100, dtype=torch.int32), ("a", "b"))
            models = [AcousticModel(SIZES, num_bins=5, num_pdfs=30) for _ in range(2)]
        yield store, models


@pytest.mark.parametrize("objective", ["hard", "soft", "side by side"])
def test_a_training_step_mixes_no_devices(gpu, objective):
    store, models = gpu
    index = torch.arange(24).view(*([2, 12] if objective == "side by side" else [24]))
    if objective == "soft":
        teacher = LiveTargets(models, SoftTargetsConfig(num_states=4), temperature=2.0)
        mixed = Mixture(len(store), 0)
        # numpy draws partners on the host, which no stand-in of a tensor takes part in
        mixed.alone, mixed.partners = False, lambda index: (index.flip(0), torch.ones(len(index)))
        step = soft_labels(store, SIZES.window, lambda epoch: (mixed, teacher), 2.0,
                           DistillationConfig(), smoothing=0.1)
    else:
        step = hard_labels(store, SIZES.window, smoothing=0.1)
    read = step.read(index, 1)
    model = SideBySide(models) if objective == "side by side" else models[0]
    loss = step.loss(model, *(x.to(GPU) for x in read))
    assert read[0].device == loss.device == GPU
    assert accuracy_and_loss(model, store).device == GPU
