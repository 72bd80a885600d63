"""What a finished stage came from and what it wrote, in its `stage.json`; whether all of that is still as it was.

`stage.json` has stage: its name; config: the tables that its line names; reads: a fingerprint of every stage that the
line names, "" of an optional one that was not there; corpus: the folder that was given, of a stage that reads no other;
engine: what searched, where there is a choice; seconds; files: {path: [bytes, mtime in ns, SHA-256]}.
"""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

NOT_OUTPUT = ("stage.json", "stage.toml", "log", "timing.json", "history.json")  # they differ where the results do not


@cache
def asked() -> dict:
    """What run.sh was asked for, as steps/configure.py found it."""
    return json.loads(os.environ["DECANT_RUN"])


def left_out() -> list[str]:
    """The stages before this one that the recipe leaves out (steps/start.sh): not there, whatever the folder holds."""
    return os.environ.get("DECANT_LEFT_OUT", "").split()


def file_facts(path: Path) -> list[int]:
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


@cache
def read_note(directory: Path) -> dict:
    """A stage's stage.json; {} if there is none or it is damaged."""
    try:
        return json.loads((directory / "stage.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def is_there(name: str) -> bool:
    """Whether a stage has finished, stale or not, and the recipe has it."""
    return "files" in read_note(Path(asked()["exp"]) / name) and name not in left_out()


@cache  # many stages read the same ones
def fingerprint(name: str) -> str:
    """Of a finished stage's files as they are now, "" if it is not there: a file whose size or time changed is read
    again, so that a change by hand makes what follows stale, and a mere copy does not."""
    if not is_there(name):
        return ""
    lines, directory = [], Path(asked()["exp"]) / name
    for file, (size, mtime, digest) in sorted(read_note(directory)["files"].items()):
        path = directory / file
        if not path.exists():
            digest = "removed"
        elif file_facts(path) != [size, mtime]:
            digest = file_hash(path)
        lines.append(f"{file} {digest}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def origin(tables: list[str], reads: list[str], by_engine: bool) -> dict:
    """What a stage that runs now comes from. Raises ValueError for a table that there is not."""
    run = asked()
    if unknown := [table for table in tables if table not in run["config"]]:
        raise ValueError(f"its line in steps/stages.sh names the table [{unknown[0]}], which is neither in "
                         "SHARED_TABLES of steps/tables.py nor stage 0's")
    return {"config": {table: run["config"][table] for table in tables},
            "reads": {name: fingerprint(name) for name in reads},
            "corpus": "" if reads else run["corpus"], "engine": run["engine"] if by_engine else ""}


def changed_fields(config: dict[str, dict]) -> dict[str, list[str]]:
    """The fields that are not as in a stage.json's tables, by what their change does to results: "rounding" or
    "nothing", as the run's "neutral" has it; "" for all others."""
    run = asked()
    changed: dict[str, list[str]] = {"": [], "rounding": [], "nothing": []}
    for table, old in config.items():
        new, effects = run["config"].get(table, {}), run.get("neutral", {}).get(table, {})
        # A field that decant did not have then: its default is what decant did then.
        old = {field: value for field, value in run["defaults"].get(table, {}).items() if field in new} | old
        for field in sorted({*new, *old}):
            if new.get(field) != old.get(field):
                changed[effects.get(field, "")].append(f"{table}.{field}")
    return changed


def stale_reason(name: str, now: dict) -> str:
    """Why a finished stage is stale, or ""; now: `origin` of what its line names."""
    before = read_note(Path(asked()["exp"]) / name)
    if "files" not in before:
        return "its stage.json is damaged"
    if any(now[kind].keys() != before[kind].keys() for kind in ("config", "reads")):
        return "it reads other stages or tables now"
    return changed_since(name)


@cache
def changed_since(name: str) -> str:
    """What is not as it was when a stage ran, or that made a stage it read stale; "" if nothing."""
    run, directory = asked(), Path(asked()["exp"]) / name
    before = read_note(directory)
    if changed := changed_fields(before["config"])[""]:
        return f"{', '.join(changed)} changed"
    if before["engine"] not in ("", run["engine"]):
        return f"{before['engine']} was the engine"
    if not before["reads"] and run["corpus"] not in ("", before["corpus"]):
        return "another corpus folder"
    for file, facts in before["files"].items():
        if reason := damage(directory / file, facts):
            return f"{file} {reason}"
    for read, old in before["reads"].items():
        if fingerprint(read) != old:
            return f"{read} {'changed' if old and is_there(read) else 'is not there' if old else 'is there now'}"
        if old and changed_since(read):
            return f"{read} is stale"
    return ""


def differs_from(left: dict, now: dict) -> str:
    """What an interrupted run, whose stage.json is `left`, did not have in common with a stage that runs now; "" if
    nothing but fields that change no result."""
    if any(left.get(kind, {}).keys() != now[kind].keys() for kind in ("config", "reads")):
        return "its stage.json is damaged or names other stages or tables"
    fields = changed_fields(left["config"])
    changed = fields[""] + fields["rounding"]  # what is half done need not fit the other half
    changed += [name for name, old in left["reads"].items() if now["reads"][name] != old]
    changed += [kind for kind in ("corpus", "engine") if left.get(kind) != now[kind]]
    return f"{', '.join(changed)} changed" if changed else ""


def damage(path: Path, facts: list, contents: bool = False) -> str:
    """What is not as it was of a file with these facts (of hash_files), by its size, or its contents too; "" if
    nothing."""
    if not path.exists():
        return "was removed"
    if (size := path.stat().st_size) != facts[0]:
        return f"has {size} bytes, and had {facts[0]}"
    return "has other contents than it had" if contents and file_hash(path) != facts[2] else ""


def verify(exp: Path) -> int:
    """Reads all files of all finished stages and prints those that are not what they were; returns how many are not."""
    found = 0
    notes = [note for note in sorted(exp.glob("*/stage.json")) if note.parent.suffix not in (".partial", ".old")]
    if not notes:
        print(f"{exp}: no stage has finished here")
    for note in notes:
        directory = note.parent
        files: dict[str, list] = read_note(directory).get("files", {})
        problems = [f"{note}: damaged"] if "files" not in read_note(directory) else [
            f"{directory / file}: {reason}" for file, facts in files.items()
            if (reason := damage(directory / file, facts, contents=True))]
        print("\n".join(problems or [f"{directory.name}: {len(files)} files as they were"]), flush=True)
        found += len(problems)
    return found
