"""What the models see of a folder of filterbanks, and speakers' transforms: for the stages that meet new speakers."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from decant.feat.front_end import Filterbanks
from decant.hmm.gmm import load_gmm
from decant.nnet.frame_store import FramesConfig
from decant.search.adaptation import AdaptationConfig
from decant.search.shard_labels import Labelling
from steps.stage_program import Stage


def labelling(stage: Stage, known: Path | None = None, words_are_known: bool = False,
              adapt_only: bool = False) -> Labelling:
    """By the last system of mixtures, or by the last two if it is adapted to speakers."""
    [config] = stage.config(adaptation=AdaptationConfig)
    mixtures = stage.experiment.mixtures
    systems = mixtures[-2:] if load_gmm(mixtures[-1])[1].adapted else mixtures[-1:]
    return Labelling(tuple(systems), stage.experiment.lexicon, stage.experiment.graph(systems[0]), config, stage.engine,
                     known, words_are_known, adapt_only)


def for_networks(stage: Stage, filterbanks: Filterbanks,
                 transforms: Mapping[str, Tensor] | None) -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, float32 [T, F]) for the networks. transforms: of each speaker, by the last system of mixtures."""
    [config] = stage.config(frames=FramesConfig)
    if config.features == "fbank":
        yield from filterbanks.for_networks()
    else:
        _, seen = load_gmm(stage.experiment.mixtures[-1])
        for utterance, x in filterbanks.for_mixtures(seen, transforms):
            yield utterance, x.numpy()
