"""Text to Spec: parse, compose shared recipes, check shapes. All errors of the file in one go.

An entry of the wrong shape is reported and left out ("poisoned"), so that the passes after this one
still see the rest and a user gets every error of a file at once.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.types import Tag

from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.source import Document, PathKey, parse, read_text
from epc.compiler.spec import LANGUAGE_VERSION, Spec

SECTIONS = (
    "data", "train", "conditions", "prompts", "generate", "sample", "judges", "metrics", "analyses", "gates",
)  # fmt: skip
"""Mappings of named entries; a bad entry poisons itself only."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A spec whose shape is right except for the poisoned entries, which it lacks."""

    spec: Spec
    document: Document
    folder: Path
    """Where relative paths start."""
    poisoned: frozenset[tuple[str, str]] = frozenset()
    """(section, name) of entries that were left out."""
    composed: dict[str, str] = field(default_factory=dict)
    """Recipe name -> the file it was composed from."""

    def shown(self, path: str) -> str:
        """A path that the spec names, as diagnostics show it."""
        return (Path(self.document.file).parent / path).as_posix()

    def declared(self, section: str) -> set[str]:
        """Names of a section, poisoned ones included, so that one mistake is not reported twice."""
        return set(getattr(self.spec, section)) | {name for part, name in self.poisoned if part == section}


def load(path: Path, file: str, sink: Diagnostics) -> Surface | None:
    """Read and shape-check a spec. None when nothing after it could make sense."""
    text = read_text(path, file, sink)
    if text is None:
        return None
    document = parse(text, file, sink)
    if document.data is None:
        return None
    if not isinstance(document.data, dict):
        sink.error(
            "E0108",
            "a spec is a mapping of keys to values",
            document.span(()),
            help="start from a minimal spec: epc init",
        )
        return None
    version = document.data.get("epc")
    if type(version) is int and version > LANGUAGE_VERSION:
        sink.error(
            "E0208", f"language version {version} is newer than the {LANGUAGE_VERSION} this epc reads",
            document.span(("epc",)), help="upgrade epc",
        )  # fmt: skip
        return None
    composed = _compose(document, path.parent, sink)
    return _validate(document, path.parent, composed, sink)


def _compose(document: Document, folder: Path, sink: Diagnostics) -> dict[str, str]:
    """Replace `use: file` in recipes by the file's content; keys beside it override, one by one."""
    composed: dict[str, str] = {}
    recipes = document.data.get("train")
    if not isinstance(recipes, dict):
        return composed
    for name, recipe in recipes.items():
        if not isinstance(recipe, dict) or "use" not in recipe:
            continue
        at = document.span(("train", name, "use"))
        target = recipe.pop("use")
        if not isinstance(target, str):
            sink.error(
                "E0203", "`use` takes the path of a recipe file", at, help="for example use: recipes/attack.yaml"
            )
            continue
        file = (Path(document.file).parent / target).as_posix()
        text = read_text(folder / target, file, sink, at=at)
        if text is None:
            continue
        shared = parse(text, file, sink)
        if not isinstance(shared.data, dict):
            if shared.data is not None:
                sink.error(
                    "E0108", "a recipe file is a mapping of keys to values", shared.span(()), help="see specs/recipes/"
                )
            continue
        composed[name] = target
        base: PathKey = ("train", name)
        for inner, span in shared.spans.items():
            document.spans.setdefault((*base, *inner), span)
        for inner, span in shared.key_spans.items():
            document.key_spans.setdefault((*base, *inner), span)
        recipes[name] = _merge(shared.data, recipe)
    return composed


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins; mappings are merged key by key, anything else is replaced whole."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _validate(document: Document, folder: Path, composed: dict[str, str], sink: Diagnostics) -> Surface | None:
    data = document.data
    poisoned: set[tuple[str, str]] = set()
    placeholders: dict[str, Any] = {
        "epc": LANGUAGE_VERSION, "id": "unnamed", "title": "unnamed", "hypothesis": {"if": "-", "then": "-"},
        "model": {"from": "path:."}, "verdicts": [{"otherwise": "INCONCLUSIVE"}],
        **{section: {} for section in SECTIONS},
    }  # fmt: skip
    for _ in range(3):
        try:
            return Surface(
                spec=Spec.model_validate(data),
                document=document,
                folder=folder,
                poisoned=frozenset(poisoned),
                composed=composed,
            )
        except ValidationError as error:
            problems = error.errors(include_url=False)
        data = dict(data)
        reported = frozenset(poisoned)
        paths = [_document_path(document.data, problem["loc"]) for problem in problems]
        meant = {
            (*path[:-1], close)
            for problem, path in zip(problems, paths, strict=True)
            if problem["type"] == "extra_forbidden"
            for close in get_close_matches(str(path[-1]), _fields_at(problem["loc"][:-1]), n=1, cutoff=0.6)
        }
        for problem, path in zip(problems, paths, strict=True):
            misspelt = problem["type"] == "missing" and path in meant
            if not misspelt and path[:2] not in reported:
                _report(document, problem, path, sink)
            top = path[0] if path else None
            if problem["type"] == "extra_forbidden" and len(path) == 1:
                data.pop(path[0], None)
            elif top in SECTIONS and len(path) >= 2 and isinstance(data.get(top), dict):
                data[top] = {key: value for key, value in data[top].items() if key != path[1]}
                poisoned.add((str(top), str(path[1])))
            elif isinstance(top, str):
                fields = {spec_field.alias or name for name, spec_field in Spec.model_fields.items()}
                if top in placeholders:
                    data[top] = placeholders[top]
                    poisoned.add((top, "*"))
                elif top in fields:
                    data.pop(top, None)
        # an emptied section would be refused for being empty; that is not the user's mistake
        for section in ("conditions", "metrics", "analyses", "gates"):
            if any(part == section for part, _ in poisoned) and not data.get(section):
                return None
    return None


