"""What the models see of a split, as later stages read it again."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from decant.feat.archive import read_matrices
from decant.feat.cepstra import gmm_features
from decant.feat.fbank import load_features
from decant.hmm.gmm import load_gmm
from steps.common import hmm_folders


def mixture_features(system: Path, fbank: Path, fmllr: Path | None = None) -> Iterator[tuple[str, Tensor]]:
    """(utterance, float32 [T, D]) of a folder of filterbanks for a system of Gaussian mixtures.

    fmllr: the folder whose `fmllr.scp` has the speakers' transforms; read if the system is adapted.
    """
    _, seen = load_gmm(system)
    speakers = None
    if seen.adapted:
        speakers = {speaker: torch.from_numpy(transform) for speaker, transform in read_matrices(fmllr / "fmllr.scp")}
    return gmm_features(fbank, seen, speakers)


def network_features(exp: Path, kind: str, fbank: Path, fmllr: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, float32 [T, F]) of a folder of filterbanks for the networks; kind: FramesConfig.features."""
    if kind == "fbank":
        return load_features(fbank)
    return ((utterance, x.numpy()) for utterance, x in mixture_features(hmm_folders(exp)[-1], fbank, fmllr))
