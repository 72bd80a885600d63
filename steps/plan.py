"""What `run.sh --plan` prints: a recipe's stages with their needs (decant/plan.py), before anything runs."""

import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from decant.nnet.precision import has_fast_bfloat16
from decant.plan import Row, Sizes, sizes_of, stages
from decant.rates import RATES, rate
from decant.text import byte_lines, read_fields

WIDE = 1536  # units of a layer from which matrix products are most of a training step


def plan(configured: Mapping[str, Any], options: Namespace, exp: Path, script: Path) -> str:
    """The table, without the stages that the script leaves out, and what it rests on. Raises ValueError where the hours
    of speech are not known."""
    hours, utterances, known = hours_of(configured["data"], options.plan_hours, exp)
    ngrams = ngrams_of(configured["data"], exp)
    sizes = sizes_of(hours, utterances, ngrams)
    skipped = re.findall(r'^SKIP_STAGES="([\d ]*)"', script.read_text(encoding="utf-8"), re.MULTILINE)
    left_out = " ".join(skipped).split()
    rows = [row for row in stages(configured, sizes, options.jobs) if row.stage.split()[0] not in left_out]
    if (download := getattr(configured["data"], "download_bytes", 0)) and not options.corpus:
        rows = [Row("0 data", 2 * download), *rows]  # archives are removed as they are unpacked
    kind = "bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32"
    wide = ", wide" * (configured["acoustic_model"].hidden_units >= WIDE)
    core = rate(f"training, {kind}{wide}")

    def line(name: str, disk: float, memory: float, *hours: float) -> str:
        return f"{name:<18}{disk / 1e9:>10.1f}{memory / 1e9:>12.1f}{short(hours[0]):>10}{short(hours[1]):>20}"

    table = [(row, row.hours(options.jobs, core), row.gpu_hours(options.jobs)) for row in rows]
    return "\n".join([
        f"Computed, not measured: from rates measured on other runs, for {described(sizes, known, ngrams)};",
        f"{options.jobs} jobs, networks on processors in {kind}; what is done already is counted too.",
        f"{'stage':<18}{'disk, GB':>10}{'memory, GB':>12}{'hours':>10}{'hours with one GPU':>20}",
        *(line(row.stage, row.disk, row.memory, *hours) for row, *hours in table),
        line("together", sum(row.disk for row in rows), max(row.memory for row in rows),
             *(sum(column) for column in list(zip(*table, strict=True))[1:])),
        "Rates (decant/rates.py); no GPU has been measured:",
        *(f"  {name}: {about.value:g} {about.unit} ({about.source})" for name, about in RATES.items()), ""])


def short(hours: float) -> str:
    """With two digits at least."""
    return f"{hours:.{2 if hours < 1 else 1 if hours < 100 else 0}f}"


def described(sizes: Sizes, known: str, ngrams: float | None) -> str:
    return (f"{sizes.train:.1f} hours of train, {sizes.dev:.1f} of dev, {sizes.test:.1f} of test ({known}), "
            f"{sizes.ngrams / 1e6:.2g} million n-grams{' (estimated)' if ngrams is None else ''}")


def hours_of(data: Any, given: list[float] | None, exp: Path) -> tuple[dict[str, float], int | None, str]:
    """Hours of train, dev and test, the utterances of train if known, and how they are known."""
    if given:
        train, dev, test = [*given, *[given[0] / 20] * (3 - len(given))]
        return {"train": train, "dev": dev, "test": test}, None, "--plan-hours"
    if (exp / "data/stage.json").exists():
        seconds = {path.parent.name: [float(fields[1]) for _, fields in read_fields(path)]
                   for path in (exp / "data").glob("*/utt2dur")}
        found = {"train": 0.0, "dev": 0.0, "test": 0.0}
        for split, of_split in seconds.items():
            found[split.partition("_")[0]] += sum(of_split) / 3600
        return found, len(seconds["train"]), f"{exp / 'data'}"
    if known := getattr(data, "hours", None):
        return known, None, "as published"
    raise ValueError("--plan: how much speech there is is not known; run stage 0 first (--stop-stage 0), or give the "
                     "hours of train, dev and test: --plan-hours 100 5 5")


def ngrams_of(data: Any, exp: Path) -> float | None:
    """N-grams of the language model that there is, or that the config names; None: it is to be estimated."""
    for path in (exp / "lang/lm.arpa", exp / "data/lm.arpa"):
        if path.exists():
            total = 0
            for line in byte_lines(path):
                if match := re.match(rb"ngram +\d+ *= *(\d+)", line):
                    total += int(match[1])
                elif total:
                    return total
    return getattr(data, "ngrams", None)
