"""The edge of `epc simulate`: options in, files and text out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from epc import __version__
from epc.compiler.contract.manifest import Design
from epc.compiler.contract.simulation import Simulation
from epc.runtime import bundle as bundles
from epc.runtime import kept
from epc.runtime.decide import write_text
from epc.runtime.errors import Fault
from epc.runtime.measurements import MEASUREMENTS, group, read_measurements
from epc.runtime.simulate.model import EXTREME
from epc.runtime.simulate.run import EXPERIMENTS, Options, Registration, simulate


def options(
    *, experiments: int | None, resamples: int | None, seed: int, truths: Sequence[str], units: int | None,
    samples: int | None, bimodal: bool,
) -> Options:  # fmt: skip
    """Options as the command line gives them."""
    return Options(
        experiments=experiments or EXPERIMENTS, resamples=resamples, seed=seed, truths=tuple(truths), units=units,
        samples=samples, extreme=1.0 if bimodal else EXTREME,
    )  # fmt: skip


def of_design(
    design: Design, *, id_: str, title: str, lock_sha256: str, place: Path, pilot: Path | None, options: Options
) -> Simulation:
    """Simulate a design. Raises Fault as `run.simulate` does, and R1705 for a pilot without rows."""
    from epc.runtime.simulate import pilot as pilots
    from epc.runtime.simulate.truths import NOTHING

    registration = Registration(
        epc=__version__, id=id_, title=title, lock_sha256=lock_sha256, design=design, place=str(place)
    )  # fmt: skip
    if pilot is None:
        return simulate(registration, options, NOTHING, {})
    manifest = bundles.read_manifest(pilot)
    files = [
        file
        for step in manifest.steps
        if step.kind == "measure" and kept.is_there(file := bundles.store(pilot, step) / MEASUREMENTS)
    ]
    rows = [row for file in files for row in read_measurements(file, manifest)]
    if not rows:
        raise Fault(
            "R1705", str(pilot), "the pilot has no measurement rows", "name the bundle of a run whose measure steps finished"
        )  # fmt: skip
    measurements = group(rows)
    named = {metric.name for metric in design.metrics}
    of_pilot = manifest.design.model_copy(
        update={"metrics": tuple(metric for metric in manifest.design.metrics if metric.name in named)}
    )
    known = pilots.known_of(of_pilot, measurements, options.extreme)
    return simulate(registration, options, known, pilots.sizes_of(of_pilot, measurements))


def path_of(bundle: Path) -> Path:
    return bundle / "report" / "simulation.json"


def text_of(simulation: Simulation) -> str:
    """simulation.json as it is written: the same simulation is the same bytes."""
    import json

    data = simulation.model_dump(mode="json")
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write(bundle: Path, simulation: Simulation) -> Path:
    """Write report/simulation.json. Raises Fault R1706 when it cannot be written."""
    file = path_of(bundle)
    write_text(file, text_of(simulation), code="R1706", what="the simulation")
    return file


def show(simulation: Simulation, *, style: Literal["text", "json"], page: Path | None) -> None:
    """Print a simulation, and write its page. Raises Fault R1706 when the page cannot be written."""
    if page is not None:
        from epc.runtime.simulate.page import html

        write_text(page, html(simulation), code="R1706", what="the page")
    if style == "json":
        sys.stdout.write(text_of(simulation))
        return
    from rich.console import Console

    from epc.runtime.simulate.summary import print_simulation

    print_simulation(Console(), simulation)
    if page is not None:
        print(f"page: {page}")