def _document_path(data: Any, loc: tuple[int | str, ...]) -> PathKey:
    """A pydantic location without the union tags, which are no keys of the document."""
    path: list[int | str] = []
    node: Any = data
    for position, part in enumerate(loc):
        known = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if known:
            path.append(part)
            node = node[part]
        elif position == len(loc) - 1 and part != "[key]" and not str(part).startswith("@"):
            path.append(part)
    return tuple(path)


def _strip(annotation: Any) -> Iterator[tuple[str | None, Any]]:
    """(tag, type) alternatives behind Annotated and unions."""
    if get_origin(annotation) is typing.Annotated:
        inner, *extras = get_args(annotation)
        tag = next((extra.tag for extra in extras if isinstance(extra, Tag)), None)
        for below, kind in _strip(inner):
            yield below or tag, kind
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for option in get_args(annotation):
            yield from _strip(option)
    else:
        yield None, annotation


def _fields_at(loc: tuple[int | str, ...]) -> dict[str, str]:
    """Key -> description of the model that a pydantic location points into."""
    kinds: list[Any] = [Spec]
    for part in loc:
        following: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                for name, info in kind.model_fields.items():
                    if part in (name, info.alias):
                        options = list(_strip(info.annotation))
                        for extra in info.metadata:
                            options += [(None, option) for option in get_args(extra)]
                        following += [(option) for _, option in options]
            elif get_origin(kind) is dict:
                following += [option if tag is None else (tag, option) for tag, option in _strip(get_args(kind)[1])]
            elif get_origin(kind) is list:
                following += [option if tag is None else (tag, option) for tag, option in _strip(get_args(kind)[0])]
            elif isinstance(kind, tuple) and kind[0] == part:
                following.append(kind[1])
        kinds = following
    fields: dict[str, str] = {}
    for kind in kinds:
        model = kind[1] if isinstance(kind, tuple) else kind
        if isinstance(model, type) and issubclass(model, BaseModel):
            fields |= {info.alias or name: info.description or "" for name, info in model.model_fields.items()}
    return fields


