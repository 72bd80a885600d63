"""Stage 3: a monophone HMM with Gaussian mixtures, trained from a flat start."""

import shutil
import time

from decant.feat.cepstra import GmmFeatures
from decant.feat.data_dir import read_words
from decant.hmm.gmm_training import MonophoneConfig, passes_of, train_gmm, untrained
from decant.hmm.shard_passes import ShardPasses
from decant.hmm.shards import write_shards
from decant.hmm.state_tying import monophone_tree
from decant.hmm.system import write_system, write_timing
from decant.hmm.topology import HmmConfig, TransitionModel
from decant.lang.lexicon import read_lexicon
from decant.parallel import Workers
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    started, experiment = time.monotonic(), stage.experiment
    hmm_config, config = stage.config(hmm=HmmConfig, monophone=MonophoneConfig)
    lexicon = read_lexicon(experiment.lexicon)
    work = stage.out / "work"
    work.mkdir(exist_ok=True)
    shards = write_shards(experiment.fbank("train"), read_words(experiment.data("train")), work / "shards",
                          config.utterances, config.shortest)
    start = untrained("monophone", GmmFeatures(config.num_cepstra),
                      TransitionModel(monophone_tree(lexicon.phones), hmm_config))
    with Workers(min(stage.jobs, len(shards))) as workers:
        passes = passes_of(config, (), (), flat_start=True, labels="", speakers="")
        system = train_gmm(start, config, passes, ShardPasses(work, shards, experiment.lexicon, workers))
    write_system(stage.out, system)
    write_timing(stage.out, system, started)
    shutil.rmtree(work)


if __name__ == "__main__":
    run_step(main)
