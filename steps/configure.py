"""Reads run.sh's options and the recipe's TOML, checks every field, then turns into the recipe's list of stages.

    run.sh [OPTION ...] [--<table>.<field> VALUE ...]; run.sh --help lists them
"""

import argparse
import errno
import fcntl
import hashlib
import importlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from decant.config import read_tables, write_tables
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
from decant.search.k2_engine import check_python
from decant.settings import neutral
from steps.stage_record import verify
from steps.usage import option_parser, usage

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


def main() -> None:
    script, recipe, *arguments = sys.argv[1:]
    tables = {"data": importlib.import_module(f"local.{recipe}").CorpusConfig, **SHARED_TABLES}
    parser = option_parser(script, recipe)
    try:
        options, settings = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ValueError(f"command line: {error}\n{script} --help lists the options") from error
    here = Path(os.environ["DECANT_FROM"])  # paths are the user's, who may stand anywhere
    conf = here / options.conf if options.conf else Path(f"conf/{recipe}.toml")
    if options.help is not None:
        print(usage(parser, options.help, tables, conf), end="")
        return
    configured = read_tables(conf, tables, settings, [f"--{name.replace('_', '-')}" for name in vars(options)],
                             f"{script} --help lists options and tables; --help TABLE, a table's fields")
    if not 0 <= (options.stage or 0) <= 14 or min(options.jobs, options.processes) < 1:
        raise ValueError(f"--stage {options.stage} --jobs {options.jobs} --processes {options.processes}: stages are 0 "
                         "to 14, jobs and processes at least 1")
    if options.engine == "k2":
        if "DECANT_K2_PYTHON" in os.environ:
            os.environ["DECANT_K2_PYTHON"] = str(here / os.environ["DECANT_K2_PYTHON"])
        check_python()

    if configured["triphone"].lda_dim and not configured["state_tying"].num_leaves:
        raise ValueError(f"{conf}: triphone.lda_dim needs tied states; set state_tying.num_leaves")
    if configured["frames"].features == "fmllr" and not configured["triphone"].speaker_adaptation:
        raise ValueError(f"{conf}: frames.features is fmllr, which needs triphone.speaker_adaptation = true")

    if options.processes > 1 and configured["training"].shard_weights and configured["ensemble"].side_by_side > 1:
        raise ValueError(f"{conf}: members side by side do not divide their weights; set ensemble.side_by_side "
                         "to 1, or training.shard_weights to false")

    config = {name: asdict(table) for name, table in configured.items()}
    # Stages read these paths; what stands there is what counts.
    for table, field, content in (("state_tying", "questions", Path.read_bytes),
                                  ("soft_targets", "unlabelled", audio_of)):
        if given := getattr(configured[table], field):
            path = (here / given).resolve()
            configured[table] = replace(configured[table], **{field: str(path)})
            config[table][field] = f"{path} (SHA-256 {hashlib.sha256(content(path)).hexdigest()})"

    exp = (here / options.exp if options.exp else Path(f"exp/{recipe}")).resolve()
    if options.verify:
        sys.exit(1 if verify(exp) else 0)
    run = {"exp": str(exp), "stage": options.stage, "stop_stage": options.stop_stage, "list": options.list,
           "corpus": str((here / options.corpus).resolve()) if options.corpus else "", "jobs": options.jobs,
           "processes": options.processes, "device": options.device, "engine": options.engine,
           "config": config, "defaults": {name: asdict(table()) for name, table in tables.items()},
           "neutral": {name: neutral(table) for name, table in tables.items()}}
    if not options.list:
        exp.mkdir(parents=True, exist_ok=True)
        run["lock"] = take_lock(exp / ".lock")
        write_tables(exp / "config.toml", configured)
    os.execvpe("bash", ["bash", script], os.environ | {"DECANT_RUN": json.dumps(run)})


def audio_of(directory: Path) -> bytes:
    """Which audio is whose in a data directory without transcripts, and of every audio file its size and 4 KB from its
    middle, where other recordings differ; ValueError, before any work, if it is faulty."""
    try:
        utterances = read_data_dir(directory, transcribed=False)
        facts = []
        for path in dict.fromkeys(utterance.audio for utterance in utterances):
            with open(path, "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(size // 2)
                facts.append((size, file.read(4096)))
        return repr((utterances, facts)).encode()
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"soft_targets.unlabelled: {error}") from error


def take_lock(path: Path) -> int:
    """Locks the experiment folder for this process, the shell that takes its place, and the stages that inherit it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path.parent}: another run is working here; wait for it, or take another --exp") from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        print(f"warning: {path.parent}: this file system has no locks ({error.strerror}): nothing keeps a second run "
              "from working here at the same time; see to it that there is none", file=sys.stderr)
    os.set_inheritable(lock, True)
    return lock


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
