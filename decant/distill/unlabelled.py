"""Audio without transcripts, which students learn from beside the training frames: the ensemble says what is in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from decant.distill.soft_targets import SoftTargetsConfig, teacher_logits
from decant.feat.data_dir import Utterance, check_disjoint_speakers, read_data_dir
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import FrameStore, pack
from decant.progress import progress


def read_unlabelled(data: Path, train: Sequence[str], others: Mapping[str, Iterable[Utterance]]) -> list[Utterance]:
    """The utterances of a data directory without transcripts. train: the training utterances' ids; others: dev and the
    test sets. Raises ValueError for a speaker who is in one of those, and an id that is train's."""
    utterances = read_data_dir(data, transcribed=False)
    for split, known in others.items():
        check_disjoint_speakers({str(data): utterances, split: known})
    if both := sorted({utterance.id for utterance in utterances} & set(train)):
        raise ValueError(f"{data}/utt2spk: utterance {both[0]} is one of train's too, as are {len(both)} in all; leave "
                         "them out, or give them other ids")
    return utterances


def labelled_by(models: list[AcousticModel], frames: Iterable[tuple[str, np.ndarray]], config: SoftTargetsConfig,
                device: torch.device) -> FrameStore:
    """A store of (utterance, frames [T, F]) whose hard labels are what the models find most probable together."""
    store = pack((utterance, x, np.zeros(len(x))) for utterance, x in frames)
    return replace(store, pdfs=most_probable(models, store.to(device), config))


def most_probable(models: list[AcousticModel], store: FrameStore, config: SoftTargetsConfig) -> torch.Tensor:
    """The pdf-id that the models find most probable at every frame of a store: int64 [N], on the CPU."""
    parts = torch.arange(len(store), device=store.device).split(4096)
    return torch.cat([teacher_logits(models, store.windows(part, models[0].config.window), config).argmax(dim=1).cpu()
                      for part in progress(parts, len(parts), "labels")])
