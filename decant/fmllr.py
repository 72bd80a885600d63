"""Speaker adaptation by fMLLR: the affine transform of a speaker's features under which the mixtures fit them best.

Feature-space maximum likelihood linear regression (Gales 1998, constrained MLLR), as Kaldi's train_sat.sh and
decode_fmllr.sh use it. It needs some of the speaker's speech and a guess at what was said.

The letters: T frames, D feature dimensions. A transform [A b] is float32 [D, D + 1].
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

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


def fmllr(frames: Tensor, precisions: Tensor, targets: Tensor, num_iterations: int = 20) -> Tensor:
    """The transform that maximises the likelihood of a speaker's frames, row by row (Gales 1998, appendix B).

    frames: [T, D]; precisions: [T, D], the mean over each frame's Gaussians, by their posteriors, of 1 / variance;
    targets: [T, D], the same mean of mean / variance. Fewer than MIN_FRAMES frames give the identity.
    """
    num_frames, dims = frames.shape
    if num_frames < MIN_FRAMES:
        return identity(dims)
    extended = pad(frames, (0, 1), value=1.0)
    linear = (targets.T.double() @ extended.double()).numpy()  # Gales' k, a row each
    weighted = torch.zeros(dims, (dims + 1) ** 2, dtype=torch.float64)  # Gales' G
    for x, weights in zip(extended.split(512), precisions.split(512), strict=True):
        weighted += weights.T @ (x[:, :, None] * x[:, None]).flatten(1)
    covariances = np.linalg.inv(weighted.view(dims, dims + 1, dims + 1).numpy())
    ends = np.einsum("iab,ib->ia", covariances, linear)
    transform = np.eye(dims, dims + 1)
    for _ in range(num_iterations):
        inverse = np.linalg.inv(transform[:, :-1])
        for i, (covariance, k, end) in enumerate(zip(covariances, linear, ends, strict=True)):
            cofactors = np.append(inverse[:, i], 0.0)  # of row i, up to their scale
            towards = covariance @ cofactors
            a, b = cofactors @ towards, k @ towards
            roots = (-b + np.array([1, -1]) * np.sqrt(b * b + 4 * a * num_frames)) / (2 * a)
            gain = num_frames * np.log(np.abs(roots * a + b)) - 0.5 * roots**2 * a
            row = end + roots[gain.argmax()] * towards
            change = (row - transform[i])[:-1] @ inverse  # Sherman and Morrison: the inverse of a matrix with a new row
            inverse -= np.outer(inverse[:, i], change) / (1 + change[i])
            transform[i] = row
    return torch.from_numpy(transform).float()
