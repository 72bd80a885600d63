"""What a person has to know of a field of the config: written once, in the dataclass, and read by help and messages.

Only the standard library here: k2's environment, which has little else, reads config dataclasses too.
"""

import json
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin

Changes = Literal["result", "rounding", "nothing"]
WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def config_field(default: Any, meaning: str, *, paper: Any = None, changes: Changes = "result") -> Any:
    """A field of a config dataclass.

    meaning: a sentence, with the unit; paper: the paper's value, if it gives one. changes: what another value can
    change: the result; its "rounding" only; or "nothing", such as how often a training is saved.
    """
    if changes not in get_args(Changes):
        raise ValueError(f"changes is {changes!r}; known are result, rounding and nothing")
    return field(default=default, metadata={"meaning": meaning, "paper": paper, "changes": changes})


@dataclass(frozen=True)
class ConfigField:
    """A field as `config_field` described it. meaning is "" where it did not."""

    name: str
    type: Any
    default: Any
    meaning: str = ""
    paper: Any = None
    changes: Changes = "result"


def config_fields(table: type) -> dict[str, ConfigField]:
    """The fields of a config dataclass by name; one that a subclass gives another default is described by its base."""
    found = {}
    for own in fields(table):
        described = [vars(base)["__dataclass_fields__"][own.name].metadata for base in table.__mro__
                     if own.name in vars(base).get("__dataclass_fields__", {})]
        found[own.name] = ConfigField(own.name, own.type, own.default, **next(filter(None, described), {}))
    return found


def neutral(table: type) -> dict[str, Changes]:
    """The fields that cannot change a result by more than rounding: {name: "rounding" or "nothing"}."""
    return {name: about.changes for name, about in config_fields(table).items() if about.changes != "result"}


def type_words(kind: Any) -> str:
    """A field's type in words: "a whole number", "a list of numbers"."""
    if get_origin(kind) is tuple:
        return f"a list of {type_words(get_args(kind)[0]).removeprefix('a ')}s"
    return WORDS.get(kind, str(kind))


def shown(value: Any) -> str:
    """A value as TOML has it."""
    return json.dumps(value, ensure_ascii=False, default=str)
