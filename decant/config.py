"""Settings from TOML files and the command line into frozen dataclasses, strictly (types through jsonargparse)."""

import argparse
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import tomli_w
from jsonargparse import ArgumentParser

from decant.files import atomic_path
from decant.settings import config_fields, shown, type_words


def read_tables(path: Path, tables: Mapping[str, type], arguments: Sequence[str] = (), options: Collection[str] = (),
                hint: str = "") -> dict[str, Any]:
    """The tables of a TOML file as instances of their dataclasses, fields replaced by `--<table>.<field> VALUE`.

    options: further options that the program has, in case one was meant; hint: a line on where all names are listed.
    Raises FileNotFoundError, and ValueError, of three lines at most, naming the file and the table or field that is
    unknown, of a wrong type or refused by its dataclass.
    """
    given = read_toml(path)
    try:
        check_names(path, given, tables)
        check_options(arguments, tables, options)
    except ValueError as error:
        raise ValueError(f"{error}\n{hint}".rstrip()) from error
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False, parser_mode="toml")
    for name, table in tables.items():
        for about in config_fields(table).values():
            parser.add_argument(f"--{name}.{about.name}", type=about.type, default=about.default)
    try:
        found = parser.parse_object(given)
    except argparse.ArgumentError as error:
        raise ValueError(f"{path}: {wrong_type(error, given, tables)}") from error
    try:
        found = parser.parse_args(list(arguments), namespace=found)
    except argparse.ArgumentError as error:
        raise ValueError(f"command line: {wrong_type(error, options_given(arguments), tables)}") from error
    configured = {}
    for name, table in tables.items():
        try:
            configured[name] = table(**found[name].as_dict())
        except ValueError as error:
            raise ValueError(f"{path} or command line: [{name}] {error}") from error
    return configured


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's tables as they are. Raises FileNotFoundError, and ValueError naming file and line."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such config file")
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def nearest(name: str, known: Collection[str]) -> str:
    """The known names that are most like one that is not known; all of them, if none is like it."""
    near = get_close_matches(name, known, cutoff=0.5)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"


def check_names(path: Path, given: Mapping[str, Any], tables: Mapping[str, type]) -> None:
    """Raises ValueError if a TOML file has a table or a field that `tables` does not have."""
    for name, content in given.items():
        if not isinstance(content, dict):
            raise ValueError(f"{path}: {name} stands in no table; put it under its [table]")
        if name not in tables:
            raise ValueError(f"{path}: there is no table [{name}]; {nearest(name, tables)}")
        known = config_fields(tables[name])
        for field in content:
            if field not in known:
                raise ValueError(f"{path}: [{name}] has no field {field}; {nearest(field, known)}")


def check_options(arguments: Sequence[str], tables: Mapping[str, type], others: Collection[str] = ()) -> None:
    """Raises ValueError if an option among the arguments is neither `--<table>.<field>` nor one of the others."""
    known = {f"--{name}.{field}": field for name, table in tables.items() for field in config_fields(table)}
    for argument in arguments:
        option = argument.partition("=")[0]
        if not option.startswith("--") or option in known:
            continue
        table, _, field = option.removeprefix("--").rpartition(".")
        if (name := table or field) in tables:
            likely = [option for option in known if option.startswith(f"--{name}.")]
        else:  # a field without its table, or of a misspelt one
            likely = [name for name in known if known[name] == field] or [*others, *(known if table else ())]
        raise ValueError(f"command line: there is no option {option}; {nearest(option, likely)}")


def options_given(arguments: Sequence[str]) -> dict[str, dict[str, str]]:
    """{table: {field: value}} of `--<table>.<field> VALUE` and `--<table>.<field>=VALUE`."""
    given: dict[str, dict[str, str]] = {}
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        table, dot, field = option.removeprefix("--").partition(".")
        if option.startswith("--") and dot:
            given.setdefault(table, {})[field] = value if equals else following
    return given


def wrong_type(error: argparse.ArgumentError, given: Mapping[str, Any], tables: Mapping[str, type]) -> str:
    """What jsonargparse refused: the field, the type that it has to have, and what was given instead."""
    if not (key := re.match(r'Parser key "(\w+)\.(\w+)"', str(error))):
        return str(error).partition("\n")[0]
    table, field = key.groups()
    wanted = type_words(config_fields(tables[table])[field].type)
    return f"{table}.{field} is {shown(given[table][field])}; it has to be {wanted}"


def write_tables(path: Path, tables: Mapping[str, Any]) -> None:
    """Writes dataclass instances as the tables of a TOML file, every field with its value."""
    with atomic_path(path) as temporary:
        temporary.write_text(tomli_w.dumps({name: asdict(table) for name, table in tables.items()}), encoding="utf-8")
