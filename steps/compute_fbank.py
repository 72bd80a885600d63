"""Stage 2: the filterbanks of every split."""

from decant.feat.data_dir import UtterancesConfig, check_unusable, read_data_dir
from decant.feat.fbank import FbankConfig, compute_fbank_dir
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    config, limits = stage.config(fbank=FbankConfig, utterances=UtterancesConfig)
    problems = []
    for split in stage.experiment.splits("data"):  # all of them: what is wrong is said at once
        try:
            data = stage.experiment.data(split)
            unusable = compute_fbank_dir(data, stage.experiment.fbank(split), config, stage.jobs)
            total = len(read_data_dir(data, audio=False))
            check_unusable(split, unusable, total, limits)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


if __name__ == "__main__":
    run_step(main)