def _shown(value: Any) -> str:
    match value:
        case None:
            return "empty (null)"
        case bool():
            return "true" if value else "false"
        case str():
            text = f'"{value}"'
        case _:
            text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _report(document: Document, problem: Any, path: PathKey, sink: Diagnostics) -> None:
    """One pydantic problem as a diagnostic."""
    kind: str = problem["type"]
    where = ".".join(str(part) for part in path)
    value_span = document.span(path)
    context = problem.get("ctx", {})
    match kind:
        case "extra_forbidden":
            known = _fields_at(problem["loc"][:-1])
            if path[0] == "train" and len(path) == 3:
                known = {**known, "use": ""}
            place = f" in `{'.'.join(map(str, path[:-1]))}`" if len(path) > 1 else ""
            sink.error(
                "E0201",
                f'unknown key "{path[-1]}"{place}',
                document.key_span(path),
                help=COMMA if _cut_off(document, problem["input"], path, sink) else did_you_mean(str(path[-1]), known),
            )
        case "missing":
            parent = document.key_span(path[:-1])
            described = _fields_at(problem["loc"][:-1]).get(str(path[-1]), "")
            owner = f"`{'.'.join(map(str, path[:-1]))}` lacks" if len(path) > 1 else "the spec lacks"
            sink.error(
                "E0202",
                f"{owner} `{path[-1]}`",
                parent,
                help=f"add `{path[-1]}:`" + (f" - {described}" if described else ""),
            )
        case "literal_error":
            expected = [
                word.strip().strip("'") for word in str(context.get("expected", "")).replace(" or ", ",").split(",")
            ]
            sink.error(
                "E0204",
                f"`{where}` cannot be {_shown(problem['input'])}",
                value_span,
                help=did_you_mean(str(problem["input"]), expected),
            )
        case "string_pattern_mismatch":
            help_ = _PATTERN_HELP.get(str(context.get("pattern", "")), f"it must match {context.get('pattern')}")
            key = problem["loc"][-1] == "[key]"
            span = document.key_span(path) if key else value_span
            if key and _cut_off(document, _value_at(document.data, path), path, sink):
                help_ = COMMA
            sink.error(
                "E0205",
                f"{_shown(problem['input'])} is not a valid {'name' if key else 'value'} for `{where}`",
                span,
                help=help_,
            )
        case "value_error":
            sink.error(
                "E0206",
                f"`{where}`: {context['error']!s}",
                document.key_span(path),
                help="declare both or neither"
                if "go together" in str(context["error"])
                else "keep one and delete the others",
            )
        case _ if kind.endswith(("_type", "_parsing")) or kind in ("int_from_float", "string_too_short"):
            if path and _cut_off(document, problem["input"], path, sink):
                return  # its name, which no entry can have, is reported as cut off
            sink.error(
                "E0203",
                f"`{where}` cannot be {_shown(problem['input'])}",
                value_span,
                help=_plain(problem["msg"]) + _quoted(kind, problem["input"]),
            )
        case _:
            sink.error(
                "E0207", f"`{where}` cannot be {_shown(problem['input'])}", value_span, help=_plain(problem["msg"])
            )


COMMA = "the text before this place ended at the comma: a text with a comma inside {...} needs quotes"


def _cut_off(document: Document, value: Any, path: PathKey, sink: Diagnostics) -> bool:
    """Whether a key is what a comma cut off a text inside {...}: words with spaces and neither colon nor value."""
    key = str(path[-1])
    if value is not None or " " not in key:
        return False
    span = document.key_span(path)
    line = sink.sources.get(span.file, [""])[span.line - 1]
    # a span of one character is a key that goes on in the next line, which only a cut-off text does
    return span.length == 1 or not line[span.column - 1 + span.length :].lstrip().startswith(":")


def _value_at(data: Any, path: PathKey) -> Any:
    for part in path:
        data = data[part]
    return data


def _quoted(kind: str, value: Any) -> str:
    """A remedy for a commit or a hash of digits only, which YAML reads as a number."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return ": put it in quotes" if kind == "string_type" and number else ""


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:]


_PATTERN_HELP: dict[str, str] = {
    r"^[a-z][a-z0-9_]*$": "names are lower-case letters, digits and _, and start with a letter",
    r"^[0-9a-f]{64}$": "a SHA-256 is 64 lower-case hex digits: sha256sum FILE prints it",
    r"^\s*\S+\s+-\s+\S+\s*$": "write `treatment - control`, with spaces around the minus",
    r"^(SUCCESS|KILL|OVERRIDE|INCONCLUSIVE)(_[A-Z0-9_]+)?$": (
        "a verdict is SUCCESS, KILL, OVERRIDE or INCONCLUSIVE, with a suffix where you want one: KILL_NULL; INVALID is epc's own"
    ),
    r"^(hub:[^/\s]+/[^/\s]+|pypi:[A-Za-z0-9._-]+|path:\S.*)$": "write hub:org/name, pypi:package or path:folder",
}
