"""Stage 3: a monophone HMM with Gaussian mixtures, trained from a flat start."""

from decant.cepstra import gmm_features
from decant.data_dir import read_data_dir
from decant.gmm import MonophoneConfig, save_gmm, train_monophone
from decant.hmm import HmmConfig, TransitionModel, state_graph, write_transitions
from decant.lexicon import read_lexicon
from steps.common import Stage, as_tensors, logger, run_step


def main(stage: Stage) -> None:
    hmm_config, config = stage.config(hmm=HmmConfig, monophone=MonophoneConfig)
    lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
    words = {utterance.id: utterance.words for utterance in read_data_dir(stage.exp / "data" / "train")}
    features = as_tensors(gmm_features(stage.exp / "fbank" / "train", config.num_cepstra))

    def make_graphs(transitions: TransitionModel):
        return [state_graph(words[utterance], lexicon, transitions) for utterance in features]

    gmm, transitions, paths = train_monophone(list(features.values()), make_graphs,
                                              TransitionModel(lexicon.phones, hmm_config), config, stage.jobs,
                                              logger.info)
    save_gmm(stage.out, gmm, config.num_cepstra)
    write_transitions(stage.out / "transitions.json", transitions)
    lost = sum(path is None for path in paths)
    logger.info("%d pdf-ids, %d Gaussians; %d of %d utterances could not be aligned", transitions.num_pdfs,
                int(gmm.num_gaussians.sum()), lost, len(paths))


if __name__ == "__main__":
    run_step(main)
