"""Settings from TOML files and the command line into frozen dataclasses, strictly (through jsonargparse)."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import tomli_w
from jsonargparse import ArgumentParser

from decant.files import atomic_path


def config_parser(tables: Mapping[str, type], **options: Any) -> ArgumentParser:
    """A parser of `--<table>.<field> VALUE` for every field of the tables' dataclasses."""
    parser = ArgumentParser(parser_mode="toml", exit_on_error=False, allow_abbrev=False, **options)
    for name, table in tables.items():
        parser.add_class_arguments(table, name)
    return parser


def read_tables(path: Path, tables: Mapping[str, type], parser: ArgumentParser | None = None,
                arguments: Sequence[str] = ()) -> dict[str, Any]:
    """The tables of a TOML file as instances of their dataclasses, fields replaced by `--<table>.<field> VALUE`.

    parser: one of `config_parser`, perhaps with further options, that reads `arguments`. Raises FileNotFoundError, and
    ValueError naming the file and the table or field that is unknown, of a wrong type or refused by its dataclass.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such config file")
    parser = parser or config_parser(tables)
    place = str(path)
    try:
        settings = parser.parse_string(Path(path).read_text(encoding="utf-8-sig"))  # -sig: without a byte order mark
        place = "command line"
        settings = parser.parse_args(list(arguments), namespace=settings)
    except argparse.ArgumentError as error:
        known = {name: ", ".join(field.name for field in fields(table)) for name, table in tables.items()}
        mentioned = [name for name in tables if f"'{name}'" in str(error) or f"--{name}." in str(error)]
        hint = "".join(f"; [{name}] has the fields {known[name]}" for name in mentioned)
        raise ValueError(f"{place}: {error}{hint or '; the tables are ' + ', '.join(tables)}") from error
    configured = {}
    for name, table in tables.items():
        try:
            configured[name] = table(**settings[name].as_dict())
        except ValueError as error:
            raise ValueError(f"{path} or command line: [{name}] {error}") from error
    return configured


def write_tables(path: Path, tables: Mapping[str, Any]) -> None:
    """Writes dataclass instances as the tables of a TOML file, every field with its value."""
    with atomic_path(path) as temporary:
        temporary.write_text(tomli_w.dumps({name: asdict(table) for name, table in tables.items()}), encoding="utf-8")
