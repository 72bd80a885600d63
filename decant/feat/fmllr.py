"""Speaker adaptation by fMLLR: the affine transform of a speaker's features under which the mixtures fit them best.

Feature-space maximum likelihood linear regression (Gales 1998, constrained MLLR), as Kaldi's train_sat.sh and
decode_fmllr.sh use it. It needs some of the speaker's speech and a guess at what was said.

The letters: S speakers, T frames, D feature dimensions. A transform [A b] is float32 [D, D + 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from decant.feat.lda_mllt import check_independent

MIN_FRAMES = 500  # of speech; fewer leave a speaker's features as they are (Kaldi's fmllr-min-count)


def identity(dims: int) -> Tensor:
    """The transform that changes nothing."""
    return torch.eye(dims, dims + 1)


def affine(transform: Tensor, features: Tensor) -> Tensor:
    """A x + b of every frame: [T, D] of features [T, D]."""
    return torch.addmm(transform[:, -1], features, transform[:, :-1].T)


def compose(second: Tensor, first: Tensor) -> Tensor:
    """The transform that does `first`, then `second`."""
    total = second[:, :-1] @ first
    total[:, -1] += second[:, -1]
    return total


@dataclass(frozen=True)
class FmllrStatistics:
    """What is known of a speaker (Gales 1998, appendix B). linear: float64 [D, D + 1], Gales' k, a row
    each; covariances: float64 [D, D + 1, D + 1], the inverses of Gales' G, one a row."""

    num_frames: int
    linear: np.ndarray
    covariances: np.ndarray


def fmllr_statistics(frames: Tensor, precisions: Tensor, targets: Tensor) -> FmllrStatistics:
    """Of a speaker's frames [T, D]; precisions: [T, D], the mean over each frame's Gaussians, by their posteriors, of
    1 / variance; targets: [T, D], the same mean of mean / variance.

    Raises numpy.linalg.LinAlgError for frames that do not vary in every direction, up to rounding.
    """
    num_frames, dims = frames.shape
    extended = pad(frames, (0, 1), value=1.0)
    linear = targets.T.double() @ extended.double()
    row, column = torch.triu_indices(dims + 1, dims + 1)
    upper = torch.zeros(dims, len(row), dtype=torch.float64)
    for x, weights in zip(extended.T.split(512, dim=1), precisions.T.split(512, dim=1), strict=True):
        upper += weights.double() @ (x[row] * x[column]).double().T
    weighted = upper.new_empty(dims, dims + 1, dims + 1)
    weighted[:, row, column] = weighted[:, column, row] = upper
    covariances = np.linalg.inv(weighted.numpy())
    check_independent(weighted.numpy(), covariances)
    return FmllrStatistics(num_frames, linear.numpy(), covariances)


def fmllr(speakers: Sequence[FmllrStatistics], num_iterations: int = 20) -> Tensor:
    """The transforms [S, D, D + 1] that maximise the likelihood of each speaker's frames, row by row (Gales 1998,
    appendix B); of all S speakers side by side, since a row of one is little work."""
    num_frames = np.array([speaker.num_frames for speaker in speakers])
    linear, covariances = (np.stack(x) for x in zip(*((s.linear, s.covariances) for s in speakers), strict=True))
    ends = np.einsum("siab,sib->sia", covariances, linear)
    transforms = np.tile(np.eye(*linear.shape[1:]), (len(speakers), 1, 1))
    for _ in range(num_iterations):
        inverse = np.linalg.inv(transforms[:, :, :-1])
        for i in range(linear.shape[1]):
            cofactors = inverse[:, :, i].copy()  # of row i, up to their scale; the offset has none
            towards = (covariances[:, i, :, :-1] @ cofactors[:, :, None])[:, :, 0]
            a, b = (cofactors * towards[:, :-1]).sum(axis=1), (linear[:, i] * towards).sum(axis=1)
            roots = (-b + np.array([[1], [-1]]) * np.sqrt(b * b + 4 * a * num_frames)) / (2 * a)
            up, down = num_frames * np.log(np.abs(roots * a + b)) - 0.5 * roots**2 * a
            row = ends[:, i] + np.where(up >= down, *roots)[:, None] * towards
            # Sherman and Morrison: the inverse of a matrix with a new row
            change = ((row - transforms[:, i])[:, None, :-1] @ inverse)[:, 0]
            inverse -= (cofactors / (1 + change[:, i, None]))[:, :, None] * change[:, None]
            transforms[:, i] = row
    return torch.from_numpy(transforms).float()
