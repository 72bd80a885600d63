"""Stage 6's first part: the labels of a split by the last system of Gaussian mixtures.

With a speaker-adapted system each speaker's transform comes first: that of training for train; for dev and test from
what the system before it recognises, as in use, and never from their transcripts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from decant.feat.archive import read_int_vector, write_matrices
from decant.feat.data_dir import UtterancesConfig, check_unusable
from decant.feat.fbank import read_unusable, write_unusable
from decant.feat.front_end import read_filterbanks, read_transforms
from decant.hmm.shards import Words, write_shards
from decant.parallel import parallel_map
from decant.search.shard_labels import do_shard, labels_of, transforms_found, without_labels
from steps.adapted_features import for_networks, labelling
from steps.stage_program import Stage, logger


def label_with_mixtures(stage: Stage, words: Words, fbank: Path, out: Path, known: Path | None = None,
                        words_are_known: bool = False) -> None:
    """Labels a folder of filterbanks, whose labels are then in OUT/work for `labelled_frames`; OUT/unusable.txt and,
    for an adapted system, OUT/fmllr.scp. known: PREFIX of the speakers' transforms that there are; words_are_known:
    others may be found with the transcripts."""
    [limits] = stage.config(utterances=UtterancesConfig)
    how, work = labelling(stage, known, words_are_known), out / "work"
    work.mkdir(parents=True, exist_ok=True)
    how.write(work)
    shards = write_shards(fbank, words, work / "shards")
    jobs = 1 if stage.engine.name == "k2" else stage.jobs
    for _ in parallel_map(do_shard, [(work, shard) for shard in shards], jobs, f"labels of {out.name}"):
        pass
    if how.system.features.adapted:
        write_matrices(out / "fmllr", ((name, x.numpy()) for name, x in transforms_found(work, shards).items()))
    too_short, lacking = without_labels(work, shards)
    unusable = read_unusable(fbank)
    total = sum(len((shard / "utt2spk").read_bytes().splitlines()) for shard in shards) + len(unusable)
    unusable |= too_short
    check_unusable(out.name, unusable, total, limits)
    if lacking:
        logger.info("%s: %d of %d utterances have a word that the lexicon lacks: they are decoded, but have no "
                    "labels", out.name, len(lacking), total)
    write_unusable(out, unusable | lacking)


def labelled_frames(stage: Stage, fbank: Path, out: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(utterance, frames [T, F] as the networks see them, pdf-ids [T]) of every utterance that has labels."""
    work = out / "work"
    labels = labels_of(work, sorted((work / "shards").iterdir()))
    transforms = read_transforms(out / "fmllr") if (out / "fmllr.scp").exists() else None
    for utterance, frames in for_networks(stage, read_filterbanks(fbank), transforms):
        if utterance in labels:
            yield utterance, frames, read_int_vector(labels[utterance])
    shutil.rmtree(work)
