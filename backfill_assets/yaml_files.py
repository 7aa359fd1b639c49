"""YAML files that people write: read into a frozen model, or refused in one line with the remedy.

A typing error puts a secret in a wrong place: ``api_key:SECRET`` without the space is a key, and a value on
the wrong line is that of its neighbor. A running service shows a refusal to others, so it quotes no possible
secret: only the first letters of keys, and only short values.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from backfill_assets.failures import BadInput, SettingsError

ModelT = TypeVar("ModelT", bound=BaseModel)

#: The compiled loader takes a tenth of the time; not every build of PyYAML has it.
_BASE: Final[type[Any]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


class _Loader(_BASE):  # type: ignore[misc]
    """A loader that leaves days as text: its error about an invalid day has neither line nor key."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
        for first, resolvers in _BASE.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that appears twice: YAML would let the last one win without a word."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and key.value in seen:
                problem = f"{key.value[:_QUOTED]} appears twice: keep one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep=deep)  # type: ignore[no-any-return]


#: Longest quoted value: names, symbols and numbers are shorter, keys and tokens are longer.
_QUOTED: Final = 20
#: Most faults of one file that are reported at once.
_FAULTS_TOLD: Final = 10


class Strict(BaseModel):
    """A section of such a file: no unknown keys, no later changes, no NaN or infinite number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Described(Strict):
    """A section whose fields have their meaning as the text under them in the source.

    The text is read on request. pydantic can read it (``use_attribute_docstrings``), but does so whenever the
    class is made, which takes a tenth of the code location's import time.
    """

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Return the text under each field, by the field's name."""
        found: dict[str, str] = {}
        for model in reversed(cls.__mro__):
            if model is Described or not issubclass(model, Described):
                continue
            (written,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
            for field, text in pairwise(written.body if isinstance(written, ast.ClassDef) else ()):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(doc))
                    ):
                        found[name] = inspect.cleandoc(doc)
        return found

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Give every property its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, meaning in cls.meanings().items():
            properties[name]["description"] = meaning
        return schema


def read_mapping(path: Path, example: str) -> dict[str, Any]:
    """Read the keys of a file.

    Raises
    ------
    SettingsError
        The file cannot be read, is not YAML, or holds no mapping. The message quotes no line of the file,
        because it may hold a secret.
    """
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = re.sub(r"(tag|alias) '.*", r"\1", str(error.problem or error.context))
        msg = f"{path}: cannot be read as YAML: {place}{problem}"
        raise SettingsError(msg) from None
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
        msg = f"{path}: cannot be read as YAML: {reason}"
        raise SettingsError(msg) from None
    if not isinstance(content, dict):
        msg = f"{path}: must hold a mapping of {example}"
        raise SettingsError(msg)
    return content


