"""Stage 6: the decoding graph of lexicon, language model and HMM."""

from decant.decoding_graph import build_graph
from decant.hmm import read_transitions
from decant.lexicon import read_lexicon
from steps.common import Stage, run_step


def main(stage: Stage) -> None:
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    transitions = read_transitions(stage.exp / "monophone" / "transitions.json")
    build_graph(lexicon, stage.exp / "lang" / "lm.arpa", transitions, stage.out)


if __name__ == "__main__":
    run_step(main)
