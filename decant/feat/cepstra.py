"""Cepstra with differences, for the Gaussian mixtures: their diagonal covariances want decorrelated features.

The letters: T frames, F filterbank bins, C cepstral coefficients.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.archive import read_matrices
from decant.feat.fbank import check_finite, read_speakers
from decant.feat.fmllr import affine
from decant.feat.lda_mllt import splice

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
        return (self.transform.shape[1] // self.num_cepstra - 1) // 2


def gmm_features(features_dir: Path, wanted: GmmFeatures,
                 speakers: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
    """(utterance-id, float32 [T, 3 C] or [T, D]) of a feature folder, as in Kaldi's GMM recipes.

    speakers: each speaker's transform [D, D + 1]; without them the features are as before the adaptation.
    """
    speaker_of = read_speakers(features_dir)
    for utterance, static in speaker_cepstra(features_dir, wanted.num_cepstra):
        if wanted.transform is None:
            first = differences(static)
            yield utterance, torch.from_numpy(np.concatenate([static, first, differences(first)], axis=1))
            continue
        features = torch.from_numpy(splice(static, wanted.context) @ wanted.transform.T)
        yield utterance, affine(speakers[speaker_of[utterance]], features) if speakers else features


def speaker_cepstra(features_dir: Path, num_cepstra: int) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance-id, float32 [T, C]) of a feature folder: cepstra with mean 0 for every speaker. Raises ValueError
    for frames that are not finite."""
    speaker_of = read_speakers(features_dir)
    raw = {}
    for utterance, frames in read_matrices(features_dir / "feats.scp"):
        check_finite(frames, features_dir, utterance)
        raw[utterance] = cepstra(frames, num_cepstra)
    of_speaker: dict[str, list[np.ndarray]] = {}
    for utterance, frames in raw.items():
        of_speaker.setdefault(speaker_of[utterance], []).append(frames)
    means = {speaker: np.concatenate(frames).mean(axis=0) for speaker, frames in of_speaker.items()}
    for utterance, frames in raw.items():
        yield utterance, frames - means[speaker_of[utterance]]
