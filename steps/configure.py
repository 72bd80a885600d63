"""Reads run.sh's options and the recipe's TOML, checks every field, then turns into the recipe's list of stages.

    run.sh [OPTION ...] [--<table>.<field> VALUE ...]; run.sh --help lists them
"""

import argparse
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from decant.config import read_tables, write_tables
from decant.search.k2_engine import check_python
from decant.settings import neutral
from steps.lock import take_lock
from steps.plan import plan
from steps.stage_record import verify
from steps.tables import SHARED_TABLES, check_together, resolve_paths
from steps.usage import option_parser, usage


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

    check_together(configured, conf, options.processes)
    config = resolve_paths(configured, here)
    exp = (here / options.exp if options.exp else Path(f"exp/{recipe}")).resolve()
    if options.plan:
        print(plan(configured, options, exp, Path(script)), end="")
        return
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


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
