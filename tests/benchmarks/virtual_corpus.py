"""A corpus of any number of hours that takes no disk, and what the stages take for it: memory and core-seconds.

    PYTHONPATH=. .venv/bin/python tests/benchmarks/virtual_corpus.py exp/an4 --hours 10 100 --few --jobs 2 \
        --scratch /tmp/virtual --monophone.num_gaussians 500

names the speakers and utterances of an experiment's train again and again, each time under other names: many keys of
feats.scp and cmvn.scp are one place of the experiment's archives, many lines of text one transcript. dev, the test
sets and the words are the experiment's own. The programs of the stages asked for run on that, one after the other, each
as its line in steps/stages.sh names it, in SCRATCH/<hours>h, with the experiment's settings but for those given here.
--few: few rounds and epochs; what a whole run takes has to be extrapolated. A program that has ended is not run again.

Memory is that of the program with all processes below it, sampled: `resident` counts a page that several share in each
of them, `own` (PSS) once. The last lines say what stages take for one more hour, between the fewest and the most hours.
"""

import argparse
import ctypes
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import tomli_w

from decant.config import read_tables, read_toml
from decant.text import byte_lines
from steps.tables import SHARED_TABLES

PR_SET_CHILD_SUBREAPER = 36
FEW = {"monophone": {"num_iterations": 4, "realign_iterations": [1, 3], "last_split_iteration": 3},
       "triphone": {"num_iterations": 4, "realign_iterations": [2], "last_split_iteration": 3,
                    "mllt_iterations": [2], "fmllr_iterations": [2]},
       "frames": {"speeds": []}, "realignment": {"rounds": 0}, "training": {"epochs": 1},
       "ensemble": {"num_members": 2}, "soft_targets": {"num_passes": 1, "temperatures": [2.0]}}
OF_UTTERANCE = ("data/train/text", "data/train/utt2dur", "fbank/train/unusable.txt")
IN_ARCHIVES = {"fbank/train/feats.scp": "utterance", "fbank/train/cmvn.scp": "speaker"}  # by what their lines are of
# As steps/start.sh has them.
ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824", "PYTHONPATH": os.getcwd()}


@dataclass(frozen=True)
class Taken:
    """What a stage's program took: core-seconds, seconds, and bytes at most, shared pages counted often and once."""

    core_seconds: float
    seconds: float
    resident: int
    own: int


def table(path: Path) -> dict[str, str]:
    """The rest of every line of a file by its first word."""
    lines = (line.decode().split(maxsplit=1) for line in byte_lines(path))
    return {key: rest[0] if rest else "" for key, *rest in lines}


def named_often(exp: Path, hours: float) -> tuple[list[tuple[str, str]], float]:
    """(prefix, speaker) of all speakers of the virtual corpus, sorted by their new names, and its hours: the
    experiment's, again and again, until there are so many hours."""
    seconds: dict[str, float] = defaultdict(float)
    durations = table(exp / "data/train/utt2dur")
    for utterance, speaker in table(exp / "data/train/utt2spk").items():
        seconds[speaker] += float(durations[utterance])
    found, total, number = [], 0.0, 0
    while total < 3600 * hours:
        for speaker in sorted(seconds):
            if total < 3600 * hours:
                found.append((f"v{number:06d}-", speaker))
                total += seconds[speaker]
        number += 1
    return found, total / 3600


