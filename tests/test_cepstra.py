import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from decant.feat.cepstra import cepstra, differences
from decant.feat.fbank import FbankConfig, fbank


def test_cepstra_are_kaldis_mfcc_of_the_same_filterbank():
    samples = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 1000
    expected = kaldi.mfcc(torch.from_numpy(samples)[None], num_mel_bins=40, num_ceps=13, dither=0.0, use_energy=False,
                          low_freq=20.0, high_freq=0.0, sample_frequency=16000.0)
    found = cepstra(fbank(samples, FbankConfig()).numpy(), 13)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-3)


def test_the_difference_of_a_straight_line_is_its_slope():
    line = 3.0 * np.arange(10)[:, None]
    assert differences(line)[2:-2] == pytest.approx(np.full((6, 1), 3.0))


def test_the_ends_repeat_for_differences():
    # At the first frame: (1 * (x1 - x0) + 2 * (x2 - x0)) / 10.
    assert differences(np.array([[0.0], [1.0], [4.0], [9.0]]))[0, 0] == pytest.approx((1 + 8) / 10)
