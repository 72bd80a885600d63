"""The config's tables that all recipes share; what their fields have to have in common; the files that they name."""

import hashlib
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from decant.distill.ensemble import EnsembleConfig
from decant.distill.realignment import RealignmentConfig
from decant.distill.regularization import HardRegularizationConfig, RegularizationConfig, SoftRegularizationConfig
from decant.distill.soft_targets import DistillationConfig, SoftTargetsConfig
from decant.feat.data_dir import UtterancesConfig, read_data_dir
from decant.feat.fbank import FbankConfig
from decant.hmm.gmm_training import MonophoneConfig, TriphoneConfig
from decant.hmm.state_tying import StateTyingConfig
from decant.hmm.topology import HmmConfig
from decant.lang.language_model import LanguageModelConfig
from decant.lang.lexicon import LexiconConfig
from decant.nnet.acoustic_model import AcousticModelConfig
from decant.nnet.frame_store import FramesConfig
from decant.nnet.training import TrainingConfig
from decant.score.scoring import ScoringConfig
from decant.search.adaptation import AdaptationConfig
from decant.search.beam_search import SearchConfig
from steps.stage_record import file_hash

SHARED_TABLES = {
    "utterances": UtterancesConfig, "lexicon": LexiconConfig, "language_model": LanguageModelConfig,
    "fbank": FbankConfig, "hmm": HmmConfig, "monophone": MonophoneConfig, "state_tying": StateTyingConfig,
    "triphone": TriphoneConfig, "adaptation": AdaptationConfig, "frames": FramesConfig,
    "realignment": RealignmentConfig, "acoustic_model": AcousticModelConfig,
    "training": TrainingConfig, "ensemble": EnsembleConfig, "soft_targets": SoftTargetsConfig,
    "distillation": DistillationConfig,
    "student_training": TrainingConfig, "regularization": RegularizationConfig,
    "hard_regularization_training": HardRegularizationConfig,
    "soft_regularization_training": SoftRegularizationConfig,
    "search": SearchConfig, "scoring": ScoringConfig,
}


def check_together(configured: dict[str, Any], conf: Path, processes: int) -> None:
    """Raises ValueError for fields of different tables that contradict each other."""
    if configured["triphone"].lda_dim and not configured["state_tying"].num_leaves:
        raise ValueError(f"{conf}: triphone.lda_dim needs tied states; set state_tying.num_leaves")
    if configured["frames"].features == "fmllr" and not configured["triphone"].speaker_adaptation:
        raise ValueError(f"{conf}: frames.features is fmllr, which needs triphone.speaker_adaptation = true")
    if processes > 1 and configured["training"].shard_weights and configured["ensemble"].side_by_side > 1:
        raise ValueError(f"{conf}: members side by side do not divide their weights; set ensemble.side_by_side "
                         "to 1, or training.shard_weights to false")


def resolve_paths(configured: dict[str, Any], here: Path) -> dict[str, dict]:
    """The tables' fields, for the fingerprints of stages; paths, in `configured` too, as of the folder `here` and with
    what stands there, which is what counts."""
    config = {name: asdict(table) for name, table in configured.items()}
    named = [(name, field, file_hash) for name, table in configured.items() for field in getattr(table, "files", ())]
    for table, field, digest in (("state_tying", "questions", file_hash), *named,
                                 ("soft_targets", "unlabelled", lambda p: hashlib.sha256(audio_of(p)).hexdigest())):
        if given := getattr(configured[table], field):
            path = (here / given).resolve()
            if digest is file_hash and not path.is_file():
                raise FileNotFoundError(f"{table}.{field}: there is no file {path}; --help {table} says what it can be")
            configured[table] = replace(configured[table], **{field: str(path)})
            config[table][field] = f"{path} (SHA-256 {digest(path)})"
    return config


def audio_of(directory: Path) -> bytes:
    """Which audio is whose in a data directory without transcripts, and of every recording its size and 4 KB from its
    middle, where other recordings differ; ValueError, before any work, if it is faulty."""
    try:
        utterances = read_data_dir(directory, transcribed=False)
        facts = []
        for path, offset in dict.fromkeys((utterance.audio, utterance.offset) for utterance in utterances):
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                if offset is not None:  # a WAV file in an archive: its length stands after RIFF
                    file.seek(offset + 4)
                    size = int.from_bytes(file.read(4), "little")
                file.seek((offset or 0) + size // 2)
                facts.append((size, file.read(4096)))
        return repr((utterances, facts)).encode()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"soft_targets.unlabelled: {error}") from error
