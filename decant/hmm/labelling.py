"""Hard labels: the state graphs of transcripts, and which utterances cannot have labels."""

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from decant.hmm.topology import StateGraph, TransitionModel, state_graph
from decant.lang.lexicon import Lexicon

log = logging.getLogger(__name__)


def graphs_of(words: Mapping[str, Sequence[str]], lexicon: Lexicon,
              transitions: TransitionModel) -> tuple[dict[str, StateGraph], dict[str, str]]:
    """The state graph of every utterance whose words the lexicon has, and the others with the reason. Stage 1 has
    refused unknown words in train; an utterance of dev or test that has one is decoded, but has no labels."""
    graphs, without = {}, {}
    for utterance, spoken in words.items():
        if unknown := [word for word in spoken if lexicon.spoken(word) is None]:
            without[utterance] = f"{unknown[0]} is not in the lexicon; it is decoded all the same"
        else:
            graphs[utterance] = state_graph(spoken, lexicon, transitions)
    return graphs, without


def too_short(graphs: Mapping[str, StateGraph], features: Mapping[str, Tensor],
              labels: Mapping[str, object]) -> dict[str, str]:
    """The utterances with a graph that have no labels, each with the reason."""
    return {utterance: f"{len(features[utterance])} frames are fewer than the {graph.min_frames} states of its "
                       "transcript" for utterance, graph in graphs.items() if utterance not in labels}
