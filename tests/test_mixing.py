import numpy as np
import torch

from decant.distill.mixing import Mixture, pass_of
from decant.nnet.frame_store import pack


def test_the_first_pass_has_every_frame_by_itself():
    store = pack([("a", np.array([[0.0], [1], [2]]), np.zeros(3))])
    index = torch.arange(3)
    assert torch.equal(Mixture(3, 0).windows(store, index, range(-1, 2)), store.windows(index, range(-1, 2)))


def test_a_mixture_has_both_windows_in_their_shares():
    store = pack([("a", np.array([[0.0], [8.0]]), np.zeros(2))])
    mixed = Mixture(partner=torch.tensor([1, 0]), weight=torch.tensor([0.75, 0.5]))
    window = mixed.windows(store, torch.tensor([0]), range(2))[0, :, 0]
    assert window.tolist() == [0.75 * 0 + 0.25 * 8, 0.75 * 8 + 0.25 * 8]


def test_every_pass_has_partners_and_shares_of_its_own_and_always_the_same():
    first, again, second = Mixture(1000, 1), Mixture(1000, 1), Mixture(1000, 2)
    assert torch.equal(first.partner, again.partner) and torch.equal(first.weight, again.weight)
    assert not torch.equal(first.partner, second.partner)
    assert sorted(first.partner.tolist()) == list(range(1000))
    assert 0.45 < float(first.weight.mean()) < 0.55 and float(first.weight.min()) >= 0


def test_students_go_through_all_passes_in_turn_and_end_on_the_plain_frames():
    assert [pass_of(epoch, 7, 3) for epoch in range(7)] == [0, 2, 1, 0, 2, 1, 0]
    assert [pass_of(epoch, 2, 1) for epoch in range(2)] == [0, 0]
