"""An alert rule written into a scenario's file, which keeps its comments, order and form.

A scenario that comes with loadbench is left as it is: its copy in the working folder gets the rule.
"""

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT, Array

from loadbench import alerts, spec, units
from loadbench.errors import SpecError
from loadbench.model import Rule


def save(path: Path, rule: Rule, off: bool = False) -> Path:
    """Writes the rule; the file that has it now. SpecError if that is no scenario, or it cannot
    be written; then nothing has changed."""
    target = own(path)
    try:
        text = (target if target.exists() else path).read_text(encoding="utf-8")
        found = rewritten(text, rule, off)
        spec.check(tomllib.loads(found), str(path), found)
        partial = target.with_name(f".{target.name}.new")
        partial.write_text(found, encoding="utf-8")
        shutil.copymode(target if target.exists() else path, partial)
        os.replace(partial, target)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TOMLKitError) as error:
        raise SpecError(f"{target}: {error}", "the file is as it was") from error
    return target


def own(path: Path) -> Path:
    """The file that a change would be written to. SpecError if there is none to be written."""
    if path.suffix != ".toml":
        raise SpecError(f"{path.name} has no place for alert rules", "only a .toml has [[alert]]")
    if path.resolve() not in [known.resolve() for known in spec.shipped().values()]:
        return path.resolve()
    return Path.cwd() / path.name


def rewritten(text: str, rule: Rule, off: bool) -> str:
    """A scenario's text with the rule: in the place of that of the same quantity and side, else at
    the end."""
    document = tomlkit.parse(text)
    known: Any = document.get("alert")
    for item in known if isinstance(known, AoT | Array) else ():
        if _is_same(item, rule):
            _put(item, rule, off)
            return tomlkit.dumps(document)
    if isinstance(known, Array):
        item = tomlkit.inline_table()
        _put(item, rule, off)
        known.append(item)
        return tomlkit.dumps(document)
    table = tomlkit.table()
    _put(table, rule, off)
    if not isinstance(known, AoT):
        document.add(tomlkit.nl())
        document.append("alert", tomlkit.aot())
    document["alert"].append(table)
    return tomlkit.dumps(document)


def _is_same(item: Any, rule: Rule) -> bool:
    try:
        found = alerts.parse_rule(str(item.get("when", "")), 0)
    except SpecError:
        return False  # it will be told when the whole is checked
    return alerts.matching([found], rule) is not None


def _put(item: Any, rule: Rule, off: bool) -> None:
    """Of a rule that is off it stays how long it took: it may be wanted again."""
    found: dict[str, Any] = {"when": alerts.written(rule)}
    found |= {"off": True} if off else {"for": units.exact_duration(rule.for_ns)}
    for key, value in found.items():
        if item.get(key) != value:
            item[key] = value
    if not off and "off" in item:
        del item["off"]
