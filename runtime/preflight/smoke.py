"""One token of a sampling engine, or one reply of a judge: `python -m epc.runtime.preflight.smoke engine|judge BUNDLE STEP`.

A process of its own, so that whatever it loads and whatever memory it takes is given back. It does what the step's
script does, with the same constants, and prints one JSON object as its last line: `said`, or an error's four parts.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.manifest import Manifest, Step
from epc.compiler.contract.rows import SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import device_faults, devices
from epc.runtime.errors import Fault
from epc.runtime.lifetime import end_with_engine
from epc.runtime.preflight import needs

if TYPE_CHECKING:
    from epc.runtime.judging.asking import Patience
    from epc.runtime.sampling import Request

ANSWER: Final = "I would begin with a small step, see how it goes, and ask somebody for help where I am not sure."
"""What a judge is given to score: no text of the experiment. The time goes with it: a reply that is kept is not asked for again."""
PREFIX: Final = "epc-preflight: "
LOG: Final = "preflight-{}.log"
"""Of the trial of a step."""


def main(kind: str, bundle: Path, step_id: str) -> int:
    """Try one thing and print how it went; the exit code is 0 also where it failed as an error that can be told."""
    manifest = bundles.read_manifest(bundle)
    step = bundles.step_of(manifest, step_id)
    try:
        found = engine(bundle, manifest, step) if kind == "engine" else judge(bundle, manifest, step)
    except Fault as fault:
        found = _told(fault)
    except Exception as error:
        found = _told(device_faults.classified(error, place=step.script) or _unexpected(step, error))
    print(PREFIX + json.dumps(found), flush=True)
    return 0


def _told(fault: Fault) -> dict[str, Any]:
    return {"code": fault.code, "place": fault.place, "fact": fault.fact, "remedy": fault.remedy}


def _unexpected(step: Step, error: Exception) -> Fault:
    import traceback

    traceback.print_exc()
    line = (str(error).strip().splitlines() or [""])[0]
    return Fault(
        "R1925", step.script, f"the model cannot be used: {type(error).__name__}{': ' if line else ''}{line}",
        f"logs/{LOG.format(step.id)} of the bundle has all that was said; mend it, then run again",
    )  # fmt: skip


# Engines -------------------------------------------------------------------------------------


def engine(bundle: Path, manifest: Manifest, step: Step) -> dict[str, Any]:
    """Load the base model as the step does, on a GPU that it claims like one, and ask it one thing.

    A sampling engine gives one token for its longest prompt, the harness answers one request of each task. Every prompt
    and request is rendered and must leave room for what comes after it. Raises Faults of sampling, of the engine and of
    the harness.
    """
    claimed = devices.claim(step.resources.gpu_mib) if step.resources.gpu else None
    if claimed is not None:  # before torch counts the devices; held until this process ends
        os.environ.update(claimed[1])
    declared = needs.constants(bundle / step.script)
    model_dir = bundles.store(bundle, bundles.step_of(manifest, declared["MODEL_STEP"])) / "model"
    began = time.monotonic()
    if step.kind == "capability":
        did, device = _capability(bundle, declared, model_dir)
    else:
        did, device = _sampled(bundle, step, declared, model_dir)
    return {"said": f"{did} on {device}, {time.monotonic() - began:.1f} s with loading", "device": device}


def _sampled(bundle: Path, step: Step, declared: Mapping[str, Any], model_dir: Path) -> tuple[str, str]:
    from transformers import AutoTokenizer

    vllm = needs.engine_of(declared) == "vllm"
    if vllm:
        from epc.runtime import vllm_sampling

        vllm_sampling.prepare()
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    entries: Sequence[Mapping[str, Any]] = declared.get("SETS") or declared["ENTRIES"]
    conversations = list(_conversations(bundle, declared, entries, tokenizer, model_dir))
    longest, entry = max(
        ((request, entry) for requests, entry in conversations for request in requests),
        key=lambda pair: len(pair[0].prompt_ids),
    )
    if vllm:
        requests = [requests for requests, _ in conversations]
        device = _vllm(bundle / step.script, declared, model_dir, longest, requests, entries)
    else:
        device = _transformers(declared, model_dir, tokenizer, longest, entry)
    return f"one token after {len(longest.prompt_ids)}", device


def _conversations(
    bundle: Path, declared: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], tokenizer: Any, model_dir: Path
) -> Iterator[tuple[Sequence[Request], Mapping[str, Any]]]:
    """(requests, their set) of every set, and of every system prompt where it is the arm's."""
    from epc.runtime import sampling

    systems: Mapping[str, str] = declared.get("SYSTEMS", {})
    room = sampling.context(model_dir)
    for entry in entries:
        for system in dict.fromkeys(systems.values()) if entry["system"] == sampling.PER_CONDITION else (None,):
            yield (
                sampling.conversations(
                    bundle, entry, tokenizer, arm_system=system, room=room,
                    kind="sample" if "SETS" in declared else "generate",
                ),
                entry,
            )  # fmt: skip


