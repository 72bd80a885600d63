import pytest
import torch

from decant.distill.ensemble import EnsembleConfig, ensemble_logits
from decant.nnet.acoustic_model import AcousticModel, AcousticModelConfig

CONFIG = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=1, hidden_units=4)


def member(seed: int) -> AcousticModel:
    model = AcousticModel(CONFIG, num_bins=2, num_pdfs=3).initialize(seed)
    torch.nn.init.normal_(model.layers[-1].weight, std=2.0, generator=torch.Generator().manual_seed(seed))
    return model


def test_the_ensemble_predicts_the_arithmetic_mean_of_its_members_distributions():
    members, windows = [member(1), member(2)], torch.randn(5, 3, 2)
    expected = (members[0](windows).softmax(dim=1) + members[1](windows).softmax(dim=1)) / 2
    torch.testing.assert_close(ensemble_logits(members, windows).exp(), expected)
    torch.testing.assert_close(ensemble_logits(members[:1], windows), members[0](windows).log_softmax(dim=1))


def test_the_geometric_teacher_is_the_softmax_of_the_mean_logits_at_every_temperature():
    members, windows = [member(1), member(2)], torch.randn(5, 3, 2)
    mean = (members[0](windows) + members[1](windows)) / 2
    for temperature in (1.0, 5.0):
        torch.testing.assert_close((ensemble_logits(members, windows, "geometric") / temperature).softmax(dim=1),
                                   (mean / temperature).softmax(dim=1))


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        EnsembleConfig(num_members=1)
