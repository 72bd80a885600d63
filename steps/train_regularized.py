"""Stage 11: soft targets as regularisers (paper, section 6): networks on a small share of the training utterances, with
their hard labels, or with what the baseline says about them."""

import json
from collections.abc import Iterator
from pathlib import Path

from decant.distill.mixing import mixture
from decant.distill.regularization import RegularizationConfig, share_of
from decant.distill.soft_targets import DistillationConfig, LiveTargets, SoftTargetsConfig
from decant.nnet.acoustic_model import AcousticModelConfig, load_model
from decant.nnet.frame_store import FrameStore, read_frame_store
from decant.nnet.training import TrainingConfig, frame_accuracy, predictions
from decant.parallel import parallel_map
from decant.score.regularization_results import RegularizationRow
from steps.acoustic_training import SEEDS_APART, hard_labels, soft_labels, train_models
from steps.common import Stage, run_step


def share_of_seed(stage: Stage, seed: int) -> FrameStore:
    """The utterances that the networks of a seed see."""
    [config] = stage.config(regularization=RegularizationConfig)
    return share_of(read_frame_store(stage.exp / "alignment" / "train"), config.share, seed).to(stage.device)


def train_on_share(stage: Stage, targets: str, seed: int) -> None:
    """A network of the baseline's architecture, by hard or soft targets, on the same utterances."""
    sizes, config, training = stage.config(acoustic_model=AcousticModelConfig, regularization=RegularizationConfig,
                                           **{f"{targets}_regularization_training": TrainingConfig})
    store = share_of_seed(stage, seed)
    if targets == "hard":
        objective = hard_labels(store, sizes, training)
    else:
        baseline = load_model(stage.exp / "baseline")[0].to(stage.device)
        teacher = LiveTargets([baseline], SoftTargetsConfig(num_states=baseline.num_pdfs, precision=training.precision),
                              config.temperature)
        objective = soft_labels(
            store, sizes, lambda epoch: (mixture(len(store), epoch if config.mixtures else 0), teacher),
            config.temperature, DistillationConfig(hard_label_weight=config.hard_label_weight), training)
    train_models(stage, stage.exp / "alignment", sizes, store, objective, training,
                 [training.seed * SEEDS_APART + 2000 + seed], [stage.out / run_name(targets, seed)])


def run_name(targets: str, seed: int) -> str:
    return f"{targets}_seed_{seed}"


def regularization_rows(stage: Stage) -> Iterator[RegularizationRow]:
    """The frame accuracies of the baseline and of every network here; that on training frames is, of the baseline, on
    the utterances of the first draw."""
    [config] = stage.config(regularization=RegularizationConfig)
    test = read_frame_store(stage.exp / "alignment" / "test").to(stage.device)

    def row(folder: Path, share: float, targets: str, seed: int) -> RegularizationRow:
        model = load_model(folder)[0].to(stage.device)
        dev = [epoch["dev_frame_accuracy"] for epoch in json.loads((folder / "history.json").read_text())]
        train, on_test = (frame_accuracy(predictions(model, frames), frames).item()
                          for frames in (share_of_seed(stage, seed), test))
        return RegularizationRow(share, targets, seed, train, max(dev), dev[-1], on_test)

    yield row(stage.exp / "baseline", 1.0, "hard", 1)
    for seed in range(1, config.num_seeds + 1):
        for targets in ("hard", "soft"):
            yield row(stage.exp / "regularization" / run_name(targets, seed), config.share,
                      "soft on mixtures" if targets == "soft" and config.mixtures else targets, seed)


def main(stage: Stage) -> None:
    [config] = stage.config(regularization=RegularizationConfig)
    runs = [(stage, targets, seed) for targets in ("soft", "hard") for seed in range(1, config.num_seeds + 1)]
    for _ in parallel_map(train_on_share, runs, stage.model_jobs, "regularization"):
        pass


if __name__ == "__main__":
    run_step(main)
