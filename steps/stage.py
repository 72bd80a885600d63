"""One stage's bookkeeping: is it done, stale or to do; run it; keep what it wrote only when it is whole.

    stage NUMBER NAME [--reads STAGE ...] [--config TABLE ...] [--by-engine] [--by-processes] -- PROGRAM

is a line of steps/stages.sh; --by-processes: as many as run.sh's --processes says work on it together.

A stage works in `EXP/NAME.partial` and is renamed to `EXP/NAME` when its program has succeeded; a program that is
started again finds what it had written there, as long as config and inputs are the same. `stage.json` keeps what the
stage came from: its tables of the config, a fingerprint of every stage it read, the engine that searched where there is
a choice, seconds, and a hash of every file.
Only the standard library here: fourteen stages that have nothing to do should take no time.
"""

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

NOT_OUTPUT = ("stage.json", "stage.toml", "log", "timing.json", "history.json")  # they differ where the results do not


def file_facts(path: Path) -> list:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(directory: Path) -> dict[str, list]:
    """{relative path: [bytes, mtime in ns, SHA-256]} of a finished stage's files."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return {str(p.relative_to(directory)): [*file_facts(p), file_hash(p)]
            for p in files if p.name not in NOT_OUTPUT}


@cache  # many stages read the same ones
def fingerprint(directory: Path) -> str:
    """Of a finished stage's files as they are now: a file whose size or time changed is read again, so that a change by
    hand makes what follows stale, and a mere copy does not."""
    lines = []
    for name, (size, mtime, digest) in sorted(json.loads((directory / "stage.json").read_text())["files"].items()):
        path = directory / name
        if not path.exists():
            digest = "removed"
        elif file_facts(path) != [size, mtime]:
            digest = file_hash(path)
        lines.append(f"{name} {digest}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def asked() -> dict:
    """What run.sh was asked for, as steps/configure.py found it."""
    return json.loads(os.environ["DECANT_RUN"])


def stale_reason(name: str, origin: dict) -> str:
    """Why a finished stage is stale, or ""; by what its stage.json says it came from, and what it would now."""
    before = json.loads((Path(asked()["exp"]) / name / "stage.json").read_text())
    if any(origin[kind].keys() != before[kind].keys() for kind in ("config", "reads")):
        return "it reads other stages or tables now"
    return changed_since(name)


@cache
def changed_since(name: str) -> str:
    """What is not as it was when a stage ran, or that made a stage it read stale; "" if nothing."""
    run, exp = asked(), Path(asked()["exp"])
    before = json.loads((exp / name / "stage.json").read_text())
    for table, old in before["config"].items():
        new = run["config"].get(table, {})
        # A field that decant did not have then: its default is what decant did then.
        old = {field: value for field, value in run["defaults"].get(table, {}).items() if field in new} | old
        changed = [f"{table}.{field}" for field in sorted({*new, *old}) if new.get(field) != old.get(field)]
        if changed:
            return f"{', '.join(changed)} changed"
    if before["engine"] not in ("", run["engine"]):
        return f"{before['engine']} was the engine"
    if not before["reads"] and run["corpus"] not in ("", before["corpus"]):
        return "another corpus folder"
    removed = [file for file in before["files"] if not (exp / name / file).exists()]
    if removed:
        return f"{removed[0]} was removed"
    for read, old in before["reads"].items():
        if not (exp / read / "stage.json").exists():
            return f"{read} is not there"
        if fingerprint(exp / read) != old:
            return f"{read} changed"
        if changed_since(read):
            return f"{read} is stale"
    return ""


def left_by(note: Path, origin: dict) -> bool:
    """Whether a partial folder was left by an interrupted run of the same config and inputs."""
    try:
        left = json.loads(note.read_text())
    except (OSError, ValueError):
        return False
    return {kind: left.get(kind) for kind in origin} == origin


def write_note(note: Path, content: dict) -> None:
    temporary = note.with_name(".stage.json")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(note)


def run_stage(directory: Path, origin: dict, program: list[str], by_processes: bool) -> None:
    """Runs the program in the partial folder, goes on in one that an interrupted run left, renames it at the end."""
    run, partial = asked(), directory.with_name(directory.name + ".partial")
    note = partial / "stage.json"
    if partial.exists() and not left_by(note, origin):
        shutil.rmtree(partial)
    partial.mkdir(exist_ok=True)
    for scratch in list(partial.rglob(".*")):  # what a killed program was writing
        shutil.rmtree(scratch, ignore_errors=True) if scratch.is_dir() else scratch.unlink(missing_ok=True)
    write_note(note, origin)
    shutil.copyfile(Path(run["exp"]) / "config.toml", partial / "stage.toml")
    started = time.monotonic()
    arguments = ["--exp", run["exp"], "--out", str(partial), "--jobs", str(run["jobs"]), "--device", run["device"],
                 "--corpus", run["corpus"], "--engine", run["engine"]]
    together = ["-m", "steps.torchrun", "--standalone", "--nproc-per-node", str(run["processes"])]
    launcher = together if by_processes and run["processes"] > 1 else []
    status = subprocess.run([sys.executable, *launcher, *program, *arguments], pass_fds=[run["lock"]]).returncode
    if status != 0:
        sys.exit(f"{' '.join(program)} failed (exit status {status}); its log: {partial / 'log'}")
    origin = origin | {"seconds": round(time.monotonic() - started, 1), "files": hash_files(partial)}
    write_note(note, origin)
    if directory.exists():
        shutil.rmtree(directory)
    partial.rename(directory)


def end_with_parent() -> None:
    """A killed run.sh takes its stages along (Linux's prctl, PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main() -> None:
    end_with_parent()
    parser = argparse.ArgumentParser(prog="stage", description=__doc__.partition("\n")[0])
    parser.add_argument("number", type=int)
    parser.add_argument("name")
    parser.add_argument("--reads", nargs="*", default=[])
    parser.add_argument("--config", nargs="*", default=[])
    parser.add_argument("--by-engine", action="store_true")
    parser.add_argument("--by-processes", action="store_true")
    separator = sys.argv.index("--")
    stage, program = parser.parse_args(sys.argv[1:separator]), sys.argv[separator + 1:]
    run = asked()
    exp, directory = Path(run["exp"]), Path(run["exp"]) / stage.name
    wanted = (run["stage"] or 0) <= stage.number <= run["stop_stage"]
    missing = [name for name in stage.reads if not (exp / name / "stage.json").exists()]
    title = f"{stage.number:>2} {stage.name}"

    if missing:
        if run["list"]:
            print(f"{title:<16} to do")
        elif wanted:
            sys.exit(f"error: stage {stage.number} ({stage.name}) reads {', '.join(missing)}, not there yet in {exp}; "
                     "run without --stage, or from an earlier one")
        return
    origin = {"config": {table: run["config"][table] for table in stage.config},
              "reads": {name: fingerprint(exp / name) for name in stage.reads},
              "corpus": "" if stage.reads else run["corpus"], "engine": run["engine"] if stage.by_engine else ""}
    done = (directory / "stage.json").exists()
    stale = stale_reason(stage.name, origin) if done else ""
    state = f"stale: {stale}" if stale else "done" if done else "to do"
    if run["list"]:
        print(f"{title:<16} {state}")
    elif not wanted:
        if state != "done" and stage.number < (run["stage"] or 0):
            sys.exit(f"error: stage {stage.number} ({stage.name}) is {state}; run from there, or without --stage")
    elif state == "done" and run["stage"] is None:
        print(f"== stage {title}: done, passed over", flush=True)
    else:
        print(f"== stage {title}{f' ({state})' if stale else ''}", flush=True)
        if run["stage"] is not None:  # asked for: from the start, and no longer done until it is
            shutil.rmtree(directory, ignore_errors=True)
            shutil.rmtree(directory.with_name(directory.name + ".partial"), ignore_errors=True)
        run_stage(directory, origin, program, stage.by_processes)


if __name__ == "__main__":
    main()
