"""Settings for people and editors: every effective value with its origin, and JSON schemas.

No output holds a secret: keys and tokens are masked, and so are user, password and path of an address.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from backfill_assets.failures import SettingsError, redacted
from backfill_assets.quality.verdict import rules_hash
from backfill_assets.rule_set import DEFAULT_RULES, RULES_VERSION, RuleSet, load_rules
from backfill_assets.settings import (
    ADDRESS,
    BASE,
    REPLACED,
    SECRET,
    ProcessEnvironment,
    SettingsFile,
    current_settings,
    load_file,
    resolve,
    rules_file,
    settings_file,
    variables_in,
)

MASK: Final = "***"
#: The JSON schema draft that editors support.
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"


@dataclass(frozen=True, slots=True)
class Line:
    """One value: its key with dots, its text, and its origin in words."""

    key: str
    value: str
    origin: str


def settings_text() -> str:
    """Return every current setting, rule and variable, in three tables."""
    path = settings_file()
    settings, file = current_settings(), load_file(path)
    rules_path = rules_file(path, file.thresholds.rules)
    rules = _lines(load_rules(rules_path), "file of rules", "rule set of the package")
    named = f"version {RULES_VERSION}, hash {rules_hash(settings.thresholds)}"
    tables = (
        (f"Settings: {path}", list(_lines(file, "settings file", "default"))),
        (f"Rules: {rules_path} ({named})", [line for line in rules if line.key != "version"]),
        ("Environment variables of the package", list(_variables())),
    )
    width = max(len(line.key) for _, lines in tables for line in lines)
    return "\n\n".join("\n".join([title, *_aligned(lines, width)]) for title, lines in tables)


def _aligned(lines: list[Line], width: int) -> Iterator[str]:
    longest = min(50, max(len(line.value) for line in lines))
    for line in lines:
        yield f"  {line.key:{width}}  {line.value:{longest}}  {line.origin}"


def _lines(model: BaseModel, given: str, default: str, prefix: str = "") -> Iterator[Line]:
    """Yield the values of a model: ``given`` is the origin of written values, ``default`` of all others."""
    for name, field in type(model).model_fields.items():
        value, key = getattr(model, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _lines(value, given, default, f"{key}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for number, entry in enumerate(value):
                yield from _lines(entry, given, default, f"{key}[{number}].")
        else:
            origin = given if name in model.model_fields_set else default
            yield _line(key, value, origin, field.metadata)


def _line(key: str, value: Any, origin: str, marks: list[Any]) -> Line:
    if REPLACED not in marks:
        return Line(key, masked(_text(value)), origin)
    for name, is_set in variables_in(value).items():
        origin += f", environment variable {name}{'' if is_set else ' (not set)'}"
    try:
        value = resolve(value)
    except SettingsError:
        return Line(key, "not set", origin)
    if SECRET in marks:
        return Line(key, MASK if value else "empty", origin)
    if BASE in marks:
        value = redacted(value, base=value)
    return Line(key, _address(value) if ADDRESS in marks else masked(_text(value)), origin)


def _variables() -> Iterator[Line]:
    environment = ProcessEnvironment()
    for name in (field.name for field in dataclasses.fields(environment)):
        value = getattr(environment, name)
        is_set = environment.is_set(name)
        shown = "not set" if value is None else masked(value)
        if is_set and name == "dagster_postgres_url":
            shown = _address(value)
        yield Line(name.upper(), shown, "environment variable" if is_set else "default")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        value = ", ".join(value)
    return "empty" if value == "" else str(value)


def masked(text: str) -> str:
    """Mask passwords in the text: the part of an address before the @, and parameters that name a secret."""
    text = re.sub(r"://.*@", f"://{MASK}@", text, flags=re.DOTALL)
    # The host is missing: the text after the colon is not a port.
    text = re.sub(r"://[^@/?#\[]*:(?!\d+(?:[/?#]|$)).*", f"://{MASK}", text, flags=re.DOTALL)
    secrets = r"(?i)((?:^|[?&;\s])\w*(?:pass|pwd|secret|token|key)\w*\s*=)[^&]+"
    return re.sub(secrets, rf"\g<1>{MASK}", text)


def _address(value: str) -> str:
    """Return a database address without its secrets; hide any other text, since it may be a mistyped one."""
    if value in ("", "dagster"):
        return _text(value)
    return masked(value) if re.match(r"[a-z0-9+]+://", value) else MASK


def schema_text(of: str) -> str:
    """Return the JSON schema of a settings file, or of a file of ``rules``."""
    schema = _rules_schema() if of == "rules" else SettingsFile.model_json_schema()
    # The default of ``name`` is the name of the file.
    schema["required"] = [key for key in schema["required"] if key != "name"]
    return json.dumps({"$schema": _DRAFT, **_one_line(schema)}, indent=2, ensure_ascii=False)


def _rules_schema() -> dict[str, Any]:
    schema = RuleSet.model_json_schema()
    for key, comment in rule_comments().items():
        section, _, name = key.rpartition(".")
        part = schema
        if section:
            part = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        part["properties"][name]["description"] = comment
    schema["properties"]["version"]["const"] = RULES_VERSION
    return schema


def rule_comments() -> dict[str, str]:
    """Return the comment above each key of the package's rules, by the key with its section."""
    found: dict[str, str] = {}
    section, comment = "", []
    for line in DEFAULT_RULES.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        key = text.partition(":")[0]
        if key and not line.startswith(" "):
            section = key
        if key and comment:
            found[key if key == section else f"{section}.{key}"] = " ".join(comment)
        comment = []
    return found


def _one_line(part: Any) -> Any:
    """Return the schema with every description on one line."""
    if isinstance(part, str):
        return " ".join(part.split())
    if isinstance(part, dict):
        return {key: _one_line(value) for key, value in part.items()}
    return [_one_line(item) for item in part] if isinstance(part, list) else part
