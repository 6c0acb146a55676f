"""What the line under a field of a model says, read from the source when somebody asks.

pydantic can keep these texts itself (`use_attribute_docstrings`), but then it reads the source of every
class while it is imported, which takes longer than everything else about the models together.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Mapping
from itertools import pairwise

from pydantic import BaseModel


@functools.cache
def field_docs(model: type[BaseModel]) -> Mapping[str, str]:
    """Field -> the text under it, base classes included; fields without one are left out."""
    found: dict[str, str] = {}
    for part in reversed(model.__mro__):
        found |= _of_module(part.__module__).get(part.__qualname__, {}) if issubclass(part, BaseModel) else {}
    return {name: found[name] for name in model.model_fields if name in found}


@functools.cache
def _of_module(name: str) -> Mapping[str, Mapping[str, str]]:
    """Class -> field -> text, of the classes that a module defines."""
    body = ast.parse(inspect.getsource(sys.modules[name])).body
    return {node.name: dict(_documented(node)) for node in body if isinstance(node, ast.ClassDef)}


def _documented(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (field.target.id, inspect.cleandoc(text.value.value))
        for field, text in pairwise(node.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]
