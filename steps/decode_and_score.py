"""Stage 13: frame accuracy and word error rate of every system, on the test sets with what dev chose."""

from pathlib import Path

import numpy as np

from decant.distill.ensemble import EnsembleConfig
from decant.distill.regularization import RegularizationConfig
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.lang.language_model import read_arpa
from decant.lang.mapped_model import write_mapped
from decant.score.evaluation import Evaluation, comparisons, evaluate
from decant.score.g2p_results import g2p_rows, write_g2p_rows
from decant.score.regularization_results import regularization_rows, write_regularization
from decant.score.results import write_comparisons, write_results
from decant.score.scoring import ScoringConfig
from decant.score.systems import find_systems
from decant.search.beam_search import LatticeSearch, SearchConfig
from steps.stage_program import Stage, logger, run_step


def main(stage: Stage) -> None:
    search, scoring = stage.config(search=SearchConfig, scoring=ScoringConfig)
    experiment = stage.experiment
    systems = find_systems(experiment, *stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig,
                                                     distillation=DistillationConfig))
    # On a CPU systems share the cores; on a GPU they follow each other, and each has all of them to search.
    jobs = 1 if stage.device.type == "cpu" else stage.jobs
    models = write_larger(stage, scoring.larger_lm)
    tuning = LatticeSearch(scoring.lattice_search_beam, search.max_active, scoring.search_weight, scoring.lattice_beam,
                           models)
    evaluation = Evaluation(experiment, stage.out, search, tuning, stage.engine, stage.device, jobs)
    _, _, *tests = experiment.splits("data")
    write_results(experiment.results, evaluate(evaluation, systems, scoring, tests, stage.model_jobs))
    write_comparisons(experiment.comparisons, comparisons(evaluation, systems, tests))
    if experiment.g2p.exists():
        write_g2p_rows(experiment.g2p_results, g2p_rows(stage.out / "details", systems, tests, experiment.g2p))
    if experiment.has("regularization"):
        [config] = stage.config(regularization=RegularizationConfig)
        write_regularization(experiment.regularization_results,
                             regularization_rows(experiment, config, tests[0], stage.device))


def write_larger(stage: Stage, larger: str) -> Path | None:
    """The folder with the graph's language model and a larger one as arrays, which all processes share; None if there
    is no larger one. Raises ValueError for a word of the first that the second lacks, and for k2."""
    experiment, folder = stage.experiment, stage.experiment.language_models
    source = {"": experiment.own_larger_model, "whole": experiment.whole_language_model}.get(larger, Path(larger))
    if not source.exists():
        if larger == "whole":
            raise FileNotFoundError(f"{source}: not there, since stage 1 has pruned no language model; set "
                                    "language_model.prune_threshold, or give scoring.larger_lm an ARPA file")
        return None
    if stage.engine.name != "kaldi":
        raise ValueError(f"{stage.engine.name} does not score lattices with a larger language model ({source}); run "
                         "stage 13 with --engine kaldi")
    if not (folder / "larger" / "words.txt").exists():
        first, second = read_arpa(experiment.language_model), read_arpa(source, np.float32)
        if missing := sorted(set(first.words) - set(second.words)):
            raise ValueError(f"{source}: lacks the word {missing[0]} ({len(missing)} of the {len(first.words)} of "
                             f"{experiment.language_model}); estimate it with the same vocabulary")
        logger.info("larger language model, %s: order %d, %d n-grams", source, second.order, second.num_ngrams)
        write_mapped(first, folder / "first")
        write_mapped(second, folder / "larger")
    return folder


if __name__ == "__main__":
    run_step(main)
