"""Stage 13: frame accuracy and word error rate of every system, on the test sets with what dev chose."""

from decant.distill.ensemble import EnsembleConfig
from decant.distill.regularization import RegularizationConfig
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.score.evaluation import Evaluation, comparisons, evaluate
from decant.score.g2p_results import g2p_rows, write_g2p_rows
from decant.score.regularization_results import regularization_rows, write_regularization
from decant.score.results import write_comparisons, write_results
from decant.score.scoring import ScoringConfig
from decant.score.systems import find_systems
from decant.search.beam_search import LatticeSearch, SearchConfig
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    search, scoring = stage.config(search=SearchConfig, scoring=ScoringConfig)
    experiment = stage.experiment
    systems = find_systems(experiment, *stage.config(ensemble=EnsembleConfig, soft_targets=SoftTargetsConfig,
                                                     distillation=DistillationConfig))
    # On a CPU systems share the cores; on a GPU they follow each other, and each has all of them to search.
    jobs = 1 if stage.device.type == "cpu" else stage.jobs
    tuning = LatticeSearch(scoring.lattice_search_beam, search.max_active, scoring.search_weight, scoring.lattice_beam)
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


if __name__ == "__main__":
    run_step(main)
