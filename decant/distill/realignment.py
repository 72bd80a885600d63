"""Labels by networks in place of those of the mixtures: a network learns the labels as they are and aligns again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from decant.distill.ensemble import ensemble_logits
from decant.hmm.topology import TransitionModel, state_graph
from decant.lang.lexicon import Lexicon
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import FrameStore
from decant.nnet.training import TrainingConfig
from decant.search.engine import Engine
from decant.settings import config_field


@dataclass(frozen=True)
class RealignmentConfig(TrainingConfig):
    """Networks that align the hard labels again."""

    rounds: int = config_field(0, "Rounds of training a network (of default size) on the labels, and aligning with it.")
    epochs: int = config_field(
        2, "Passes over the training frames; few, since a network that knows its frames by heart repeats their labels.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rounds < 0:
            raise ValueError(f"rounds is {self.rounds}; it may not be negative (0: the mixtures' labels are kept)")


def aligned_again(model: AcousticModel, store: FrameStore, words: Mapping[str, Sequence[str]], lexicon: Lexicon,
                  transitions: TransitionModel, engine: Engine) -> Tensor:
    """The pdf-ids, int64 [N] on the CPU, of a store's frames by the network's own forced alignment. words: of every
    utterance."""
    rows = dict(store.utterance_slices())
    graphs = {utterance: state_graph(words[utterance], lexicon, transitions) for utterance in sorted(rows)}
    index = {utterance: torch.arange(at.start, at.stop) for utterance, at in rows.items()}
    labels = engine.align(graphs, index, partial(scaled_likelihoods, model, store), 1,
                          transitions.config.alignment_beam)
    return torch.from_numpy(np.concatenate([labels[utterance] for utterance in rows]))


def scaled_likelihoods(model: AcousticModel, store: FrameStore, index: Tensor, pdfs: Tensor) -> Tensor:
    """log p(x | pdf-id) up to a constant, of some pdf-ids (int64 [P]) at the frames `index`: float32 [T, P]."""
    scores = torch.cat([ensemble_logits([model], store.windows(part, model.config.window))
                        for part in index.to(store.pdfs.device).split(4096)])
    return (scores - model.log_priors).cpu()[:, pdfs]
