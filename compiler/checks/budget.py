"""What the plan costs against what was declared.

E1101: the plan needs more than the budget
Why: in the source document of issue 147 the budget was typed and not derived: $10 to $12 for 22,000 judge calls is
$0.0005 a call, where a call costs several times that, and 5.0 GPU-hours stood beside "3-4". Here the plan is priced
first, and nothing is dispatched that the budget does not hold. Dollars are judge calls and, with `gpu`, rental.
Example:
    budget: {usd: 1}
Fix:
    budget: {usd: 50}

E1102: a GPU without a price
Why: dollars are computed from a dated price list, so the GPU must be one that the list has. Prices move, and so does
what a name means: an H100 is sold in three forms at three prices.
Example:
    budget: {gpu: h100}
Fix:
    budget: {gpu: h100-sxm}
"""

from __future__ import annotations

from epc.compiler import cost
from epc.compiler.contract.prices import GPU_PRICES
from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.lower import Plan
from epc.compiler.resolve import Experiment


def declared(experiment: Experiment, sink: Diagnostics) -> None:
    """A GPU that the price list has."""
    gpu = experiment.spec.budget.gpu
    if gpu is not None and gpu not in GPU_PRICES:
        sink.error(
            "E1102", f'"{gpu}" is not in the list of GPU prices', experiment.at("budget", "gpu"),
            help=f"{did_you_mean(gpu.lower().replace('_', '-'), GPU_PRICES)} Without `gpu`, no rental is added to the dollars",
        )  # fmt: skip


def check(plan: Plan, sink: Diagnostics) -> None:
    budget, figures = plan.experiment.spec.budget, plan.figures
    hours, usd = figures.values.get("gpu_hours"), figures.values.get("usd")
    arithmetic = {name: [text] for name, text in figures.arithmetic.items()}
    if budget.gpu is not None and hours is not None and usd is not None:
        rental, how = cost.gpu_usd(hours, budget.gpu)
        arithmetic["usd"] = [
            *arithmetic.get("usd", []),
            how,
            f"${usd:,.2f} judging + ${rental:,.2f} rental = ${usd + rental:,.2f}",
        ]
        usd += rental
    for quantity, unit, slack, needed in (("gpu_hours", "GPU-hours", 0.05, hours), ("usd", "dollars", 0.005, usd)):
        allowed = getattr(budget, quantity)
        if needed is not None and needed > allowed + slack:
            sink.error(
                "E1101", f"the plan needs about {needed:.2f} {unit}, the budget is {allowed:g}", plan.experiment.at("budget", quantity),
                help=f"raise budget.{quantity}, or shrink the plan", notes=arithmetic.get(quantity, []),
            )  # fmt: skip
