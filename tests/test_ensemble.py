import pytest
import torch

from decant.acoustic_model import AcousticModel, AcousticModelConfig
from decant.ensemble import EnsembleConfig, log_posteriors, mean_probabilities

CONFIG = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=1, hidden_units=4)


def member(seed: int) -> AcousticModel:
    model = AcousticModel(CONFIG, num_bins=2, num_pdfs=3).initialize(seed)
    torch.nn.init.normal_(model.layers[-1].weight, std=2.0, generator=torch.Generator().manual_seed(seed))
    return model


def test_the_ensemble_predicts_the_arithmetic_mean_of_its_members_distributions():
    members, windows = [member(1), member(2)], torch.randn(5, 3, 2)
    [mean] = mean_probabilities(members, windows, [1.0])
    expected = (members[0](windows).softmax(dim=1) + members[1](windows).softmax(dim=1)) / 2
    torch.testing.assert_close(mean, expected)


def test_every_temperature_softens_the_members_before_the_mean():
    members, windows = [member(1), member(2)], torch.randn(5, 3, 2)
    cold, warm, hot = mean_probabilities(members, windows, [1.0, 5.0, 1e6])
    torch.testing.assert_close(warm, sum((m(windows) / 5).softmax(dim=1) for m in members) / 2)
    torch.testing.assert_close(cold, sum(m(windows).softmax(dim=1) for m in members) / 2)
    torch.testing.assert_close(hot, torch.full((5, 3), 1 / 3))


def test_log_posteriors_are_the_log_of_the_mean_at_temperature_one():
    members, windows = [member(1), member(2)], torch.randn(5, 3, 2)
    torch.testing.assert_close(log_posteriors(members, windows).exp(), mean_probabilities(members, windows, [1.0])[0])
    torch.testing.assert_close(log_posteriors(members[:1], windows), members[0](windows).log_softmax(dim=1))


def test_an_ensemble_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        EnsembleConfig(num_members=1)
