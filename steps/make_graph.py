"""Stage 5: the decoding graph of lexicon, language model and HMM, for each system of Gaussian mixtures."""

from decant.hmm.topology import read_transitions
from decant.lang.lexicon import read_lexicon
from decant.search.decoding_graph import build_graph
from steps.common import Stage, hmm_folders, run_step


def main(stage: Stage) -> None:
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    for folder in hmm_folders(stage.exp):
        transitions = read_transitions(folder, lexicon.phones)
        build_graph(lexicon, stage.exp / "lang" / "lm.arpa", transitions, stage.out / folder.name)


if __name__ == "__main__":
    run_step(main)
