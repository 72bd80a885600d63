"""Stage 4: tied triphone states and their Gaussian mixtures, each system from the alignment of the one before; none
without state_tying.num_leaves."""

import json
import shutil
import time
from pathlib import Path

from decant.feat.archive import write_matrices
from decant.feat.data_dir import read_words
from decant.files import atomic_path
from decant.hmm.gmm_training import TriphoneConfig
from decant.hmm.shard_passes import ShardPasses
from decant.hmm.shards import write_shards
from decant.hmm.state_tying import StateTyingConfig
from decant.hmm.system import read_system, write_system, write_timing
from decant.hmm.tied_training import train_tied
from decant.lang.lexicon import LexiconConfig, read_lexicon
from decant.parallel import Workers
from steps.stage_program import Stage, logger, run_step


def main(stage: Stage) -> None:
    tying, config = stage.config(state_tying=StateTyingConfig, triphone=TriphoneConfig)
    systems = config.systems if tying.num_leaves else ()
    before = stage.experiment.folder("monophone")
    for out in (stage.out / name for name in systems):
        if (out / "timing.json").exists():
            logger.info("%s: done before, kept", out.name)
        else:
            train(stage, before, out)
        before = out
    with atomic_path(stage.out / "models.json") as path:
        path.write_text(json.dumps(systems) + "\n")


def train(stage: Stage, before: Path, out: Path) -> None:
    """Trains a system into the folder `out`, from the one in `before`."""
    tying, config, phones = stage.config(state_tying=StateTyingConfig, triphone=TriphoneConfig, lexicon=LexiconConfig)
    started, experiment, work = time.monotonic(), stage.experiment, out / "work"
    lexicon = read_lexicon(experiment.lexicon)
    its_config, count = config.of_system(out.name)
    work.mkdir(parents=True, exist_ok=True)
    shards = write_shards(experiment.fbank("train"), read_words(experiment.data("train")), work / "shards", count)
    with Workers(min(stage.jobs, len(shards))) as workers:
        passes = ShardPasses(work, shards, experiment.lexicon, workers)
        system, speakers = train_tied(out.name, read_system(before, lexicon), lexicon,
                                      phones.position_dependent_phones, tying, its_config, passes)
    if speakers:
        write_matrices(out / "fmllr", passes.speakers(speakers).items())
    write_system(out, system)
    write_timing(out, system, started)
    shutil.rmtree(work)


if __name__ == "__main__":
    run_step(main)
