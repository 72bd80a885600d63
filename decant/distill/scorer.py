"""From what a model sees of an utterance to log-posteriors of the states: one network, or the mean of several.

A scorer is anything with `log_priors` and `log_posteriors` (the protocol below): networks here, mixtures in
decant.hmm.system, and what combines them.

The letters: T frames, F features of a frame, S pdf-ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from decant.distill.ensemble import ensemble_logits
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import pack

BATCH = 4096  # frames scored at a time


class Scorer(Protocol):
    """log_priors: float32 [S], what to take off the log-posteriors for scaled log-likelihoods (0 if they are some)."""

    @property
    def log_priors(self) -> Tensor: ...

    def log_posteriors(self, frames: np.ndarray) -> Tensor:
        """log p(pdf-id | x), up to a constant of each frame, of an utterance's frames [T, F]: float32 [T, S], on the
        CPU."""
        ...


@dataclass(frozen=True)
class MeanOfNetworks:
    """The arithmetic mean of the networks' distributions; of one, its own."""

    networks: Sequence[AcousticModel]

    @property
    def log_priors(self) -> Tensor:
        return self.networks[0].log_priors.cpu()

    def log_posteriors(self, frames: np.ndarray) -> Tensor:
        device = self.networks[0].log_priors.device
        store = pack([("utterance", frames, np.full(len(frames), -1))]).to(device)
        index, window = torch.arange(len(store), device=device), self.networks[0].config.window
        return torch.cat([ensemble_logits(self.networks, store.windows(part, window))
                          for part in index.split(BATCH)]).cpu()


@dataclass(frozen=True)
class ScoredUtterance:
    """log_likelihoods: float32 [T, S], scaled, for a search; best: the most probable pdf-ids, int64 [T]."""

    log_likelihoods: np.ndarray
    best: np.ndarray


def score(scorer: Scorer, frames: np.ndarray) -> ScoredUtterance:
    """What a search needs of an utterance, and its most probable states."""
    scores = scorer.log_posteriors(frames)
    return ScoredUtterance((scores - scorer.log_priors).numpy(), scores.argmax(dim=1).numpy())
