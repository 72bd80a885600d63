import numpy as np
import pytest
import torch

from decant.feat.lda_mllt import lda, lda_statistics, mllt, mllt_statistics, splice


def test_splicing_repeats_the_ends():
    frames = np.array([[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]])
    assert splice(frames, 1)[:, ::2].tolist() == [[1, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert splice(frames, 0).tolist() == frames.tolist()


def test_lda_finds_the_direction_that_separates_and_whitens_the_classes():
    """Three classes along (1, 1, 0), noise strongest along (1, -1, 0): the first direction ignores the noise."""
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(3000, 3)) * [5.0, 0.5, 1.0] @ np.array([[1, -1, 0], [1, 1, 0], [0, 0, 1]])
    classes = np.repeat([0, 1, 2], 1000)
    x = noise + np.outer(classes - 1.0, [1.0, 1.0, 0.0])
    transform = lda(lda_statistics([(x[:1500], classes[:1500]), (x[1500:], classes[1500:])], 3, 3), 1)
    assert transform.shape == (1, 3)
    first = transform[0] / np.linalg.norm(transform[0])
    assert abs(first @ [2**-0.5, 2**-0.5, 0]) > 0.99
    y = x @ transform[0]
    assert np.mean([y[classes == c].var() for c in range(3)]) == pytest.approx(1.0)


def test_too_few_classes_for_the_directions_are_refused():
    with pytest.raises(ValueError, match="2 directions of 3 features cannot separate 2 classes"):
        lda(lda_statistics([(np.zeros((4, 3)), np.array([0, 0, 1, 1]))], 3, 2), 2)


@pytest.mark.parametrize("spoil", [lambda x: x[:, :1], lambda x: 0 * x[:, :1] + 5, lambda x: x @ [[1.0], [-2.0]]],
                         ids=["equal", "constant", "combination"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_are_constant_or_combinations_of_others_are_refused(spoil, dtype):
    x = np.random.default_rng(0).normal(size=(600, 2))
    classes = np.arange(600) % 3
    frames = np.concatenate([x, spoil(x)], axis=1).astype(dtype)
    assert np.isfinite(lda(lda_statistics([(x, classes)], 2, 3), 2)).all()
    with pytest.raises(ValueError, match="LDA: in 600 frames the 3 features do not vary independently"):
        lda(lda_statistics([(frames, classes)], 3, 3), 2)
    posteriors, means, variances = torch.ones(600, 1), torch.zeros(1, 3), torch.ones(1, 3)
    if np.ptp(frames[:, 2]) == 0:
        means[0, 2] = 5
    statistics = mllt_statistics(torch.from_numpy(frames), posteriors, means, variances)
    with pytest.raises(ValueError, match="MLLT: in 600 frames the 3 features do not vary independently"):
        mllt(statistics, 600)
    assert mllt(statistics[:2, :2, :2], 600).isfinite().all()


def test_no_frames_are_refused():
    with pytest.raises(ValueError, match="2 directions of 3 features cannot separate 0 classes; lower lda_dim"):
        lda(lda_statistics([], 3, 4), 2)


def test_the_statistics_are_the_weighted_scatter():
    generator = torch.Generator().manual_seed(0)
    for num_frames in (20, 200):
        x, w = torch.randn(num_frames, 3, generator=generator), torch.rand(num_frames, 2, generator=generator)
        means, variances = torch.randn(2, 3, generator=generator), torch.rand(2, 3, generator=generator) + 0.5
        expected = torch.zeros(3, 3, 3, dtype=torch.float64)
        for t in range(num_frames):
            for m in range(2):
                d = (x[t] - means[m]).double()
                expected += w[t, m].double() * torch.outer(d, d) / variances[m].double()[:, None, None]
        torch.testing.assert_close(mllt_statistics(x, w, means, variances), expected, rtol=1e-5, atol=1e-5)


def test_mllt_decorrelates_and_raises_the_likelihood():
    """One Gaussian with a full covariance: in the transformed space a diagonal one fits it, and no other transform of
    the rows near it is better."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5000, 2, generator=generator) @ torch.tensor([[1.0, 0.9], [0.0, 0.5]])
    x = x - x.mean(dim=0)
    # Alternate with re-estimated variances, as training does.
    transform = torch.eye(2, dtype=torch.float64)
    for _ in range(20):
        y = (x.double() @ transform.T).float()
        g = mllt_statistics(y, torch.ones(5000, 1), torch.zeros(1, 2), y.var(dim=0, unbiased=False)[None])
        transform = mllt(g, 5000) @ transform
    covariance = torch.cov((x.double() @ transform.T).T)
    assert abs(float(covariance[0, 1])) < 1e-3 * float(covariance.diagonal().prod().sqrt())

    def log_likelihood(a):
        y = x.double() @ a.T
        return 5000 * torch.linalg.slogdet(a)[1] - 2500 * y.var(dim=0, unbiased=False).log().sum()

    assert log_likelihood(transform) > log_likelihood(torch.eye(2, dtype=torch.float64)) + 100
    for i in range(2):
        for j in range(2):
            moved = transform.clone()
            moved[i, j] += 0.01
            assert log_likelihood(moved) <= log_likelihood(transform) + 1e-6
