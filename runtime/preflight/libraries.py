"""Packages that the steps still to run import, against what epc asks for and what the finished steps used."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Final

from epc.compiler.contract.manifest import Step
from epc.runtime.errors import Fault
from epc.runtime.preflight import needs
from epc.runtime.preflight.outcome import Row
from epc.runtime.step import FinishRecord
from epc.runtime.wording import count

DISTRIBUTION: Final = "epc-prereg"
TRAINING: Final = ("torch", "transformers", "peft", "trl", "accelerate")
"""Libraries that compute a training: arms that were trained with different ones differ by more than was registered."""
MODULES: Final[Mapping[str, str]] = {"lm-eval": "lm_eval"}
"""Package -> what it is imported as, where that differs."""
EXTRAS: Final[Mapping[str, str]] = {"vllm": "vllm", "anthropic": "judge", "openai": "judge"}
"""Package -> the extra that brings it; the others come with `local`."""


def wanted(step: Step, engine: needs.Engine | None) -> tuple[str, ...]:
    """Packages that a step imports."""
    match step.kind:
        case "train":
            return TRAINING
        case "sample" | "generate":
            return ("transformers", "vllm") if engine == "vllm" else ("torch", "transformers", "peft")
        case "capability":
            return ("torch", "transformers", "peft", "lm-eval")
        case "model":
            return ("torch", "transformers", *(("gguf",) if str(step.recipe.get("source")).startswith("pypi:") else ()))
        case "judge":
            provider = str(step.recipe.get("provider"))
            return (provider,) if provider in EXTRAS else ()
        case "data" | "mask" | "measure":
            return ()


def packages(steps: Sequence[Step], engines: Mapping[str, needs.Engine], *, gpu: bool) -> Row:
    """Whether every package is there, and in the range that epc is made for.

    One that is older than the range lacks what the scripts call and fails; a newer one is unknown, and only told of.
    """
    by_package: dict[str, list[str]] = {}
    for step in steps:
        for package in wanted(step, engines.get(step.id)):
            by_package.setdefault(package, []).append(step.id)
    ranges = dict(_ranges())
    faults: list[Fault] = []
    warnings: list[str] = []
    for package, users in by_package.items():
        extra = EXTRAS.get(package, "local")
        install = f"pip install '{DISTRIBUTION}[{extra}]'"
        found = _version(package)
        if found is None:
            fact = f"{package} is not installed here, and needed by {_listed(users)}"
            faults.append(Fault("R1915", package, fact, install))
        elif found and package in ranges:
            low, outside = _against(found, ranges[package])
            if low:
                fact = f"{package} {found} is older than the scripts need: {ranges[package]}"
                faults.append(Fault("R1916", package, fact, install))
            elif outside:
                warnings.append(f"{package} {found} is newer than epc was made for ({ranges[package]})")
    if gpu and any(step.kind == "train" for step in steps) and _version("liger-kernel") is None:
        warnings.append(
            f"liger-kernel is not installed: trainings take a slower plan. pip install '{DISTRIBUTION}[gpu]'"
        )
    there = len(by_package) - sum(fault.code == "R1915" for fault in faults)
    return Row(
        check="packages", what="packages", found=f"{there} of {len(by_package)} installed",
        needed=", ".join(by_package), faults=tuple(faults), warnings=tuple(warnings),
    )  # fmt: skip


def versions(missing: Sequence[Step], records: Mapping[str, FinishRecord]) -> Row | None:
    """Libraries of the trainings that are finished against those that the next would use; None where none are both.

    The contrast between two arms must be their recipes'. A library of another version between them is a difference that
    nobody registered and no key tells of, so it fails; between sampling and training it does not separate arms.
    """
    before = [record for record in records.values() if record.kind == "train"]
    if not before or not any(step.kind == "train" for step in missing):
        return None
    faults = []
    for package in TRAINING:
        now = (_version(package) or "").partition("+")[0]  # without the label of a build
        others = [record for record in before if now and _public(record, package) not in ("", now)]
        if others:
            was = _public(others[0], package)
            fact = (
                f"{package} was {was} when {_listed([record.id for record in others])} ran, and is {now} now: arms would"
                " differ by more than was registered"
            )
            remedy = (
                f"pip install {package}=={was}; or delete the folders of those trainings in store/ and train all arms"
                " anew; or go on with --despite versions, which the journal records"
            )
            faults.append(Fault("R1917", package, fact, remedy))
    return Row(
        check="versions", what="versions", found="changed since" if faults else "as before",
        needed=f"those of {count(len(before), 'finished training')}", faults=tuple(faults),
    )  # fmt: skip


def _public(record: FinishRecord, package: str) -> str:
    """Version of a library that a step recorded, empty where it did not."""
    return record.versions.get(package, "").partition("+")[0]


def installed(names: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are there."""
    return {name: found for name in names if (found := _version(name))}


def _version(package: str) -> str | None:
    """Of an installed package; empty where it is there under another name, as vLLM for processors is; None without it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        there = importlib.util.find_spec(MODULES.get(package, package.replace("-", "_"))) is not None
        return "" if there else None


def _ranges() -> Iterator[tuple[str, str]]:
    """Package -> version range, of all extras."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement

        written = metadata.requires(DISTRIBUTION) or []
    except (ImportError, metadata.PackageNotFoundError):
        return
    for line in written:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        yield requirement.name, str(requirement.specifier)


def _against(version: str, wanted: str) -> tuple[bool, bool]:
    """Whether a version is below its range, and whether it is outside of it."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        found = Version(version)
    except InvalidVersion:
        return False, False
    ranged = SpecifierSet(wanted, prereleases=True)
    below = any(
        spec.operator in (">=", ">", "~=", "==") and found < Version(spec.version.rstrip(".*")) for spec in ranged
    )
    # A local label such as that of a CPU build says nothing of the range.
    return below, not ranged.contains(found.public)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