def validated(model: type[ModelT], content: dict[str, Any], path: Path, *, page: str) -> ModelT:
    """Make the model from a file's content; ``page`` is the document that lists its keys.

    Raises
    ------
    SettingsError
        Keys are unknown or missing, or values are bad; each is named once, with its key and the remedy.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        faults = _faults(model, error.errors(), page)
        more = f"; and {len(faults) - _FAULTS_TOLD} more" if faults[_FAULTS_TOLD:] else ""
        msg = f"{path}: {'; '.join(faults[:_FAULTS_TOLD])}{more}"
        # The cause is left out: Dagster keeps the texts of a chain, and pydantic's text quotes every value.
        raise SettingsError(msg) from None


def insist_on_new(file: Path) -> None:
    """Raise ``BadInput`` unless ``BACKFILL_ENV`` takes the name as a path, at which a file can be made."""
    if file.suffix not in (".yaml", ".yml"):
        msg = f"{file}: the name of a settings file ends in .yaml: give one with --settings"
        raise BadInput(msg)
    if file.exists() or file.is_symlink():
        msg = f"{file} already exists: name another one with --settings, or remove it"
        raise BadInput(msg)
    if not file.parent.is_dir():
        msg = f"{file}: there is no folder {file.parent}: make it, or name another file with --settings"
        raise BadInput(msg)


def write_new(file: Path, text: str) -> None:
    """Write a settings file, but never over another.

    Raises
    ------
    BadInput
        ``insist_on_new`` refuses it, or the file cannot be written.
    """
    insist_on_new(file)
    try:
        with file.open("x", encoding="utf-8") as target:
            target.write(text)
    except OSError as error:
        msg = f"{file} cannot be written: {error.strerror}: name another file with --settings"
        raise BadInput(msg) from error


def quoted(value: str) -> str:
    """Return the value as a message may quote it."""
    is_short = len(value) <= _QUOTED and "@" not in value
    return repr(value) if is_short else f"a text of {len(value)} characters"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Return ``did you mean …?`` with the nearest known names, ignoring case; empty if none is near."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(given.lower(), names, n=2, cutoff=0.6)
    return f"did you mean {' or '.join(names[name] for name in close)}?" if close else ""


def _faults(model: type[BaseModel], errors: Sequence[ErrorDetails], page: str) -> list[str]:
    """Return one text for each mistake: a refused item also makes its list too short."""
    places = [error["loc"] for error in errors]
    found: list[str] = []
    meant: set[tuple[int | str, ...]] = set()
    for error in errors:
        place = error["loc"]
        inside = any(len(other) > len(place) and other[: len(place)] == place for other in places)
        if error["type"] == "extra_forbidden":
            hint = did_you_mean(str(place[-1]), _keys_at(model, place[:-1]))
            meant.update((*place[:-1], name) for name in _keys_at(model, place[:-1]) if f" {name}?" in hint)
            remedy = hint or "remove it or correct its spelling"
            found.append(f"{_key(place)}: unknown key; {remedy} ({page})")
        elif not inside or error["type"] != "too_short":
            found.append(f"{_key(place)}: {_fault(error, page)}" if place else _fault(error, page))
    missing = {f"{_key(place)}: is missing; add it ({page})" for place in meant}
    return [fault for fault in found if fault not in missing]


def _fault(error: ErrorDetails, page: str) -> str:
    kind = error["type"]
    if kind == "missing":
        return f"is missing; add it ({page})"
    if kind in ("tuple_type", "list_type"):
        what = "must be a list: write [ and ] around it, or a line with - before each item"
    elif kind in ("model_type", "model_attributes_type", "dict_type"):
        what = f"must be a section with its own keys ({page})"
    elif kind == "string_type":
        what = "must be text: put it into quotes"
    elif kind == "union_tag_not_found":
        return f"its key {error['ctx']['discriminator']} is missing; add it ({page})"
    elif kind == "union_tag_invalid":
        context = error["ctx"]
        known = context["expected_tags"].replace("'", "")
        return (
            f"{quoted(context['tag'])} is not a valid {context['discriminator'].strip(chr(39))}; "
            f"choose from {known}"
        )
    else:
        what = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{what}{_given(_key(error['loc']), error, what)}"


def _name(part: str | int) -> str:
    """Return a key up to the point where it can no longer be one of ours."""
    text = str(part)
    begin = text if isinstance(part, int) else re.split(r"[^A-Za-z_-]", text, maxsplit=1)[0][:40]
    return begin if begin == text else f"{begin}…"


def _key(place: Sequence[int | str]) -> str:
    return ".".join(_name(part) for part in place)


def _keys_at(model: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the keys of the section at this place."""
    sections = [model]
    for part in place:
        fields = [s.model_fields[part] for s in sections if isinstance(part, str) and part in s.model_fields]
        if fields:
            sections = [found for field in fields for found in _sections_in(field.annotation)]
        elif isinstance(part, str):  # not a key: the kind of a section that has several
            sections = [
                s for s in sections if any(part in get_args(f.annotation) for f in s.model_fields.values())
            ]
    return sorted({name for section in sections for name in section.model_fields})


def _sections_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _sections_in(inner)]


def _given(key: str, error: ErrorDetails, said: str) -> str:
    """Quote the value, unless already quoted or possibly secret: a key, a database address, a section."""
    if key.endswith(("api_key", "token", "ohlcv.url")):
        return " (got a secret)"
    value, expected = error["input"], error["type"]
    if expected.endswith(("model_type", "attributes_type", "tuple_type", "list_type", "dict_type")):
        return ""
    if isinstance(value, str):
        return "" if said.startswith(quoted(value)) else f" (got {quoted(value)})"
    return f" (got {value!r})" if isinstance(value, int | float | None) else ""
