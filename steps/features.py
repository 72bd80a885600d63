"""What the models see of a split, as later stages read it again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.archive import read_matrices
from decant.cepstra import gmm_features
from decant.fbank import load_features
from decant.gmm import load_gmm
from steps.common import hmm_folders


def mixture_features(exp: Path, system: Path, split: str,
                     alignment: Path | None = None) -> Iterator[tuple[str, Tensor]]:
    """(utterance, float32 [T, D]) for a system of Gaussian mixtures, adapted to the speaker if it is.

    alignment: stage 6's folder, while it does not have its name yet.
    """
    _, seen = load_gmm(system)
    speakers = None
    if seen.adapted:
        transforms = read_matrices((alignment or exp / "alignment") / split / "fmllr.scp")
        speakers = {speaker: torch.from_numpy(transform) for speaker, transform in transforms}
    return gmm_features(exp / "fbank" / split, seen, speakers)


def network_features(exp: Path, kind: str, split: str,
                     alignment: Path | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, float32 [T, F]) for the networks; kind is FramesConfig.features."""
    if kind == "fbank":
        return load_features(exp / "fbank" / split)
    adapted = mixture_features(exp, hmm_folders(exp)[-1], split, alignment)
    return ((utterance, x.numpy()) for utterance, x in adapted)
