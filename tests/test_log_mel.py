import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from decant.feat import log_mel as log_mel_module
from decant.feat.log_mel import log_mel, mel_banks


@pytest.mark.parametrize("snip_edges", [True, False])
@pytest.mark.parametrize("dither", [0.0, 1.0])
@pytest.mark.parametrize("num_frames", [1, 2, 7, 8, 9, 31])
def test_frames_are_torchaudios_to_the_bit_however_many_blocks_they_fill(num_frames, dither, snip_edges, monkeypatch):
    monkeypatch.setattr(log_mel_module, "BLOCK", 8)
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 1000, 400 + (num_frames - 1) * 160 + 50))
    samples = samples.float().round()
    torch.manual_seed(0)
    found = log_mel(samples, 400, 160, mel_banks(400, 40, 16000, 20.0, 0.0), snip_edges, dither)
    torch.manual_seed(0)
    assert torch.equal(found, kaldi.fbank(samples[None], num_mel_bins=40, snip_edges=snip_edges, dither=dither))


def test_a_window_of_a_power_of_2_and_frames_that_do_not_overlap_are_torchaudios_too():
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 1000, 4000)).float()
    for snip_edges in (True, False):
        found = log_mel(samples, 256, 256, mel_banks(256, 23, 8000, 100.0, -200.0), snip_edges)
        assert torch.equal(found, kaldi.fbank(
            samples[None], sample_frequency=8000, num_mel_bins=23, frame_length=32, frame_shift=32, low_freq=100,
            high_freq=-200, snip_edges=snip_edges))


def test_every_other_sample_of_an_array_gives_the_frames_of_a_copy():
    samples = torch.from_numpy(np.random.default_rng(0).normal(0, 1000, 2000)).float()
    banks = mel_banks(400, 40, 16000, 20.0, 0.0)
    assert torch.equal(log_mel(samples[::2], 400, 160, banks), log_mel(samples[::2].clone(), 400, 160, banks))
