from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from decant.feat.fbank import FbankConfig
from decant.nnet.acoustic_model import (
    AcousticModel,
    AcousticModelConfig,
    SideBySide,
    load_model,
    log_priors,
    save_model,
)

PLAIN = AcousticModelConfig(left_context=1, right_context=1, hidden_layers=3, hidden_units=8)
RESIDUAL = replace(PLAIN, residual=True)
WINDOWS = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))


def random_model(config: AcousticModelConfig, seed: int) -> AcousticModel:
    model = AcousticModel(config, num_bins=4, num_pdfs=6).initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def test_residual_layers_add_to_their_normalised_input():
    model = random_model(RESIDUAL, seed=1)
    weights = dict(model.named_parameters())

    def normalised(x, name):
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    x = F.relu(linear(WINDOWS.flatten(1), "layers.1"))
    for layer in ("layers.3", "layers.4"):
        x = x + F.relu(linear(normalised(x, f"{layer}.norm"), f"{layer}.linear"))
    torch.testing.assert_close(model(WINDOWS), linear(normalised(x, "layers.5"), "layers.6"))


@pytest.mark.parametrize("config", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_models_side_by_side_give_each_ones_logits_and_gradients(config):
    models = [random_model(config, seed) for seed in range(3)]
    together = SideBySide(models)
    windows = torch.stack([WINDOWS, WINDOWS + 1, 2 * WINDOWS])
    logits = together(windows)
    logits.square().sum().backward()
    for number, model in enumerate(models):
        own = model(windows[number])
        own.square().sum().backward()
        torch.testing.assert_close(logits[number], own)
        for weight, parameter in zip(together.weights, model.parameters(), strict=True):
            torch.testing.assert_close(weight.grad[number], parameter.grad)


@pytest.mark.parametrize("config", [PLAIN, RESIDUAL], ids=["plain", "residual"])
def test_a_model_survives_its_folder_with_its_feature_settings(config, tmp_path):
    model = random_model(config, seed=1)
    model.log_priors.copy_(log_priors(torch.tensor([0, 0, 0, 1]), 6))
    save_model(tmp_path, model, FbankConfig(num_bins=20))
    read, features = load_model(tmp_path)
    assert torch.equal(read(WINDOWS), model(WINDOWS)) and features == FbankConfig(num_bins=20)
    assert read.config == config
    assert read.log_priors[:3].exp().tolist() == pytest.approx([3 / 6, 1 / 6, 0.5 / 6])


def test_priors_are_the_mean_of_the_smoothed_labels():
    labels = torch.tensor([0, 0, 0, 1, 2, 2, 1, 0])
    targets = 0.8 * torch.nn.functional.one_hot(labels, 3) + 0.2 / 3
    torch.testing.assert_close(log_priors(labels, 3, smoothing=0.2).exp(), targets.mean(dim=0))


def test_a_model_folder_that_is_empty_or_of_other_sizes_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        load_model(tmp_path)
    save_model(tmp_path, random_model(PLAIN, seed=1), FbankConfig())
    config = tmp_path / "config.toml"
    config.write_text(config.read_text().replace("hidden_units = 8", "hidden_units = 32"))
    with pytest.raises(ValueError, match="damaged or does not fit config.toml"):
        load_model(tmp_path)
    for text in ("[acoustic_model", "", config.read_text().replace("num_pdfs", "num_states")):
        config.write_text(text)
        with pytest.raises(ValueError, match=f"{tmp_path}: config.toml is damaged or of an older decant"):
            load_model(tmp_path)


def test_an_untrained_model_predicts_all_states_alike():
    for config in (PLAIN, RESIDUAL):
        assert not AcousticModel(config, num_bins=4, num_pdfs=6).initialize(seed=1)(WINDOWS).any()


def test_of_a_window_one_frame_in_so_many_is_seen():
    config = AcousticModelConfig(left_context=20, right_context=5, frame_step=4, hidden_layers=1, hidden_units=8)
    assert list(config.window) == [-20, -16, -12, -8, -4, 0, 4]
    assert AcousticModel(config, num_bins=4, num_pdfs=6)(torch.zeros(2, 7, 4)).shape == (2, 6)
    with pytest.raises(ValueError, match=r"frame_step is 3; it has to divide left_context \(20\)"):
        replace(config, frame_step=3)
