"""What the models see of a folder of filterbanks, and speakers' transforms: for the stages that meet new speakers."""

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor

from decant.feat.front_end import Filterbanks
from decant.hmm.system import read_system
from decant.lang.lexicon import read_lexicon
from decant.search.adaptation import Adaptation, AdaptationConfig, Words
from steps.stage_program import Stage


def adaptation(stage: Stage) -> Adaptation:
    """From the last two systems of mixtures, of which the first recognises what new speakers say."""
    [config] = stage.config(adaptation=AdaptationConfig)
    lexicon, setting = read_lexicon(stage.experiment.lexicon), (config.lm_weight, 0.0)
    before, adapted = (read_system(folder, lexicon) for folder in stage.experiment.mixtures[-2:])
    graph = stage.experiment.graph(stage.experiment.mixtures[-2])

    def recognise(features: Mapping[str, Tensor]) -> Words:
        scored = ((utterance, before.form.log_likelihoods(x).numpy()) for utterance, x in features.items())
        return stage.engine.decode(scored, graph, [setting], config, stage.jobs)[setting].words

    return Adaptation(before, adapted, lexicon, recognise, config.passes, stage.jobs)


def for_networks(kind: str, filterbanks: Filterbanks,
                 adapted: Mapping[str, Tensor]) -> Iterable[tuple[str, np.ndarray]]:
    """(utterance, float32 [T, F]) for the networks. kind: FramesConfig.features; adapted: what mixtures see."""
    if kind == "fbank":
        return filterbanks.for_networks()
    return ((utterance, x.numpy()) for utterance, x in adapted.items())
