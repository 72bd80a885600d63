"""Stage 3: a monophone HMM with Gaussian mixtures, trained from a flat start."""

import time

from decant.feat.cepstra import GmmFeatures
from decant.feat.data_dir import read_words
from decant.feat.front_end import read_filterbanks
from decant.hmm.gmm_training import MonophoneConfig, flat_start, train_gmm
from decant.hmm.state_tying import monophone_tree
from decant.hmm.system import write_system
from decant.hmm.topology import HmmConfig, TransitionModel, state_graph
from decant.lang.lexicon import read_lexicon
from steps.stage_program import Stage, logger, run_step


def main(stage: Stage) -> None:
    started = time.monotonic()
    hmm_config, config = stage.config(hmm=HmmConfig, monophone=MonophoneConfig)
    lexicon = read_lexicon(stage.experiment.lexicon)
    words = read_words(stage.experiment.data("train"))
    seen = GmmFeatures(config.num_cepstra)
    features = read_filterbanks(stage.experiment.fbank("train")).for_mixtures(seen)
    transitions = TransitionModel(monophone_tree(lexicon.phones), hmm_config)
    graphs = [state_graph(words[utterance], lexicon, transitions) for utterance in features]
    labels = flat_start(graphs, list(features.values()))
    trained = train_gmm(list(features.values()), graphs, transitions, labels, config, stage.jobs, logger.info)
    write_system(stage.out, trained, seen, started)


if __name__ == "__main__":
    run_step(main)