def write_virtual(exp: Path, out: Path, hours: float) -> float:
    """Writes data, lang and fbank of the virtual corpus; returns its hours."""
    speakers, total = named_often(exp, hours)
    speaker_of = table(exp / "data/train/utt2spk")
    utterances_of = defaultdict(list)
    for utterance, speaker in speaker_of.items():
        utterances_of[speaker].append(utterance)
    # An id need not begin with its speaker: sorted, as everything is.
    names = sorted((prefix + utterance, utterance, prefix) for prefix, speaker in speakers
                   for utterance in utterances_of[speaker])
    for folder in ("data/train", "fbank/train"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    same = [other.relative_to(exp) for stage in ("data", "fbank") for other in (exp / stage).iterdir()
            if other.is_dir() and other.name != "train"]
    for folder in (*same, Path("lang")):
        if not (out / folder).exists():
            (out / folder).symlink_to((exp / folder).resolve())

    def write(file: str, lines: Iterator[str]) -> None:
        (out / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    for file in OF_UTTERANCE:
        old = table(exp / file)
        write(file, (f"{name} {old[utterance]}" for name, utterance, _ in names if utterance in old))
    for file in ("data/train/utt2spk", "fbank/train/utt2spk"):
        write(file, (f"{name} {prefix}{speaker_of[utterance]}" for name, utterance, prefix in names))
    write("data/train/spk2utt", (f"{prefix}{speaker} {' '.join(prefix + u for u in sorted(utterances_of[speaker]))}"
                                 for prefix, speaker in speakers))
    audio = table(exp / "data/train/wav.scp")
    if (exp / "data/train/segments").exists():
        cut = table(exp / "data/train/segments")
        write("data/train/segments", (f"{name} {cut[utterance]}" for name, utterance, _ in names))
        write("data/train/wav.scp", (f"{key} {place}" for key, place in audio.items()))
    else:
        write("data/train/wav.scp", (f"{name} {audio[utterance]}" for name, utterance, _ in names))
    for file, kind in IN_ARCHIVES.items():
        old = {key: (exp / file).parent.resolve() / place for key, place in table(exp / file).items()}
        keys = ((name, utterance) for name, utterance, _ in names) if kind == "utterance" else (
            (prefix + speaker, speaker) for prefix, speaker in speakers)
        write(file, (f"{name} {old[key]}" for name, key in keys if key in old))
    (out / "fbank/train/fbank.toml").write_bytes((exp / "fbank/train/fbank.toml").read_bytes())
    return total


def stage_programs(first: int, last: int) -> list[tuple[int, str, str]]:
    """(number, name, program) of the stages of steps/stages.sh."""
    text = Path("steps/stages.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^stage (\d+) (\w+) .*-- (\S+)$", text, re.MULTILINE)
    return [(int(number), name, program) for number, name, program in lines if first <= int(number) <= last]


def processes_below(root: int) -> list[int]:
    """Process-ids of a process and all below it."""
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children[int(path.read_text().rpartition(")")[2].split()[1])].append(int(path.parent.name))
        except OSError:  # it has ended
            continue
    found = [root]
    for process in found:
        found += children[process]
    return found


def memory(process: int) -> tuple[int, int]:
    """Bytes that a process has in memory, and its share of those that it shares; 0 of one that has ended."""
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0, 0
    found = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", rollup, re.MULTILINE))
    return 1024 * int(found.get("Rss", 0)), 1024 * int(found.get("Pss", 0))


def measure(command: list[str]) -> Taken:
    """Runs a program to its end, and all processes that it leaves. Raises ValueError if it fails."""
    before, started, resident, own = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0, 0
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT)
    while process.poll() is None:
        sample = [memory(each) for each in processes_below(process.pid)]
        resident, own = max(resident, sum(r for r, _ in sample)), max(own, sum(p for _, p in sample))
        time.sleep(0.2)
    seconds = time.monotonic() - started
    while True:  # the server of multiprocessing's workers, which is ours now, and its core-seconds with it
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise ValueError(f"{' '.join(command)}: exit status {process.returncode}")
    taken = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return Taken(taken, seconds, resident, own)


def run_stages(out: Path, given: argparse.Namespace) -> dict[str, Taken]:
    """What each stage's program took, those that ended before as they were found then."""
    note = out / "taken.json"
    found = {name: Taken(**taken) for name, taken in json.loads(note.read_text()).items()} if note.exists() else {}
    for _, name, program in stage_programs(*given.stages):
        if name not in found:
            folder = out / name
            folder.mkdir(exist_ok=True)
            (folder / "stage.toml").write_bytes((out / "config.toml").read_bytes())
            found[name] = measure([sys.executable, program, "--exp", str(out), "--out", str(folder), "--jobs",
                                   str(given.jobs), "--device", "cpu", "--corpus", "", "--engine", "kaldi"])
            note.write_text(json.dumps({stage: vars(taken) for stage, taken in found.items()}))
    return found


def settings(exp: Path, few: bool, options: list[str]) -> dict:
    """The tables of the experiment's config as steps/tables.py has them, with few rounds if asked for, and options."""
    config = {name: content for name, content in read_toml(exp / "config.toml").items() if name != "data"}
    for name, fields in FEW.items() if few else ():
        config.setdefault(name, {}).update(fields)
    with NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(tomli_w.dumps(config))
        file.flush()
        return read_tables(Path(file.name), SHARED_TABLES, options, ["--hours", "--stages", "--jobs", "--few"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="Further options: any field of the config, as --table.field VALUE.",
                                     allow_abbrev=False)
    parser.add_argument("exp", type=Path, help="an experiment whose stages data, lang and fbank are done")
    parser.add_argument("--hours", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--stages", type=int, nargs=2, default=[3, 9], metavar=("FIRST", "LAST"))
    parser.add_argument("--scratch", type=Path, required=True, help="a folder for what the stages write")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--few", action="store_true", help="few rounds, no copies at other speeds")
    given, options = parser.parse_known_args()
    tables = settings(given.exp, given.few, options)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    taken: dict[float, dict[str, Taken]] = {}
    for hours in sorted(given.hours):
        out = given.scratch.resolve() / f"{hours:g}h"
        note, config = out / "config.toml", tomli_w.dumps({name: asdict(fields) for name, fields in tables.items()})
        if note.exists() and note.read_text(encoding="utf-8") != config:
            raise ValueError(f"{note}: other settings than now asked for; remove {out} or give another --scratch")
        total = write_virtual(given.exp, out, hours)
        note.write_text(config, encoding="utf-8")
        taken[total] = run_stages(out, given)
        print(f"\n{total:.2f} hours, {given.jobs} jobs\n{'stage':<14}{'core-s':>9}{'an hour':>9}{'seconds':>9}"
              f"{'resident':>12}{'own':>12}")
        for name, it in taken[total].items():
            print(f"{name:<14}{it.core_seconds:9.1f}{it.core_seconds / total:9.1f}{it.seconds:9.1f}"
                  f"{it.resident / 1e6:9.0f} MB{it.own / 1e6:9.0f} MB", flush=True)
    fewest, most = min(taken), max(taken)
    if most > fewest:
        print(f"\none more hour, from {fewest:.2f} to {most:.2f}: core-seconds, own memory")
        for name in taken[most].keys() & taken[fewest].keys():
            less, more = taken[fewest][name], taken[most][name]
            print(f"{name:<14}{(more.core_seconds - less.core_seconds) / (most - fewest):9.1f}"
                  f"{(more.own - less.own) / (most - fewest) / 1e6:9.1f} MB")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
