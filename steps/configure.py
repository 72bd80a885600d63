"""Reads run.sh's options and the recipe's TOML, checks every field, then turns into the recipe's list of stages.

    run.sh [--stage N] [--stop-stage M] [--list] [--verify] [--corpus DIR] [--conf FILE] [--exp DIR] [--jobs N]
           [--processes N] [--device auto|cpu|cuda] [--engine kaldi|k2] [--<table>.<field> VALUE ...]
"""

import errno
import fcntl
import hashlib
import importlib
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

from decant.config import config_parser, read_tables, write_tables
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
from steps.stage_record import verify

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
    parser = config_parser(tables, prog=script, description=__doc__.partition("\n")[0])
    parser.add_argument("--stage", type=int | None, help="run again from this stage on, done or not")
    parser.add_argument("--stop-stage", type=int, default=99, help="the last stage to run")
    parser.add_argument("--list", action="store_true", help="print the stages and their state, run nothing")
    parser.add_argument("--verify", action="store_true", help="read what the stages wrote again, run nothing; exit "
                        "status 1 if a file is not what it was")
    parser.add_argument("--corpus", default="", help="folder that holds the corpus already, instead of a download")
    parser.add_argument("--conf", default="", help=f"the recipe's settings [conf/{recipe}.toml]")
    parser.add_argument("--exp", default="", help=f"folder of everything that the stages write [exp/{recipe}]")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes at a time")
    parser.add_argument("--processes", type=int, default=1, help="that share trainings and soft targets")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="of the neural networks")
    parser.add_argument("--engine", default="kaldi", choices=["kaldi", "k2"], help="what aligns and decodes (6, 9, 13)")
    parser.exit_on_error = True
    options = parser.parse_args(arguments)
    if not 0 <= (options.stage or 0) <= 14 or min(options.jobs, options.processes) < 1:
        raise ValueError(f"--stage {options.stage} --jobs {options.jobs} --processes {options.processes}: stages are 0 "
                         "to 14, jobs and processes at least 1")
    parser.exit_on_error = False
    here = Path(os.environ["DECANT_FROM"])  # paths are the user's, who may stand anywhere
    if options.engine == "k2":
        if "DECANT_K2_PYTHON" in os.environ:
            os.environ["DECANT_K2_PYTHON"] = str(here / os.environ["DECANT_K2_PYTHON"])
        check_python()
    conf = here / options.conf if options.conf else Path(f"conf/{recipe}.toml")
    configured = read_tables(conf, tables, parser, arguments)

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
           "config": config, "defaults": {name: asdict(table()) for name, table in tables.items()}}
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
