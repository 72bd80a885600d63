"""Audio without transcripts, which students learn from beside the training frames: the ensemble says what is in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from decant.distill.soft_targets import SoftTargetsConfig, teacher_logits
from decant.feat.archive import write_matrices
from decant.feat.data_dir import UtterancesConfig, check_disjoint_speakers, check_unusable, read_data_dir
from decant.feat.fbank import FbankConfig, compute_fbank_dir
from decant.lang.lexicon import read_lexicon
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import FramesConfig, FrameStore, pack, read_frame_store, write_frame_store
from decant.progress import progress
from steps.acoustic_training import load_models
from steps.adaptation import speaker_transforms
from steps.common import Stage, logger
from steps.features import network_features


def student_frames(stage: Stage, soft_targets: Path) -> Path:
    """The folder of the frame store that students see; soft_targets: stage 9's own."""
    [config] = stage.config(soft_targets=SoftTargetsConfig)
    return soft_targets / "frames" if config.unlabelled else stage.exp / "alignment" / "train"


def label_audio(stage: Stage, teachers: tuple[Path, ...]) -> None:
    """Writes OUT/frames, a store of the training frames and of those of `soft_targets.unlabelled`, whose hard labels
    are the teachers' most probable states; unless it is there."""
    config, frames, limits, fbank = stage.config(soft_targets=SoftTargetsConfig, frames=FramesConfig,
                                                 utterances=UtterancesConfig, fbank=FbankConfig)
    if not config.unlabelled or (stage.out / "frames" / "utterances.txt").exists():
        return
    data, out = Path(config.unlabelled), stage.out / "unlabelled"
    utterances = read_data_dir(data, transcribed=False)
    for split in ("dev", "test"):
        check_disjoint_speakers({str(data): utterances, split: read_data_dir(stage.exp / "data" / split)})
    train = read_frame_store(stage.exp / "alignment" / "train")
    if both := sorted({utterance.id for utterance in utterances} & set(train.utterances)):
        raise ValueError(f"{data}/utt2spk: utterance {both[0]} is one of train's too, as are {len(both)} in all; leave "
                         "them out, or give them other ids")
    unusable = compute_fbank_dir(data, out, fbank, stage.jobs, transcribed=False)
    check_unusable(data.name, unusable, len(utterances), limits)
    if frames.features == "fmllr" and not (out / "fmllr.scp").exists():
        lexicon = read_lexicon(stage.exp / "lang" / "lexicon.txt")
        write_matrices(out / "fmllr", sorted(speaker_transforms(stage, lexicon, out).items()))
    new = pack((utterance, x, np.zeros(len(x)))
               for utterance, x in network_features(stage.exp, frames.features, out, out))
    torch.set_num_threads(stage.jobs)
    pdfs = most_probable(load_models(teachers, stage.device), new.to(stage.device), config)
    write_frame_store(stage.out / "frames", train, replace(new, pdfs=pdfs))
    logger.info("%s: %d frames of %d utterances, beside %d of train", data, len(new), len(new.utterances), len(train))


def most_probable(models: list[AcousticModel], store: FrameStore, config: SoftTargetsConfig) -> torch.Tensor:
    """The pdf-id that the models find most probable at every frame of a store: int64 [N], on the CPU."""
    parts = torch.arange(len(store), device=store.device).split(4096)
    return torch.cat([teacher_logits(models, store.windows(part, models[0].config.window), config).argmax(dim=1).cpu()
                      for part in progress(parts, len(parts), "labels")])
