"""What the steps' programs share: their arguments, their log, and errors in one line."""

import argparse
import io
import json
import logging
import os
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from decant.experiment import Experiment
from decant.nnet import data_parallel
from decant.search.engine import Engine

logger = logging.getLogger("decant.steps")


@dataclass(frozen=True)
class Stage:
    """What a stage's program is given: the experiment as far as the stage declares it, and its own folder."""

    experiment: Experiment
    out: Path
    jobs: int
    device: torch.device
    corpus: str = ""
    engine: Engine = Engine()
    tables: frozenset[str] | None = None  # of the config, that the stage declares; None: all

    @property
    def model_jobs(self) -> int:
        """Models trained or applied at a time: one a core, but one after the other on a GPU or by several processes."""
        return self.jobs if self.device.type == "cpu" and data_parallel.num_processes() == 1 else 1

    def config(self, **tables: type) -> list[Any]:
        """The named tables of the config: stage.config(fbank=FbankConfig) gives [FbankConfig(...)]. Raises ValueError
        for a table that the stage does not declare."""
        settings = tomllib.loads((self.out / "stage.toml").read_text(encoding="utf-8"))
        if self.tables is not None and (undeclared := tables.keys() - self.tables):
            raise ValueError(f"stage {self.experiment.stage} asks for the table [{min(undeclared)}], which its line in "
                             "steps/stages.sh does not name; add it there after --config")
        return [table(**{field: tuple(value) if isinstance(value, list) else value
                         for field, value in settings[name].items()}) for name, table in tables.items()]


def stage_of(given: argparse.Namespace, device: torch.device) -> Stage:
    """The stage that runs in the folder `given.out`; a program that is run by hand, without stage.json, sees all."""
    engine = Engine(given.engine, "cpu" if device.type == "cpu" else "auto", given.out)
    note = given.out / "stage.json"
    if not note.exists():
        experiment = Experiment(given.exp, given.out.name.removesuffix(".partial"), given.out)
        return Stage(experiment, given.out, given.jobs, device, given.corpus, engine)
    declared = json.loads(note.read_text(encoding="utf-8"))
    there = frozenset(name for name, fingerprint in declared["reads"].items() if fingerprint)
    experiment = Experiment(given.exp, declared["stage"], given.out, frozenset(declared["reads"]), there)
    return Stage(experiment, given.out, given.jobs, device, given.corpus, engine, frozenset(declared["config"]))


def run_step(main: Callable[[Stage], None]) -> None:
    """Runs a stage's program; a user's mistake ends it with one line on stderr and in the stage's log."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    for name, kind in (("exp", Path), ("out", Path), ("jobs", int), ("device", str), ("corpus", str),
                       ("engine", str)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    given = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any word on any terminal
    level = logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR  # RANK: torchrun's
    logging.basicConfig(level=level, format="%(message)s", handlers=[
        logging.StreamHandler(), logging.FileHandler(given.out / "log", encoding="utf-8")])
    torch.set_num_threads(1)  # stages compute in several processes or threads of their own
    try:
        device = data_parallel.choose_device(given.device)
        data_parallel.join(device)
        main(stage_of(given, device))
        data_parallel.leave()
    except (ValueError, OSError, FloatingPointError) as error:
        logger.error("error: %s", error)
        sys.exit(1)
    except torch.OutOfMemoryError as error:
        logger.error("error: %s: out of memory: %s", given.device, str(error).partition("\n")[0])
        sys.exit(1)
    except BrokenProcessPool:
        logger.error("error: a worker process was killed, perhaps for want of memory; try fewer --jobs")
        sys.exit(1)
    except Exception as error:
        if "closed by peer" in str(error):  # gloo's words
            logger.error("error: another process of this stage has ended; its own error, or torchrun's, says why")
        else:
            logger.exception("error: unexpected")
        sys.exit(1)
