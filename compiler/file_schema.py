"""JSON Schema of a file that epc writes, for programs that read it: every field described, nothing else allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel

from epc.compiler.field_docs import field_docs

SCHEMA_ID: Final = "urn:epc:schema:"
"""What the `$id` begins with; name and version of the file follow."""


def file_schema(model: type[BaseModel], name: str) -> dict[str, Any]:
    """Schema of one file, or of one row of a file of rows.

    Only epc writes a file, and it writes every field, so all of them are required. Rows are also taken from others, who
    may leave out what has a default.
    """
    version = model.model_fields.get("schema_version")
    schema = model.model_json_schema(by_alias=True, mode="validation" if version is None else "serialization")
    definitions = {"": schema, **schema.get("$defs", {})}
    for part in _parts(model):
        described = definitions["" if part is model else part.__name__]
        for field, text in field_docs(part).items():
            described["properties"][field]["description"] = " ".join(text.split())
        if version is not None:
            described["required"] = list(described["properties"])
    ending = "" if version is None else f":{version.default}"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"{SCHEMA_ID}{name}{ending}", **schema}


def file_schema_text(model: type[BaseModel], name: str) -> str:
    return json.dumps(file_schema(model, name), indent=1, ensure_ascii=False) + "\n"


def _parts(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A model and every model that it is made of."""
    found = [model]
    for part in found:  # grows
        for field in part.model_fields.values():
            found += [inner for inner in dict.fromkeys(_models(field.annotation)) if inner not in found]
    return found


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
