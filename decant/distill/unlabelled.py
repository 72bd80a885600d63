"""Audio without transcripts, which students learn from beside the training frames: the ensemble says what is in it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from decant.distill.soft_targets import SoftTargetsConfig, teacher_logits
from decant.feat.data_dir import Utterance, check_disjoint_speakers, read_data_dir
from decant.nnet.acoustic_model import AcousticModel
from decant.nnet.frame_store import FrameStore, read_frame_store, write_utterances
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


def write_labelled_by(directory: Path, models: list[AcousticModel], frames: Iterable[tuple[str, np.ndarray]],
                      config: SoftTargetsConfig, device: torch.device) -> FrameStore:
    """Writes a store of (utterance, frames [T, F]), one utterance in memory at a time, and returns it with the hard
    labels that the models find most probable together, which are not written."""
    write_utterances(directory, ((utterance, x, np.zeros(len(x))) for utterance, x in frames))
    store = read_frame_store(directory)
    return replace(store, pdfs=most_probable(models, store.to(device), config))


def most_probable(models: list[AcousticModel], store: FrameStore, config: SoftTargetsConfig) -> torch.Tensor:
    """The pdf-id that the models find most probable at every frame of a store: int32 [N], on the CPU."""
    labels = torch.empty(len(store), dtype=torch.int32)
    firsts = range(0, len(store), 4096)
    for first in progress(firsts, len(firsts), "labels"):
        part = torch.arange(first, min(first + 4096, len(store)), device=store.device)
        windows = store.windows(part, models[0].config.window)
        labels[first:first + len(part)] = teacher_logits(models, windows, config).argmax(dim=1)
    return labels
