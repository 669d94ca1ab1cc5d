"""The JSON Schema of the configuration file (draft 2020-12), made from the tree of commands: for editors, and for those
who write such files by program. What it takes `config_file` takes too, and says better what is wrong with the rest."""

from collections.abc import Mapping
from typing import Any

import click

from nbdserver.cli.shared.config_file import commands_under, options
from nbdserver.cli.shared.parameters import AddressType, DurationType, KeepType, PricesType, RequestsType, SizeType
from nbdserver.price_lists import EXAMPLE

Schema = dict[str, Any]

SCALAR: Schema = {"type": ["string", "integer", "number"]}
"""Of what has its own way to be written; a number stands for its text."""

TYPES: Mapping[type, Schema] = {
    SizeType: {"type": ["string", "integer"], "examples": ["10GiB", 4096]},
    DurationType: {"type": "string", "examples": ["30m", "7d"]},
    KeepType: {"type": "string", "examples": ["hourly=24,daily=7"]},
    PricesType: {"type": "string", "examples": ["aws-s3-standard", EXAMPLE]},
    RequestsType: {"type": ["string", "integer"], "examples": ["5M/month", 5000000]},
    AddressType: {"type": ["string", "integer"], "examples": [9100, "0.0.0.0:9100"]},
}


def schema(tree: click.Group) -> Schema:
    """That of the whole file: options of any command at the top, and a table for each command and group."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "nbdserver.toml", **_table(tree)}


def _table(command: click.Command) -> Schema:
    properties: dict[str, Schema] = {}
    for path, each in commands_under(command, ()):
        for option in options(each):
            for name in (name[2:] for name in option.opts if name.startswith("--")):
                if not path:
                    properties[name] = {"description": option.help or "", **_value(option)}
                else:
                    properties[name] = _both(properties.get(name), _value(option))
    if isinstance(command, click.Group):
        properties |= {name: _table(inner) for name, inner in command.commands.items()}
    return {"type": "object", "additionalProperties": False, "properties": dict(sorted(properties.items()))}


def _both(known: Schema | None, other: Schema) -> Schema:
    """What is right for all commands that have an option of this name: above their tables it is for each of them."""
    if known is None or known == other:
        return other
    parts = known.get("allOf", [known])
    return known if other in parts else {"allOf": [*parts, other]}


def _value(option: click.Option) -> Schema:
    if option.is_flag:
        return {"type": "boolean"}
    one = _scalar(option.type)
    return {"type": "array", "items": one} if option.multiple else one


def _scalar(kind: click.ParamType[Any]) -> Schema:
    if isinstance(kind, click.Choice):
        return {"enum": list(kind.choices)}
    if isinstance(kind, click.IntRange | click.FloatRange):
        limits = {"minimum": kind.min, "maximum": kind.max}
        number = "integer" if isinstance(kind, click.IntRange) else "number"
        return {"type": number, **{name: limit for name, limit in limits.items() if limit is not None}}
    return TYPES.get(type(kind), {"type": "string"} if isinstance(kind, click.Path) else SCALAR)
