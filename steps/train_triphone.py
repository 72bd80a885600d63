"""Stage 4: tied triphone states and their Gaussian mixtures, each system from the alignment of the one before; none
without state_tying.num_leaves."""

import json
import time

from decant.feat.archive import write_matrices
from decant.feat.data_dir import read_words
from decant.feat.front_end import read_filterbanks
from decant.files import atomic_path
from decant.hmm.gmm_training import TriphoneConfig
from decant.hmm.state_tying import StateTyingConfig
from decant.hmm.system import read_system, write_system
from decant.hmm.tied_training import train_tied
from decant.lang.lexicon import LexiconConfig, read_lexicon
from steps.stage_program import Stage, logger, run_step


def main(stage: Stage) -> None:
    tying, config, phones = stage.config(state_tying=StateTyingConfig, triphone=TriphoneConfig, lexicon=LexiconConfig)
    systems = [name for name, wanted in (("triphone", True), ("triphone_lda", config.lda_dim),
                                         ("triphone_sat", config.speaker_adaptation)) if tying.num_leaves and wanted]
    experiment, before, filterbanks = stage.experiment, stage.experiment.folder("monophone"), None
    for out in (stage.out / name for name in systems):
        if (out / "timing.json").exists():
            logger.info("%s: done before, kept", out.name)
        else:
            started = time.monotonic()
            lexicon = read_lexicon(experiment.lexicon)
            system = read_system(before, lexicon)
            words = read_words(experiment.data("train"))
            if filterbanks is None:
                filterbanks = read_filterbanks(experiment.fbank("train"))
            trained, seen, speakers = train_tied(
                out.name, system, filterbanks.cepstra(system.features.num_cepstra), words, filterbanks.speaker_of,
                lexicon, phones.position_dependent_phones, tying, config, stage.jobs)
            out.mkdir(exist_ok=True)
            if speakers:
                write_matrices(out / "fmllr", ((name, transform.numpy()) for name, transform in speakers.items()))
            write_system(out, trained, seen, started)
        before = out
    with atomic_path(stage.out / "models.json") as path:
        path.write_text(json.dumps(systems) + "\n")


if __name__ == "__main__":
    run_step(main)
