"""Stage 2: the filterbanks of every split."""

from decant.feat.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.feat.fbank import FbankConfig, compute_fbank_dir
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    config, limits = stage.config(fbank=FbankConfig, utterances=UtterancesConfig)
    for split in stage.experiment.splits("data"):
        unusable = compute_fbank_dir(stage.experiment.data(split), stage.experiment.fbank(split), config, stage.jobs)
        check_unusable(split, unusable, len(read_data_dir(stage.experiment.data(split))), limits)


if __name__ == "__main__":
    run_step(main)
