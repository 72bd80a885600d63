"""Stage 5: the decoding graph of lexicon, language model and HMM, for each system of Gaussian mixtures."""

from decant.hmm.topology import read_transitions
from decant.lang.lexicon import read_lexicon
from decant.search.decoding_graph import build_graph
from steps.stage_program import Stage, run_step


def main(stage: Stage) -> None:
    experiment = stage.experiment
    lexicon = read_lexicon(experiment.lexicon)
    for folder in experiment.mixtures:
        transitions = read_transitions(folder, lexicon.phones)
        build_graph(lexicon, experiment.language_model, transitions, experiment.graph(folder))


if __name__ == "__main__":
    run_step(main)
