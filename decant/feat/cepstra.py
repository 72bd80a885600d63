"""Cepstra with differences, for the Gaussian mixtures: their diagonal covariances want decorrelated features.

The letters: T frames, F filterbank bins, C cepstral coefficients.
"""

import math
from dataclasses import dataclass

import numpy as np

LIFTER = 22  # Kaldi's and HTK's cepstral lifter


def cepstra(fbanks: np.ndarray, num_cepstra: int) -> np.ndarray:
    """Mel-frequency cepstral coefficients [T, C] of log-mel frames [T, F]: orthonormal DCT-II, liftered as in HTK."""
    num_bins = fbanks.shape[1]
    if num_cepstra > num_bins:
        raise ValueError(f"{num_cepstra} cepstra of {num_bins} filterbank bins; lower monophone.num_cepstra")
    quefrency = np.arange(num_cepstra)
    basis = np.cos(np.pi / num_bins * (np.arange(num_bins)[:, None] + 0.5) * quefrency) * math.sqrt(2 / num_bins)
    basis[:, 0] = math.sqrt(1 / num_bins)
    return fbanks @ (basis * (1 + LIFTER / 2 * np.sin(np.pi * quefrency / LIFTER))).astype(np.float32)


def differences(features: np.ndarray) -> np.ndarray:
    """The slope of every feature over five frames [T, C], its ends repeated (Kaldi's add-deltas, window 2)."""
    padded = np.pad(features, ((2, 2), (0, 0)), mode="edge")
    return (padded[3:-1] - padded[1:-3] + 2 * (padded[4:] - padded[:-4])) / 10


@dataclass(frozen=True)
class GmmFeatures:
    """What mixtures see: `num_cepstra` cepstra with mean 0 for every speaker, and either their first and second
    differences, or the frames on both sides through `transform` (float32 [D, (2 context + 1) C]; decant.feat.lda_mllt),
    and then, where they are `adapted`, through the speaker's own (decant.feat.fmllr)."""

    num_cepstra: int
    transform: np.ndarray | None = None
    adapted: bool = False

    @property
    def context(self) -> int:
        """Frames on each side that the transform sees."""
        return 0 if self.transform is None else (self.transform.shape[1] // self.num_cepstra - 1) // 2

    @property
    def dims(self) -> int:
        """D, how many features there are."""
        return 3 * self.num_cepstra if self.transform is None else len(self.transform)
