"""Plan to Bundle: a pure mapping from path to text. Nothing here touches the disk.

Compiling twice gives identical bytes: no clock, no host, no absolute path, no dependence on where the
command was typed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any, assert_never

from jinja2 import Environment, FunctionLoader, StrictUndefined

from epc import __version__
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.manifest import Manifest, Mlflow, Trackers, Wandb
from epc.compiler.contract.rehearsal import FOLDER, Rehearsal
from epc.compiler.kinds import generate
from epc.compiler.lower import Plan
from epc.compiler.lowering import TEMPLATE_INPUT, PlannedStep
from epc.compiler.plan_page import plan_page
from epc.compiler.spec import MlflowOptions, Spec, WandbOptions
from epc.compiler.templates import template

LINE_LENGTH = 120


def literal(value: Any, indent: int = 0, width: int = LINE_LENGTH - 30) -> str:
    """A Python literal as a person would write it: `1e-5`, double quotes, long containers broken over lines."""
    flat = _flat(value)
    if len(flat) + indent <= width or not isinstance(value, list | tuple | dict) or not value:
        return _wrapped(value, indent) if isinstance(value, str) and len(flat) + indent > width else flat
    pad = " " * (indent + 4)
    inner = indent + 4
    if isinstance(value, dict):
        rows = [f"{pad}{_flat(key)}: {literal(item, inner, width)}," for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        rows = [f"{pad}{literal(item, inner, width)}," for item in value]
        opening, closing = ("[", "]") if isinstance(value, list) else ("(", ")")
    return "\n".join([opening, *rows, " " * indent + closing])


def _wrapped(text: str, indent: int) -> str:
    """A long string as adjacent literals in parentheses."""
    pad = " " * (indent + 4)
    words = re.findall(r"\S+\s*|\s+", text)
    pieces = [""]
    for word in words:
        if pieces[-1] and len(pieces[-1]) + len(word) > LINE_LENGTH - 20 - indent:
            pieces.append("")
        pieces[-1] += word
    if len(pieces) == 1:
        return _flat(text)
    return "\n".join(["(", *(f"{pad}{_flat(piece)}" for piece in pieces), " " * indent + ")"])


def _flat(value: Any) -> str:
    match value:
        case bool() | None | int():
            return repr(value)
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} has no literal")
            text = re.sub(r"e([+-])0+", r"e\1", repr(value)).replace("e+", "e")
            return text
        case str():
            body = (
                value.replace("\\", "\\\\")
                .replace('"', '\\"')
                .replace("\n", "\\n")
                .replace("\t", "\\t")
                .replace("\r", "\\r")
            )
            return f'"{body}"'
        case list():
            return "[" + ", ".join(map(_flat, value)) + "]"
        case tuple():
            return "(" + ", ".join(map(_flat, value)) + ("," if len(value) == 1 else "") + ")"
        case dict():
            return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
        case _:
            raise TypeError(f"{type(value).__name__} has no literal")


@functools.cache
def environment() -> Environment:
    """The jinja environment of every emitted file: an undefined name is an error."""
    env = Environment(
        loader=FunctionLoader(template), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        autoescape=False,
    )  # fmt: skip
    env.filters["py"] = literal
    return env


def _origin(plan: Plan, planned: PlannedStep, file_of: Callable[[str], str]) -> Callable[[str], str]:
    document = plan.experiment.surface.document

    def line(name: str) -> str:
        where = planned.origins[name]
        if isinstance(where, str):
            return where
        if where not in document.spans:
            return "default"
        span = document.key_spans.get(where) or document.spans[where]
        return f"{file_of(span.file)}:{span.line}"

    return line


def _lines(entries: Iterable[str]) -> str:
    return "".join(f"{entry}\n" for entry in entries)


def _trackers(spec: Spec) -> Trackers | None:
    found: dict[str, Mlflow | Wandb] = {}
    for name, options in spec.trackers.items():
        match options:
            case MlflowOptions():
                found[name] = Mlflow(uri=options.uri, experiment=options.experiment or spec.id)
            case WandbOptions():
                found[name] = Wandb(project=options.project or spec.id, entity=options.entity, mode=options.mode)
            case _:
                assert_never(options)
    return Trackers.model_validate(found) if found else None


def emit(
    plan: Plan, *, spec_path: str, template_text: str | None, rehearsal: Rehearsal | None = None
) -> dict[str, str]:  # fmt: skip
    """Every file of the bundle, path -> text.

    `spec_path` is the path of the spec relative to the folder that holds generated/; `rehearsal` says how a plan of that
    mode was scaled.
    """
    experiment = plan.experiment
    spec, document = experiment.spec, experiment.surface.document
    typed, stable = PurePosixPath(document.file).parent, PurePosixPath(spec_path).parent

    def file_of(file: str) -> str:
        """The displayed path of a source file, made independent of where the command was typed."""
        path = PurePosixPath(file)
        return (stable / path.relative_to(typed)).as_posix() if path.is_relative_to(typed) else path.name

    manifest = Manifest(
        epc=__version__,
        id=spec.id,
        title=spec.title if rehearsal is None else f"REHEARSAL of: {spec.title}",
        mode=plan.lowering.mode,
        spec=spec_path,
        spec_sha256=sha256_text(document.text),
        lock_sha256=plan.lock_sha256,
        steps=tuple(planned.step for planned in plan.steps),
        design=plan.design,
        pending=experiment.pending,
        figures=plan.figures.values,
        arithmetic=plan.figures.arithmetic,
        rehearsal=rehearsal,
        report_to=_trackers(spec),
    )
    files: dict[str, str] = {
        "manifest.json": manifest.model_dump_json(indent=1) + "\n",
        "spec.lock.yaml": plan.lock_text,
        "plan.md": plan_page(plan, manifest),
        "Snakefile": environment().get_template("Snakefile.j2").render(manifest=manifest),
    }
    for planned in plan.steps:
        step = planned.step
        files[step.script] = (
            environment()
            .get_template(f"steps/{step.kind}.py.j2")
            .render(
                step=step,
                title=manifest.title,
                bundle=f"{'generated' if rehearsal is None else FOLDER}/{spec.id}",
                command=f"python {step.script}",
                c=planned.constants,
                trackers=tuple(spec.trackers),
                line=_origin(plan, planned, file_of),
            )
        )
    for entry in experiment.inputs.values():
        files[entry.bundle_path] = entry.text
    for prompts in experiment.prompt_sets.values():
        if prompts.source is None:
            files[prompts.bundle_path] = _lines(prompts.items)
    for name, generation in spec.generate.items():
        files[generate.prompts_path(name)] = _lines(
            p for prompts in generation.prompts for p in experiment.prompts[prompts]
        )
    if template_text is not None:
        files[TEMPLATE_INPUT] = template_text
    return dict(sorted(files.items()))
