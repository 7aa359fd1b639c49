"""Every key that a file of settings or of rules may have, with its field and its description."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from backfill_assets.yaml_files import Described


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key with dots (``universe[].symbols``), in the order of the models."""
    meanings = model.meanings() if issubclass(model, Described) else {}
    for name, written in model.model_fields.items():
        field = copy.copy(written)
        field.description = meanings.get(name, written.description)
        many = "[]" if typing.get_origin(field.annotation) is tuple else ""
        inner = _models_in(field.annotation)
        for nested in inner:
            yield from fields(nested, f"{prefix}{name}{many}.")
        if not inner:
            yield f"{prefix}{name}", field


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]
