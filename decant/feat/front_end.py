"""From filterbanks to what the models see, on arrays: what every stage and a recogniser have in common.

    samples --fbank.fbank--> log-mel frames --fbank.as_networks_see--> what networks see
                                |--cepstra.cepstra--> mixture_frames --> what mixtures see, and networks where
                                                                         frames.features is fmllr

The letters: T frames, F filterbank bins, C cepstral coefficients, D features of the mixtures.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.archive import read_matrices, read_matrix, read_scp
from decant.feat.cepstra import GmmFeatures, cepstra, differences
from decant.feat.fbank import as_networks_see, check_finite, read_fbank_config, read_speakers
from decant.feat.fmllr import affine
from decant.feat.lda_mllt import splice


def mixture_frames(static: np.ndarray, wanted: GmmFeatures, speaker: Tensor | None = None) -> Tensor:
    """What mixtures see of an utterance's cepstra [T, C], the speaker's mean taken off: float32 [T, 3 C] or [T, D].

    speaker: the speaker's transform [D, D + 1] (decant.feat.fmllr); without it the features are as before adaptation.
    """
    if wanted.transform is None:
        first = differences(static)
        features = torch.from_numpy(np.concatenate([static, first, differences(first)], axis=1))
    else:
        # torch's product, as numpy's would take threads of its own in every process
        features = torch.from_numpy(splice(static, wanted.context)) @ torch.from_numpy(wanted.transform).T
    return features if speaker is None else affine(speaker, features)


@dataclass(frozen=True)
class Filterbanks:
    """The log-mel frames float32 [T, F] of some utterances, as computed; whose they are; the statistics of all that
    each speaker says, here or not (cmvn_statistics)."""

    frames: Mapping[str, np.ndarray]
    speaker_of: Mapping[str, str]
    statistics: Mapping[str, np.ndarray]
    normalisation: str

    def for_networks(self) -> Iterator[tuple[str, np.ndarray]]:
        """(utterance, normalised frames float32 [T, F])."""
        for utterance, frames in self.frames.items():
            yield utterance, as_networks_see(frames, self.normalisation, self.statistics[self.speaker_of[utterance]])

    def cepstra(self, num_cepstra: int) -> Iterator[tuple[str, np.ndarray]]:
        """(utterance, cepstra float32 [T, C]), with mean 0 for every speaker: the mean is that of the filterbanks
        through the cosine transform, which is linear."""
        means = {speaker: cepstra((x[:1, :-1] / x[0, -1]).astype(np.float32), num_cepstra)
                 for speaker, x in self.statistics.items()}
        for utterance, frames in self.frames.items():
            yield utterance, cepstra(frames, num_cepstra) - means[self.speaker_of[utterance]]

    def for_mixtures(self, wanted: GmmFeatures,
                     speakers: Mapping[str, Tensor] | None = None) -> Iterator[tuple[str, Tensor]]:
        """(utterance, `mixture_frames`). speakers: the transform of each; without them, before adaptation."""
        for utterance, static in self.cepstra(wanted.num_cepstra):
            yield utterance, mixture_frames(static, wanted, speakers[self.speaker_of[utterance]] if speakers else None)


@dataclass(frozen=True)
class FramesOnDisk(Mapping[str, np.ndarray]):
    """The frames of a feature folder, read as they are asked for. Raises ValueError for frames that are not finite."""

    directory: Path
    places: Mapping[str, str]

    def __getitem__(self, utterance: str) -> np.ndarray:
        frames = read_matrix(self.places[utterance])
        check_finite(frames, self.directory, utterance)
        return frames

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def read_filterbanks(directory: Path) -> Filterbanks:
    """The filterbanks of a feature folder, whose frames stay on disk until they are asked for."""
    return Filterbanks(FramesOnDisk(directory, read_scp(directory / "feats.scp")), read_speakers(directory),
                       dict(read_matrices(directory / "cmvn.scp")), read_fbank_config(directory).normalisation)


def read_transforms(prefix: Path) -> dict[str, Tensor]:
    """Speakers' transforms, float32 [D, D + 1], of PREFIX.scp."""
    return {speaker: torch.from_numpy(transform) for speaker, transform in read_matrices(Path(f"{prefix}.scp"))}
