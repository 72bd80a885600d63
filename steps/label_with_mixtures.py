"""Stage 6's first part: the labels of a split by the last system of Gaussian mixtures.

With a speaker-adapted system each speaker's transform comes first: that of training for train; for dev and test from
what the system before it recognises, as in use, and never from their transcripts."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from decant.feat.archive import write_matrices
from decant.feat.data_dir import UtterancesConfig, check_unusable
from decant.feat.fbank import read_unusable, write_unusable
from decant.feat.fmllr import affine
from decant.feat.front_end import read_filterbanks
from decant.hmm.labelling import graphs_of, too_short
from decant.hmm.system import MixtureSystem
from decant.lang.lexicon import read_lexicon
from decant.nnet.frame_store import FramesConfig, FrameStore, pack
from decant.search.adaptation import Words
from steps.adapted_features import adaptation, for_networks
from steps.stage_program import Stage, logger


def label_with_mixtures(stage: Stage, system: MixtureSystem, words: Words, fbank: Path, out: Path,
          transforms: Mapping[str, Tensor] | None = None, words_are_known: bool = False) -> FrameStore:
    """What the networks see of a folder of filterbanks, with the pdf-ids of its forced alignment. Writes
    OUT/unusable.txt and, for an adapted system, OUT/fmllr.scp. transforms: the speakers', if they are known already;
    words_are_known: they may be found with the transcripts."""
    limits, frames = stage.config(utterances=UtterancesConfig, frames=FramesConfig)
    filterbanks = read_filterbanks(fbank)
    features = filterbanks.for_mixtures(system.features)
    out.mkdir(exist_ok=True)
    if system.features.adapted:
        if transforms is None:
            transforms = adaptation(stage).transforms(features, filterbanks.speaker_of,
                                                      words if words_are_known else None)
        write_matrices(out / "fmllr", ((speaker, transforms[speaker].numpy()) for speaker in sorted(transforms)))
        features = {utterance: affine(transforms[filterbanks.speaker_of[utterance]], x)
                    for utterance, x in features.items()}
    graphs, unlabelled = graphs_of({utterance: words[utterance] for utterance in features},
                                   read_lexicon(stage.experiment.lexicon), system.transitions)
    labels = stage.engine.align(graphs, features, system.form.log_likelihoods, stage.jobs)
    unusable = read_unusable(fbank)
    total = len(features) + len(unusable)
    unusable |= too_short(graphs, features, labels)
    check_unusable(out.name, unusable, total, limits)
    if unlabelled:
        logger.info("%s: %d of %d utterances have a word that the lexicon lacks: they are decoded, but have no "
                    "labels", out.name, len(unlabelled), total)
    write_unusable(out, unusable | unlabelled)
    return pack((utterance, x, labels[utterance])
                for utterance, x in for_networks(frames.features, filterbanks, features) if utterance in labels)
