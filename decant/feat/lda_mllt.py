"""Linear transforms of spliced cepstra that suit Gaussians with diagonal covariances: LDA, then MLLT.

Linear discriminant analysis keeps the directions in which states differ; the maximum likelihood linear transform (Gales
1999, semi-tied covariances) turns them so that they are least correlated inside the Gaussians (Kaldi's
train_lda_mllt.sh).

The letters: T frames, C features of a frame, D features kept, S classes (pdf-ids), M Gaussians of a state.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST_INFLATION = 1e6  # of a feature's variance by the others; of the demo's, 50 at most (spliced cepstra)


def splice(features: np.ndarray, context: int) -> np.ndarray:
    """Each frame with its neighbours, `context` on each side, the ends repeated: [T, (2 context + 1) C]."""
    padded = np.pad(features, ((context, context), (0, 0)), mode="edge")
    return np.concatenate([padded[i:i + len(features)] for i in range(2 * context + 1)], axis=1)


def check_independent(matrices: np.ndarray, inverses: np.ndarray) -> None:
    """Raises numpy.linalg.LinAlgError for symmetric [..., D, D] that are singular, or nearly: where less than a
    millionth of a feature's scatter is its own, and not that of the others (its variance inflation factor).

    In exact numbers an inverse fails there; rounded ones give some inverse, and a transform without sense.
    """
    factors = np.diagonal(matrices, axis1=-2, axis2=-1) * np.diagonal(inverses, axis1=-2, axis2=-1)
    if not ((factors > 0) & (factors < MOST_INFLATION)).all():
        raise np.linalg.LinAlgError("singular, or nearly")


@dataclass(frozen=True)
class LdaStatistics:
    """Of frames [T, C] and their classes. counts: float64 [S]; sums: float64 [S, C], of each class; second: float64
    [C, C], the sum of x x'. Those of parts of the frames may be added up."""

    counts: np.ndarray
    sums: np.ndarray
    second: np.ndarray


def lda_statistics(utterances: Iterable[tuple[np.ndarray, np.ndarray]], dim: int, num_classes: int) -> LdaStatistics:
    """The statistics of (features [T, C], classes int64 [T] below `num_classes`) of all utterances. dim: C."""
    counts, sums = np.zeros(num_classes), torch.zeros(num_classes, dim, dtype=torch.float64)
    second = torch.zeros(dim, dim, dtype=torch.float64)
    for features, classes in utterances:
        x = torch.from_numpy(features).double()
        counts += np.bincount(classes, minlength=num_classes)
        sums.index_add_(0, torch.from_numpy(classes), x)
        second += x.T @ x
    return LdaStatistics(counts, sums.numpy(), second.numpy())


def lda(statistics: LdaStatistics, dim: int) -> np.ndarray:
    """The `dim` directions that separate the classes best: float64 [dim, C], the mean covariance inside a class becomes
    the identity.

    Raises ValueError if there are fewer features, or not more classes, than directions asked for, or if features do not
    vary independently of each other inside the classes.
    """
    counts, sums, second = statistics.counts, statistics.sums, statistics.second
    seen = counts > 0
    if dim > sums.shape[1] or seen.sum() <= dim:
        raise ValueError(f"{dim} directions of {sums.shape[1]} features cannot separate {seen.sum()} classes; lower "
                         "lda_dim")
    total, mean = counts.sum(), sums.sum(axis=0) / counts.sum()
    means = sums[seen] / counts[seen, None]
    between = (means - mean).T * (counts[seen] / total) @ (means - mean)
    within = second / total - np.outer(mean, mean) - between
    try:
        whiten = np.linalg.inv(np.linalg.cholesky(within))
        check_independent(within, whiten.T @ whiten)
    except np.linalg.LinAlgError:
        raise ValueError(f"LDA: in {total:.0f} frames the {len(mean)} features do not vary independently of each other "
                         "inside the states (some are constant, or combinations of others); look at the audio, or "
                         "lower lda_context") from None
    _, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    return directions[:, ::-1][:, :dim].T @ whiten


def mllt_statistics(features: Tensor, posteriors: Tensor, means: Tensor, variances: Tensor) -> Tensor:
    """G [D, D, D] of one state: G[i] sums posterior (x - mean)(x - mean)' / variance[i] over its frames and Gaussians.

    features: [T, D]; posteriors: [T, M]; means, variances: [M, D].
    """
    deviations = (features.double() - mean for mean in means.double())
    scatter = torch.stack([(d * weight[:, None]).T @ d
                           for d, weight in zip(deviations, posteriors.double().T, strict=True)])
    return torch.einsum("mi,mde->ide", 1 / variances.double(), scatter)


def mllt(statistics: Tensor, num_frames: float, num_iterations: int = 100) -> Tensor:
    """The square transform that maximises the likelihood, float64 [D, D], from `mllt_statistics` of all states: row by
    row, each from the cofactors of the others (Gales 1999, appendix A).

    Raises ValueError if features do not vary independently of each other.
    """
    try:
        inverses = torch.linalg.inv(statistics)
        check_independent(statistics.numpy(), inverses.numpy())
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError):
        raise ValueError(f"MLLT: in {num_frames:.0f} frames the {len(statistics)} features do not vary independently "
                         "of each other inside the states (some are constant, or combinations of others); look at the "
                         "audio, or lower lda_dim") from None
    transform = torch.eye(len(statistics), dtype=torch.float64)
    for _ in range(num_iterations):
        before = transform.clone()
        for i, inverse in enumerate(inverses):
            cofactors = torch.linalg.inv(transform)[:, i]
            row = inverse @ cofactors
            transform[i] = row * torch.sqrt(num_frames / (cofactors @ row))
        if (transform - before).abs().max() < 1e-6:
            break
    return transform
