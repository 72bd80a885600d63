"""One stage's bookkeeping: is it done, stale or to do; run it; keep what it wrote only when it is whole.

    stage NUMBER NAME [--reads STAGE ...] [--reads-if-there STAGE ...] [--config TABLE ...] [--show FILE ...]
          [--by-engine] [--by-processes] -- PROGRAM

is a line of steps/stages.sh. --reads-if-there: stages that a recipe may leave out. --show: files of the stage that the
experiment folder has a link to. --by-processes: as many as run.sh's --processes says work on it together.

A stage works in `EXP/NAME.partial` and is renamed to `EXP/NAME` when its program has succeeded and all is on disk; a
program that is started again finds what it had written there, as long as config and inputs are the same. `EXP/NAME` may
be a link to a folder on another disk: then `.partial` is beside that folder. `stage.json`: steps/stage_record.py.
Only the standard library here: fourteen stages that have nothing to do should take no time.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from decant.disk import sync, sync_all
from steps.lifetime import end_with_parent
from steps.stage_record import (
    asked,
    changed_fields,
    differs_from,
    hash_files,
    is_there,
    left_out,
    origin,
    read_note,
    stale_reason,
)

# multiprocessing's own process, which tidies up after a killed program, need not say so.
WARNINGS = "ignore:resource_tracker:UserWarning"


def check_link(link: Path, folder: Path) -> None:
    """Raises ValueError where a stage could not take the name of the folder that a link leads to."""
    if not folder.parent.is_dir():
        raise ValueError(f"{link} is a link to {folder}, and there is no {folder.parent}; make it or remove the link")
    if os.path.ismount(folder):
        raise ValueError(f"{link} is a link to {folder}, where a disk begins; let it lead to a folder on that disk")
    if folder.parent != link.parent and (folder.parent / ".lock").exists():
        raise ValueError(f"{link} is a link to {folder}, of another experiment, which this stage would replace; remove "
                         "the link, or copy what it leads to")


def prepare(partial: Path, now: dict, anew: bool) -> None:
    """The folder to work in: what an interrupted run left, if it came from the same, or an empty one."""
    if partial.exists():
        reason = "--stage begins anew" if anew else differs_from(read_note(partial), now)
        print(f"{partial}, of a run that did not end: {f'removed, {reason}' if reason else 'gone on with'}", flush=True)
        if reason:
            shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    for scratch in list(partial.rglob(".*")):  # what a killed program was writing
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(missing_ok=True)
    write_note(partial / "stage.json", now)
    shutil.copyfile(Path(asked()["exp"]) / "config.toml", partial / "stage.toml")


def write_note(note: Path, content: dict) -> None:
    temporary = note.with_name(".stage.json")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    sync(temporary)
    temporary.replace(note)


def take_name(partial: Path, directory: Path) -> None:
    """The finished folder takes the place of the one before, which is there until then."""
    sync_all(partial)
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        shutil.rmtree(old, ignore_errors=True)
        directory.rename(old)
    partial.rename(directory)
    sync(directory.parent)
    shutil.rmtree(old, ignore_errors=True)


def run_stage(directory: Path, now: dict, program: list[str], by_processes: bool) -> None:
    """Runs the program in the partial folder, which takes its name at the end."""
    run, own = asked(), os.getpid()
    partial = directory.with_name(directory.name + ".partial")
    prepare(partial, now, anew=run["stage"] is not None)
    started = time.monotonic()
    arguments = ["--exp", run["exp"], "--out", str(partial), "--jobs", str(run["jobs"]), "--device", run["device"],
                 "--corpus", run["corpus"], "--engine", run["engine"]]
    together = ["-m", "steps.torchrun", "--standalone", "--nproc-per-node", str(run["processes"]), "steps/lifetime.py"]
    launcher = together if by_processes and run["processes"] > 1 else []
    warnings = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), WARNINGS]))
    status = subprocess.run([sys.executable, *launcher, *program, *arguments], pass_fds=[run["lock"]],
                            env=os.environ | {"PYTHONWARNINGS": warnings},
                            preexec_fn=lambda: end_with_parent(own)).returncode
    if status != 0:
        sys.exit(f"{' '.join(program)} failed (exit status {status}); its log: {partial / 'log'}")
    write_note(partial / "stage.json",
               now | {"seconds": round(time.monotonic() - started, 1), "files": hash_files(partial)})
    take_name(partial, directory)


def show(exp: Path, name: str, file: str) -> None:
    """EXP/FILE is a link to the stage's, and so never of another run."""
    link, temporary = exp / file, exp / f".{file}"
    if link.is_symlink() and os.readlink(link) == f"{name}/{file}":
        return
    try:
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(f"{name}/{file}")
        temporary.replace(link)
    except OSError as error:
        print(f"{exp / name / file} is where {file} is: {link} cannot be a link to it ({error.strerror})", flush=True)


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """A line of steps/stages.sh, and the program it names."""
    parser = argparse.ArgumentParser(prog="stage", description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("number", type=int)
    parser.add_argument("name")
    for option in ("--reads", "--reads-if-there", "--config", "--show"):
        parser.add_argument(option, nargs="*", default=[])
    parser.add_argument("--by-engine", action="store_true")
    parser.add_argument("--by-processes", action="store_true")
    separator = sys.argv.index("--")
    return parser.parse_args(sys.argv[1:separator]), sys.argv[separator + 1:]


def state_of(name: str, now: dict) -> tuple[str, str]:
    """A stage's state (done, to do, or stale and why), and a remark on it; now: where it would come from."""
    directory = Path(asked()["exp"]) / name
    if not (directory / "stage.json").exists():
        return "to do", ""
    if reason := stale_reason(name, now):
        return f"stale: {reason}", ""
    rounding = changed_fields(read_note(directory)["config"])["rounding"]
    return "done", f" (rounding may differ: {', '.join(rounding)} changed)" if rounding else ""


def refuse_missing(stage: argparse.Namespace, missing: list[str]) -> None:
    """Raises ValueError: the stage cannot run without those that are missing."""
    if absent := [name for name in missing if name in left_out()]:
        reason = f"{', '.join(absent)}, which the recipe leaves out; let SKIP_STAGES have {stage.number} too"
    else:
        reason = (f"{', '.join(missing)}, not there yet in {asked()['exp']}; run without --stage, or from an earlier "
                  "one")
    raise ValueError(f"stage {stage.number} ({stage.name}) reads {reason}")


def main() -> None:
    end_with_parent(int(os.environ.get("DECANT_PARENT", os.getppid())))
    stage, program = arguments()
    run = asked()
    exp, title = Path(run["exp"]), f"{stage.number:>2} {stage.name}"
    wanted = (run["stage"] or 0) <= stage.number <= run["stop_stage"] and not run["list"]
    if stage.name in left_out():
        if wanted or run["list"]:
            print(f"{title:<16} left out" if run["list"] else f"== stage {title}: left out by the recipe", flush=True)
        return
    if missing := [name for name in stage.reads if not is_there(name)]:
        if run["list"]:
            print(f"{title:<16} to do")
        elif wanted:
            refuse_missing(stage, missing)
        return
    try:
        now = {"stage": stage.name} | origin(stage.config, stage.reads + stage.reads_if_there, stage.by_engine)
    except ValueError as error:
        raise ValueError(f"stage {stage.number} ({stage.name}): {error}") from error
    state, remark = state_of(stage.name, now)
    if run["list"]:
        print(f"{title:<16} {state}{remark}")
    elif not wanted:
        if state != "done" and stage.number < (run["stage"] or 0):
            raise ValueError(f"stage {stage.number} ({stage.name}) is {state}; run from there, or without --stage")
    else:
        directory = (exp / stage.name).resolve()  # it may be a link
        if state == "done" and run["stage"] is None:
            print(f"== stage {title}: done, passed over{remark}", flush=True)
            if (partial := directory.with_name(directory.name + ".partial")).exists():
                print(f"{partial} is of a run that did not end; remove {directory} to go on with it, or else it")
        else:
            print(f"== stage {title}{f' ({state})' if state.startswith('stale') else ''}", flush=True)
            check_link(exp / stage.name, directory)
            run_stage(directory, now, program, stage.by_processes)
        for file in stage.show:
            show(exp, stage.name, file)


if __name__ == "__main__":
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # any name on any terminal
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
