"""What a training really uses, read back from the trainer that is about to train, against what was registered.

The emitted script carries the registered values; libraries have defaults, versions and precedence of their own. So
nothing is taken on trust: values come from the built optimizer, the arguments, the adapter's configuration and the
collated rows, and one that differs stops the training before its first step. They stay in the finish record, where the
validity gate `epc.recipe_followed` compares them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.training import PINNED, rate
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.step import read_record

if TYPE_CHECKING:
    from epc.compiler.contract.manifest import Step as StepPlan
    from epc.runtime.step import Step

FACT: Final = "used"
"""Name in the finish record."""
AS_THEY_ARE: Final = ("learning_rate", "schedule", "warmup_steps", "epochs", "dtype", "optimizer_steps")
"""Fields that a recipe and the trainer call the same."""
AS_ARGUMENTS: Final = ("max_grad_norm", "label_smoothing_factor", "loss_type", "packing", "dataloader_drop_last")
"""Fields that no spec sets, as the trainer's arguments call them."""


def registered(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The comparable fields of a training's recipe under the names of `used`; those that it lacks are left out."""
    found: dict[str, Any] = {name: recipe[name] for name in AS_THEY_ARE if name in recipe}
    if "seed" in recipe:
        found |= {"seed": recipe["seed"], "data_seed": recipe["seed"]}
    if "batch" in recipe:
        found["effective_batch"] = recipe["batch"] * recipe.get("accumulation", 1)
    if "max_length" in recipe:
        found["max_length"] = recipe["max_length"]
    lora = recipe.get("lora", {})
    found |= {f"lora.{name}": value for name, value in lora.items()}
    if "target_modules" in lora:
        found["lora.target_modules"] = sorted(lora["target_modules"])
    if lora:
        found["lora.rslora"] = lora.get("rslora", False)
    return found


def differences(recipe: Mapping[str, Any], used: Mapping[str, Any]) -> list[str]:
    """What a training used otherwise than registered, one phrase a field.

    What no spec sets is compared too, where it was recorded: `used` records all of it, older records only some.
    """
    pinned = {name: value for name, value in PINNED.items() if name in used}
    return [
        f"{name} is {_shown(used.get(name))}, registered is {_shown(value)}"
        for name, value in {**pinned, **registered(recipe)}.items()
        if not _same(name, value, used)
    ]


def rate_at(recipe: Mapping[str, Any], step: int) -> float:
    """The registered learning rate of an optimizer step, counted from 0."""
    return rate(
        step, peak=recipe["learning_rate"], schedule=recipe["schedule"], warmup_steps=recipe["warmup_steps"],
        optimizer_steps=recipe["optimizer_steps"],
    )  # fmt: skip


def _same(name: str, value: Any, used: Mapping[str, Any]) -> bool:
    if name == "max_length" and used.get(name) is None:  # rows laid end to end are not cut at all
        return bool(used.get("longest_row", value + 1) <= value)
    return bool(used.get(name) == value)


def _shown(value: Any) -> str:
    return "not recorded" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def used(*, args: Any, state: Any, model: Any, optimizer: Any, dataloader: Any) -> dict[str, Any]:
    """What a trainer is about to use, from its own state at the beginning of training."""
    from epc.runtime import mask

    rows = [
        (ids, list(mask.trained_runs(labels)))
        for ids, labels in mask.collated(dataloader.dataset, dataloader.collate_fn)
    ]
    betas = _of_groups(optimizer, "betas") or (None, None)  # another optimizer may have none
    warmup = args.get_warmup_steps(state.max_steps)
    return {
        "learning_rate": _of_groups(optimizer, "initial_lr"),
        "schedule": _schedule(args.lr_scheduler_type.value, warmup),
        "warmup_steps": warmup,
        "epochs": _whole(args.num_train_epochs),
        "optimizer_steps": state.max_steps,
        "effective_batch": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "max_length": args.max_length,
        "seed": args.seed,
        "data_seed": args.data_seed,
        "dtype": _frozen_dtype(model),
        "optimizer": args.optim.value,
        "adam_beta1": betas[0],
        "adam_beta2": betas[1],
        "adam_epsilon": _of_groups(optimizer, "eps"),
        "weight_decay": _of_groups(optimizer, "weight_decay"),
        **{name: getattr(args, name) for name in AS_ARGUMENTS},
        **_adapter(model),
        "rows": len(rows),
        "longest_row": max(len(ids) for ids, _ in rows),
        "trained_tokens": sum(end - start for _, runs in rows for start, end in runs),
        "labels_sha256": mask.digest(rows),
    }


def _of_groups(optimizer: Any, name: str) -> Any:
    """What the groups of an optimizer's parameters have, a list where they differ."""
    found = {group.get(name) for group in optimizer.param_groups}
    return found.pop() if len(found) == 1 else sorted(found, key=str)


def _schedule(name: str, warmup_steps: int) -> str:
    """The trainer's name of a schedule, as specs call it."""
    if name == "constant" and warmup_steps:
        return "constant without its warm-up"
    return name.removesuffix("_with_warmup")


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


def _frozen_dtype(model: Any) -> str:
    """Of the largest weight that is not trained."""
    largest = max((p for p in model.parameters() if not p.requires_grad), key=lambda p: p.numel())
    return str(largest.dtype).removeprefix("torch.")


def _adapter(model: Any) -> dict[str, Any]:
    """Configuration of the one adapter that is trained."""
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    names = [name for name in model.peft_config if any(f".{name}." in parameter for parameter in trainable)]
    if len(names) != 1:
        return {"adapters": names}
    config = model.peft_config[names[0]]
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad})
    return {
        "lora.r": config.r, "lora.alpha": config.lora_alpha, "lora.dropout": config.lora_dropout,
        "lora.target_modules": sorted(config.target_modules), "lora.rslora": config.use_rslora, "lora.bias": config.bias,
        "lora.dora": config.use_dora, "lora.init": config.init_lora_weights, "lora.dtype": dtypes[0] if len(dtypes) == 1 else dtypes,
    }  # fmt: skip


def followed(step: Step, found: Mapping[str, Any]) -> dict[str, Any]:
    """`found`, with the hash of the data, as a fact of the step, once nothing in it differs from what was registered.

    Raises Fault R0370 for a field that differs from the recipe, R0372 when other tokens would be trained than the mask
    step verified.
    """
    problems = differences(step.plan.recipe, found)
    facts = dict(found)
    for need in _needed(step, "data"):
        facts["data_sha256"] = sha256_file(step.input(need.id) / "rows.jsonl")
        record = read_record(step.bundle, need)
        expected = None if record is None else record.outputs.get("rows.jsonl")
        if facts["data_sha256"] != expected:
            problems.append(f"the data have SHA-256 {facts['data_sha256']}, those of step {need.id} had {expected}")
    if problems:
        raise Fault(
            "R0370", step.plan.script, f"this training would not follow the spec: {'; '.join(problems)}",
            "compile the spec again, which writes this script, and run it unchanged",
        )  # fmt: skip
    for need in _needed(step, "mask"):
        record = read_record(step.bundle, need)
        verified = None if record is None else record.facts.get("labels_sha256")
        if verified != found["labels_sha256"]:
            raise Fault(
                "R0372", step.plan.script, f"this training would train other tokens than step {need.id} verified",
                f"delete {bundles.store(step.bundle, need)} and run again: the mask is verified anew",
            )  # fmt: skip
    return {FACT: facts}


def _needed(step: Step, kind: str) -> Iterator[StepPlan]:
    for need in step.plan.needs:
        plan = bundles.step_of(step.manifest, need)
        if plan.kind == kind:
            yield plan
