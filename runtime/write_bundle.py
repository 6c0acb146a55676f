"""Bundle to disk: the only place where compiled files are written.

Results, journal, history and reports in the same folder are never touched; files of an earlier
compilation that are no longer part of the bundle are removed.
"""

from __future__ import annotations

from pathlib import Path


def _compiled(folder: Path) -> set[str]:
    """Files under the folder that a compilation wrote."""
    found = {"manifest.json", "spec.lock.yaml", "plan.md", "Snakefile"}
    for part in ("steps", "inputs"):
        found |= {
            file.relative_to(folder).as_posix()
            for file in (folder / part).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
    return {path for path in found if (folder / path).is_file()}


def stale(folder: Path, files: dict[str, str]) -> list[str]:
    """Paths that are missing, different, or no longer part of the bundle."""
    different = [
        path for path, text in files.items()
        if not (folder / path).is_file() or (folder / path).read_bytes() != text.encode("utf-8")
    ]  # fmt: skip
    return sorted({*different, *(_compiled(folder) - set(files))})


def write(folder: Path, files: dict[str, str]) -> None:
    """Write what changed, each file aside and renamed; the manifest last, so that it never points ahead."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(folder, files)
    for path in sorted(changed, key=lambda name: (name == "manifest.json", name)):
        target = folder / path
        if path not in files:
            target.unlink()
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(target.name + ".tmp")
        aside.write_bytes(files[path].encode("utf-8"))
        aside.replace(target)
