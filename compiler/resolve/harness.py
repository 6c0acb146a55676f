"""Tasks that the LM Evaluation Harness brings, found in its folder without importing it.

A definition is resolved here, at compile time: the task's file with what it includes written out, and the modules of
the functions that it names. These texts travel in the bundle and are hashed, so that a run reads what was registered
and not what happens to be installed.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ConfigDict

from epc.compiler.cache import cached
from epc.compiler.contract.canonical import sha256_json, sha256_text

_HEADS: Final = {
    kind: re.compile(rb"^[\"']?" + kind + rb"[\"']?[ \t]*:[ \t]*[\"']?([^\s\"'#\[]+)", re.MULTILINE)
    for kind in (b"task", b"group", b"include")
}  # fmt: skip
_TAG: Final = re.compile(rb"^[\"']?tag[\"']?[ \t]*:(.*(?:\n[ \t]*-.*)*)", re.MULTILINE)
_WORD: Final = re.compile(rb"[\w.+/-]*\w[\w.+/-]*")
INDEX_VERSION: Final = 1
"""Raised when `_index` finds other names in the same files, since its results are kept between compilations."""
DEEPEST: Final = 20
"""Includes within includes; more are a circle."""


class Function(str):
    """`module.name`, as `!function` writes it; the module is a file beside the task's."""

    @property
    def module(self) -> str:
        return self.rpartition(".")[0]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """As the harness reads its files: YAML 1.1 with `!function`."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.add_constructor("!function", lambda loader, node: Function(loader.construct_scalar(node)))
_Dumper.add_representer(Function, lambda dumper, value: dumper.represent_scalar("!function", str(value)))


class Index(BaseModel):
    """What the harness brings, by name; files are relative to its folder of tasks."""

    model_config = ConfigDict(frozen=True, defer_build=True)

    tasks: dict[str, str]
    groups: dict[str, str]
    tags: dict[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Harness:
    """An installed harness."""

    folder: Path
    version: str


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A task of the harness, resolved."""

    content: Mapping[str, Any]
    text: str
    """The task file with what it includes written out."""
    modules: Mapping[str, str]
    """Name of the file beside it -> Python source of the functions that it names."""


def installed() -> Harness | None:
    """The harness beside this compiler, None where there is none. Imports nothing of it."""
    from importlib import metadata  # slow to load, and needed for few specs

    spec = importlib.util.find_spec("lm_eval")
    try:
        version = metadata.version("lm-eval")
    except metadata.PackageNotFoundError:
        return None
    places = None if spec is None else spec.submodule_search_locations
    folder = Path(next(iter(places))) / "tasks" if places else None
    return None if folder is None or not folder.is_dir() else Harness(folder=folder, version=version)


@functools.lru_cache(maxsize=2)
def index(harness: Harness) -> Index:
    """The names of an installed harness: looked for in its 14,000 files once, then kept in the user's cache folder."""
    key = sha256_json([INDEX_VERSION, str(harness.folder), harness.version, harness.folder.stat().st_mtime_ns])
    return cached("lm-eval", key, Index, lambda: _index(harness.folder), sound=lambda found: bool(found.tasks))


def _index(folder: Path) -> Index:
    """As the harness does: in the order of the paths, the first file that defines a name has it."""
    tasks: dict[str, str] = {}
    groups: dict[str, str] = {}
    tags: dict[str, list[str]] = {}
    for file in sorted(folder.rglob("*.yaml"), key=lambda path: path.as_posix()):
        raw = file.read_bytes()
        path = file.relative_to(folder).as_posix()
        group, task = (_HEADS[kind].search(raw) for kind in (b"group", b"task"))
        if group is not None:
            groups.setdefault(_text(group[1]), path)
        elif task is not None:
            name = _text(task[1])
            tasks.setdefault(name, path)
            for tag in _tags(file, raw):
                tags.setdefault(tag, []).append(name)
    return Index(tasks=tasks, groups=groups, tags={tag: sorted(names) for tag, names in sorted(tags.items())})


