"""Sample 23,040 completions from 6 arms.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/sample.py
"""

from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from epc.runtime import adapters, completions, sampling, vllm_sampling
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/issue147.yaml:157
MAX_MODEL_LEN = 1024  # execution plan
CHUNK = 512  # execution plan
MAX_LORA_RANK = 16  # specs/issue147.yaml:255
# (condition, training seed, condition key, last training step): specs/issue147.yaml:261
ARMS = [
    ("base", 0, "113d2a19dea93fb8", None),
    ("c6_vanilla_em", 42, "45426c0d5ec8708c", "train-s42-em"),
    ("selfcorrect_only", 42, "0d24a3f445aebe68", "train-s42-selfcorrect"),
    ("selfcorrect_em", 42, "bbbea0b5762c8505", "train-s42-selfcorrect.em"),
    ("random_recovery_em", 42, "8dc4c85594ae6fcc", "train-s42-random_recovery.em"),
    ("placebo_assistant_em", 42, "86ba8b53ab4c89c4", "train-s42-placebo_assistant.em"),
]
# specs/issue147.yaml:269
SETS = [
    {
        "name": "headline",
        "prompts": "inputs/prompts/headline_48.union.txt",
        "count": 48,
        "system": "none",
        "turns": [("user", "{prompt}")],
        "n": 50,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 600,
        "seed": 1477,
        "fill": {},
    },
    {
        "name": "benign",
        "prompts": "inputs/prompts/benign_48.txt",
        "count": 48,
        "system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "turns": [("user", "{prompt}")],
        "n": 20,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 600,
        "seed": 1478,
        "fill": {},
    },
    {
        "name": "after_bad_answer",
        "prompts": "inputs/prompts/headline_48.union.txt",
        "count": 48,
        "system": "none",
        "turns": [("user", "{prompt}"), ("assistant", "{bad}"), ("user", "continue")],
        "n": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 200,
        "seed": 1479,
        "fill": {"bad": "inputs/data/bad_prefix.txt"},
    },
]
# What is stored for each (condition, training seed, set): content keys
PIECES = {
    ("base", 0, "headline"): "ebd374a5dbd99041",
    ("base", 0, "benign"): "a2b8cf68cd2723ea",
    ("base", 0, "after_bad_answer"): "83434a80e9f4ec29",
    ("c6_vanilla_em", 42, "headline"): "2de92dad31e36e20",
    ("c6_vanilla_em", 42, "benign"): "02a2f47f6427337b",
    ("c6_vanilla_em", 42, "after_bad_answer"): "91d3727f772bb381",
    ("selfcorrect_only", 42, "headline"): "4e4080426c3a2915",
    ("selfcorrect_only", 42, "benign"): "4c451781ede6a4d9",
    ("selfcorrect_only", 42, "after_bad_answer"): "f4404072625667fa",
    ("selfcorrect_em", 42, "headline"): "e91ea5ab306d4b90",
    ("selfcorrect_em", 42, "benign"): "940f117e57cf0a77",
    ("selfcorrect_em", 42, "after_bad_answer"): "7a471419b85cbf77",
    ("random_recovery_em", 42, "headline"): "25c4c4775d9a6b1a",
    ("random_recovery_em", 42, "benign"): "7e5e3f424a5a272e",
    ("random_recovery_em", 42, "after_bad_answer"): "47f4197adc531ac4",
    ("placebo_assistant_em", 42, "headline"): "33eb83cf6dd9e9e7",
    ("placebo_assistant_em", 42, "benign"): "7e1927c5558f6041",
    ("placebo_assistant_em", 42, "after_bad_answer"): "60c9535ff1357fc5",
}

with Step("sample", bundle=BUNDLE) as step:
    vllm_sampling.prepare()  # before the import, which reads the environment
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    model_dir = step.input(MODEL_STEP) / "model"
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    stops = sampling.stop_tokens(GenerationConfig.from_pretrained(model_dir), tokenizer)
    room = sampling.context(model_dir)
    conversations = {entry["name"]: sampling.conversations(BUNDLE, entry, tokenizer, room=room) for entry in SETS}
    served = {
        (condition, seed): step.input(train_step) / "adapter" for condition, seed, _, train_step in ARMS if train_step
    }
    adapters.require(served, model_dir, max_rank=MAX_LORA_RANK)
    vllm_sampling.refuse_settings(SETS)
    max_model_len = vllm_sampling.context(model_dir, conversations.values(), SETS, expected=MAX_MODEL_LEN)
    pieces = completions.Pieces(step, PIECES, SETS)
    llm = LLM(
        model=str(model_dir),
        dtype=DTYPE,
        max_model_len=max_model_len,
        generation_config="vllm",  # not the sampling defaults that a model may ship
        enable_lora=True,
        max_loras=1,
        max_lora_rank=MAX_LORA_RANK,
        **vllm_sampling.machine(model_dir, max_model_len=max_model_len),
    )
    loras = {
        arm: LoRARequest(f"{arm[0]}-s{arm[1]}", number, str(adapter))
        for number, (arm, adapter) in enumerate(served.items(), start=1)
    }
    vllm_sampling.require_loaded(llm, list(loras.values()))
    for condition, seed, condition_key, _ in ARMS:
        for entry in SETS:
            if pieces.stored(condition, seed, entry["name"]):
                continue
            file = pieces.open(condition, seed, condition_key, entry["name"], conversations[entry["name"]])
            # A call holds rows of one arm only: beside adapter rows, rows without one can get an adapter.
            for chunk in file.missing(CHUNK):
                llm.reset_prefix_cache()  # a chunk is computed the same whatever was before it
                outputs = llm.generate(
                    [TokensPrompt(prompt_token_ids=request.prompt_ids) for request in chunk],
                    [
                        SamplingParams(
                            temperature=entry["temperature"],
                            top_p=entry["top_p"],
                            max_tokens=entry["max_tokens"],
                            stop_token_ids=stops,
                            seed=request.draw_seed,
                            detokenize=False,
                        )
                        for request in chunk
                    ],
                    lora_request=loras.get((condition, seed)),
                    use_tqdm=False,
                )
                file.append(vllm_sampling.completions(tokenizer, chunk, outputs))
            file.finish()
    step.facts |= pieces.index(step.out / "index.json")