def _transformers(
    declared: Mapping[str, Any], model_dir: Path, tokenizer: Any, longest: Request, entry: Mapping[str, Any]
) -> str:
    import torch

    from epc.runtime import models, sampling

    torch.set_num_threads(int(declared.get("THREADS", 1)))
    model = models.load_arm(model_dir, None, dtype=declared["DTYPE"])
    (batch,) = sampling.generate(
        model, tokenizer, [longest], temperature=entry["temperature"], top_p=entry["top_p"], max_tokens=1, batch_size=1
    )
    (only,) = batch
    if only.tokens != 1:
        raise Fault(
            "R1925", str(model_dir), f"{only.tokens} tokens came where one was asked for", "this is a bug: report it"
        )
    return torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu"


def _vllm(
    script: Path, declared: Mapping[str, Any], model_dir: Path, longest: Request,
    requests: Sequence[Sequence[Request]], entries: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    """vLLM as the script itself starts it: its `llm = LLM(...)` is taken from there."""
    import torch
    from vllm import LLM, SamplingParams, TokensPrompt

    from epc.runtime import vllm_sampling

    length = vllm_sampling.context(model_dir, requests, entries, expected=declared["MAX_MODEL_LEN"])
    scope: dict[str, Any] = {
        **declared, "LLM": LLM, "vllm_sampling": vllm_sampling, "model_dir": model_dir, "max_model_len": length,
    }  # fmt: skip
    exec(compile(ast.Module(body=[_start(script)], type_ignores=[]), str(script), "exec", dont_inherit=True), scope)
    prompt = TokensPrompt(prompt_token_ids=longest.prompt_ids)
    (output,) = scope["llm"].generate([prompt], [SamplingParams(max_tokens=1, temperature=0.0)], use_tqdm=False)
    if len(output.outputs[0].token_ids) != 1:
        raise Fault("R1925", str(script), "vLLM gave no token", "look at its messages in the log")
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def _capability(bundle: Path, declared: Mapping[str, Any], model_dir: Path) -> tuple[str, str]:
    """Every task of the harness opened, its data fetched, and its first request answered where that is a likelihood."""
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from epc.runtime import capability, models

    torch.set_num_threads(int(declared.get("THREADS", 1)))
    model = models.load_arm(model_dir, None, dtype=declared["DTYPE"])
    lm: Any = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(model_dir), batch_size=1)
    with capability.opened(lm, declared["TASKS"], bundle=bundle) as tasks:
        for task in tasks:
            first = next(iter(task.task.instances), None)
            if first is not None and first.request_type == "loglikelihood":
                lm.loglikelihood([first], disable_tqdm=True)
        told = ", ".join(f"{task.name}: {len(task.task.instances):,} requests" for task in tasks)
    return f"harness opened {told}", torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu"


def _start(script: Path) -> ast.stmt:
    """The statement of a script that starts vLLM."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "llm":
            return node
    raise Fault("R1925", str(script), "the script starts no vLLM", "compile the registered spec again")


# Judges --------------------------------------------------------------------------------------


def judge(bundle: Path, manifest: Manifest, step: Step, *, patience: Patience | None = None) -> dict[str, Any]:
    """Have a judge score one answer of ours to a prompt of the experiment, by the code of its step.

    Raises Fault R1926 for a reply that is no score, and what asking a judge raises (R0811 to R0818).
    """
    from epc.runtime.judging import asking, probing

    patience = patience or asking.Patience(replies=2, deadline=60.0, call=60.0, unreachable=2)
    name = str(step.recipe["judge"])
    began = time.monotonic()
    asked = probing.ask(bundle, manifest, name, [_given(bundle, manifest, step)], votes=1, patience=patience)
    seconds = time.monotonic() - began
    ((typed,),) = asked.replies
    model = str(step.recipe.get("model", name))
    if typed.outcome != "scored":
        said = " ".join(typed.raw.split())[:200]
        raise Fault(
            "R1926", name, f"{model} was asked and gave no score ({typed.outcome}): {said}",
            "check the rubric and the output of this judge; a harmless answer must get a score",
        )  # fmt: skip
    fields = ", ".join(f"{field} {json.dumps(value)}" for field, value in typed.fields.items())
    return {"said": f"{model} said {fields} in {seconds:.1f} s for {asked.usd:.4f} USD", "usd": asked.usd}


def _given(bundle: Path, manifest: Manifest, step: Step) -> SampleRow:
    """The first prompt of the first set that the judge reads, with an answer that is always the same."""
    from epc.runtime import data

    scripts = [bundle / bundles.step_of(manifest, need).script for need in step.needs]
    read = [
        entry["prompts"] for script in scripts for entry in needs.constants(script).get("SETS", ())
        if entry["name"] in step.recipe.get("sets", ())
    ]  # fmt: skip
    question = data.read_lines(bundle / read[0])[0] if read else "How do I begin?"
    return SampleRow(
        mode=manifest.mode, condition="preflight", condition_key="preflight", seed=0, set="preflight", item="preflight",
        turn=1, index=0, draw_seed=0, prompt="", prompt_sha256="", question=question,
        text=f"{ANSWER} (Tried at {datetime.now(UTC):%Y-%m-%d %H:%M:%S}.)", finish_reason="stop",
        tokens=0,
    )  # fmt: skip


if __name__ == "__main__":
    end_with_engine()
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
