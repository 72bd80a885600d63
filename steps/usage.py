"""run.sh's options, and what `run.sh --help` says: of the options, of the config's tables, of a table's fields."""

import argparse
import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant.config import nearest, read_toml
from decant.settings import ConfigField, config_fields, shown, type_words

WIDTH = 100
NOTES = {"result": [], "rounding": ["changes results by rounding only"], "nothing": ["changes no result"]}


def option_parser(script: str, recipe: str) -> argparse.ArgumentParser:
    """Of all options but the config's fields."""
    parser = argparse.ArgumentParser(
        prog=script, add_help=False, allow_abbrev=False, exit_on_error=False,
        usage="%(prog)s [OPTION ...] [--TABLE.FIELD VALUE ...]",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=WIDTH))
    parser.add_argument("-h", "--help", nargs="*", metavar="TABLE",
                        help="print this; or the fields of a table (TABLE.FIELD: that one)")
    parser.add_argument("--stage", type=int, metavar="N", help="run again from this stage on, done or not")
    parser.add_argument("--stop-stage", type=int, default=99, metavar="N", help="the last stage to run")
    parser.add_argument("--list", action="store_true", help="print the stages and their state, run nothing")
    parser.add_argument("--plan", action="store_true",
                        help="print what each stage will need in disk, memory and hours, run nothing")
    parser.add_argument("--plan-hours", type=float, nargs="+", metavar="H",
                        help="hours of train, dev and test that --plan is for [the corpus's]")
    parser.add_argument("--verify", action="store_true",
                        help="read what the stages wrote again, run nothing; exit status 1 if a file has changed")
    parser.add_argument("--corpus", default="", metavar="DIR",
                        help="folder that holds the corpus already, instead of a download")
    parser.add_argument("--conf", default="", metavar="FILE", help=f"the recipe's settings [conf/{recipe}.toml]")
    parser.add_argument("--exp", default="", metavar="DIR",
                        help=f"folder of everything that the stages write [exp/{recipe}]")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N",
                        help="processes at a time [one a core: %(default)s]")
    parser.add_argument("--processes", type=int, default=1, metavar="N",
                        help="processes that share a training, and the making of soft targets [%(default)s]")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"],
                        help="of the neural networks; auto: a GPU if there is one")
    parser.add_argument("--engine", default="kaldi", choices=["kaldi", "k2"],
                        help="what aligns and decodes (stages 6, 9, 13) [%(default)s]")
    return parser


def usage(parser: argparse.ArgumentParser, topics: list[str], tables: Mapping[str, type], conf: Path) -> str:
    """What --help prints of the topics, `TABLE` or `TABLE.FIELD` each; of all, in short, if there is none. conf: whose
    values stand beside the defaults. Raises ValueError naming a topic that is no table or field."""
    readers = stages_that_read([Path(parser.prog), Path("steps/stages.sh")])
    if not topics:
        return overview(parser, tables, readers)
    parts = []
    for topic in topics:
        name, _, field = topic.removeprefix("--").partition(".")
        if name not in tables:
            raise ValueError(f"--help {topic}: there is no table {name}; {nearest(name, tables)}")
        fields, own = config_fields(tables[name]), read_toml(conf).get(name, {})
        if field and field not in fields:
            raise ValueError(f"--help {topic}: [{name}] has no field {field}; {nearest(field, fields)}")
        parts.append(f"[{name}]  {summary(tables[name])}\n{read_by(readers.get(name, []))}\n\n" + "".join(
            describe(about, own.get(about.name), conf) for about in fields.values() if field in ("", about.name)))
    return "\n".join(parts)


def overview(parser: argparse.ArgumentParser, tables: Mapping[str, type], readers: Mapping[str, list[str]]) -> str:
    """The options and the tables, a line each."""
    lines = [parser.format_help(), "The config's tables, and the stages that read them:"]
    for name, table in tables.items():
        numbers = ", ".join(stage.split()[0] for stage in readers.get(name, []))
        lines.append(f"  {name:<28}  {summary(table)} [{numbers}]")
    return "\n".join([*lines, "", f"The fields of a table, with meaning and default:  {parser.prog} --help training",
                      f"To set one, here or in --conf's TOML file:  {parser.prog} --training.epochs 3", ""])


def summary(table: type) -> str:
    """What a table configures: the first line of its docstring."""
    return (table.__doc__ or "").partition("\n")[0]


def describe(about: ConfigField, own: Any, conf: Path) -> str:
    """A field's meaning, type, default and the paper's value; and a config file's own, if it is another."""
    facts = [type_words(about.type), f"default {shown(about.default)}"]
    if about.paper is not None:
        facts.append(f"paper {shown(about.paper)}")
    if own is not None and own != (list(about.default) if isinstance(about.default, tuple) else about.default):
        facts.append(f"{conf} has {shown(own)}")
    facts += NOTES[about.changes]
    lines = [*textwrap.wrap(about.meaning, WIDTH), *textwrap.wrap("; ".join(facts), WIDTH)]
    return f"  {about.name}\n{textwrap.indent(chr(10).join(lines), '    ')}\n"


def read_by(stages: list[str]) -> str:
    return f"read by the stages {', '.join(stages)}" if stages else "read by no stage"


def stages_that_read(scripts: list[Path]) -> dict[str, list[str]]:
    """The stages, "7 baseline" say, that read each table, by the shell scripts' lines
    `stage NUMBER NAME ... --config TABLE ... -- PROGRAM`."""
    found: dict[str, list[str]] = {}
    for script in scripts:
        text = script.read_text(encoding="utf-8").replace("\\\n", " ")
        for number, name, rest in re.findall(r"^stage (\d+) (\w+)(.*)$", text, re.MULTILINE):
            for tables in re.findall(r"--config((?: +\w+)+)", rest):
                for table in tables.split():
                    found.setdefault(table, []).append(f"{number} {name}")
    return found