def _tags(file: Path, raw: bytes, *, depth: int = 0) -> Iterator[str]:
    """Tags of a task file, or else of what it includes."""
    own = _TAG.search(raw)
    if own is not None:
        yield from map(_text, _WORD.findall(re.sub(rb"#.*", b"", own[1])))
        return
    include = _HEADS[b"include"].search(raw)
    other = None if include is None or depth >= DEEPEST else file.parent / _text(include[1])
    if other is not None and other.is_file():
        yield from _tags(other, other.read_bytes(), depth=depth + 1)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def members(harness: Harness, name: str) -> tuple[str, ...] | None:
    """The tasks that a group or tag of the harness stands for, sorted; None for another name."""
    names = index(harness)
    found: set[str] = set()
    known = name in names.groups or name in names.tags
    waiting, seen = [name], {name}
    while waiting:
        here = waiting.pop()
        file = names.groups.get(here)
        inside = list(names.tags.get(here, ())) if file is None else list(_listed(harness.folder / file))
        for each in inside:
            if each in names.tasks:
                found.add(each)
            elif each not in seen:
                seen.add(each)
                waiting.append(each)
    return tuple(sorted(found)) if known else None


def _listed(file: Path) -> Iterator[str]:
    """Names of tasks, groups and tags in the file of a group."""
    try:
        content = load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    waiting: list[Any] = [content.get("task")]
    while waiting:
        match waiting.pop():
            case str(name):
                yield name
            case list(items):
                waiting += items
            case {"group": str(name), **rest}:
                yield name
                waiting.append(rest.get("task"))
            case {"task": inner}:
                waiting.append(inner)
            case _:
                pass


def load(text: str) -> dict[str, Any]:
    """The mapping that a task file holds. Raises ValueError with one line when it holds none."""
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return content


def merged(file: Path, *, depth: int = 0) -> dict[str, Any]:
    """A task file over what it includes, later includes over earlier ones, as the harness merges them.

    Raises OSError for a file that is not there, ValueError with one line for one that cannot be read.
    """
    content = load(file.read_text(encoding="utf-8"))
    includes = content.pop("include", [])
    if depth >= DEEPEST:
        raise ValueError("its includes go in a circle")
    whole: dict[str, Any] = {}
    for name in includes if isinstance(includes, list) else [includes]:
        part = merged(file.parent / str(name), depth=depth + 1)
        part.pop("task_list", None)
        whole |= part
    return whole | content


def functions(value: object) -> Iterator[Function]:
    """Every function that a definition names."""
    match value:
        case Function():
            yield value
        case Mapping():
            for item in value.values():
                yield from functions(item)
        case Sequence() if not isinstance(value, str):
            for item in value:
                yield from functions(item)
        case _:
            pass


def definition(harness: Harness, name: str) -> Definition:
    """A task of the harness. Raises OSError or ValueError where its files cannot be read."""
    file = harness.folder / index(harness).tasks[name]
    content = merged(file)
    modules: dict[str, str] = {}
    for function in functions(content):
        module = file.parent / f"{function.module.replace('.', '/')}.py"
        if module.is_file():
            modules[module.relative_to(file.parent).as_posix()] = module.read_text(encoding="utf-8")
    for key in ("tag", "group"):  # they name other collections, and say nothing of the task
        content.pop(key, None)
    body = yaml.dump(content, Dumper=_Dumper, sort_keys=True, allow_unicode=True, width=110)
    text = f"# {name} of lm-eval {harness.version}, with what it includes written out.\n{body}"
    return Definition(content=content, text=text, modules=modules)


def sha256(found: Definition) -> str:
    """Of a resolved task and its functions."""
    return sha256_json([sha256_text(found.text), {name: sha256_text(text) for name, text in found.modules.items()}])
