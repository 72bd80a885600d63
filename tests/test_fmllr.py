import pytest
import torch

from decant.feat.fmllr import affine, compose, fmllr, fmllr_statistics, identity

MEANS = torch.tensor([[0.0, 0.0, 0.0], [4.0, -2.0, 1.0], [-3.0, 5.0, 2.0], [1.0, 1.0, -4.0]])
VARIANCES = torch.tensor([[1.0, 0.5, 2.0], [0.5, 1.0, 1.0], [2.0, 0.3, 1.0], [1.0, 1.0, 0.5]])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def draw(num_frames: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [T, 3] of the four Gaussians, and which each is of."""
    states = torch.randint(4, (num_frames,), generator=generator)
    return MEANS[states] + VARIANCES[states].sqrt() * torch.randn(num_frames, 3, generator=generator), states


def estimate(frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    [transform] = fmllr([fmllr_statistics(frames, 1 / VARIANCES[states], MEANS[states] / VARIANCES[states])])
    return transform


def log_likelihood(transform: torch.Tensor, frames: torch.Tensor, states: torch.Tensor) -> float:
    """Of a frame, as the model sees it through the transform, up to a constant."""
    deviation = affine(transform, frames) - MEANS[states]
    return float(torch.linalg.slogdet(transform[:, :-1])[1] - 0.5 * (deviation**2 / VARIANCES[states]).sum(1).mean())


def test_the_transform_undoes_what_a_speaker_did_to_the_features(generator):
    frames, states = draw(20_000, generator)
    speaker = torch.tensor([[1.2, 0.3, 0.0, 1.0], [-0.2, 0.8, 0.1, -2.0], [0.0, 0.4, 1.1, 0.5]])
    found = estimate(affine(speaker, frames), states)
    torch.testing.assert_close(compose(found, speaker), identity(3), atol=0.03, rtol=0)


def test_no_nearby_transform_has_a_higher_likelihood(generator):
    frames, states = draw(500, generator)
    frames = frames @ torch.tensor([[0.9, 0.2, 0.0], [0.0, 1.3, -0.3], [0.1, 0.0, 1.0]]) + 0.7
    best = estimate(frames, states)
    assert log_likelihood(best, frames, states) > log_likelihood(identity(3), frames, states) + 0.1
    for _ in range(50):
        nearby = best + 0.02 * torch.randn(3, 4, generator=generator)
        assert log_likelihood(nearby, frames, states) < log_likelihood(best, frames, states)


def test_speakers_side_by_side_get_what_each_gets_alone(generator):
    of_each = []
    for shift in (0.0, 3.0):
        frames, states = draw(1000, generator)
        of_each.append(fmllr_statistics(frames + shift, 1 / VARIANCES[states], MEANS[states] / VARIANCES[states]))
    torch.testing.assert_close(fmllr(of_each), torch.cat([fmllr([one]) for one in of_each]))


def test_one_transform_after_another_is_their_composition(generator):
    first, second = torch.randn(2, 3, 4, generator=generator)
    frames, _ = draw(10, generator)
    torch.testing.assert_close(affine(compose(second, first), frames), affine(second, affine(first, frames)))
