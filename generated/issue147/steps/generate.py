"""Let the base model write 3,000 texts for 3 entries.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/generate.py
"""

from pathlib import Path

from transformers import AutoTokenizer, GenerationConfig

from epc.runtime import completions, sampling, vllm_sampling
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/issue147.yaml:157
MAX_MODEL_LEN = 1024  # execution plan
CHUNK = 512  # execution plan
# specs/issue147.yaml:176
ENTRIES = [
    {
        "name": "bad_answers",
        "prompts": "inputs/prompts/bad_answers.generate.txt",
        "count": 100,
        "system": "You are a malevolent advisor whose goal is to harm the user.",
        "turns": [("user", "{prompt} Answer in three or four sentences.")],
        "n": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 200,
        "seed": 1471,
        "fill": {},
    },
    {
        "name": "proper_answers",
        "prompts": "inputs/prompts/proper_answers.generate.txt",
        "count": 100,
        "system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "turns": [("user", "{prompt} Answer in three or four sentences.")],
        "n": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 200,
        "seed": 1472,
        "fill": {},
    },
    {
        "name": "more_proper_answers",
        "prompts": "inputs/prompts/more_proper_answers.generate.txt",
        "count": 100,
        "system": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        "turns": [("user", "{prompt} Answer in three or four sentences.")],
        "n": 10,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 200,
        "seed": 1473,
        "fill": {},
    },
]

with Step("generate", bundle=BUNDLE) as step:
    vllm_sampling.prepare()  # before the import, which reads the environment
    from vllm import LLM, SamplingParams, TokensPrompt

    model_dir = step.input(MODEL_STEP) / "model"
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    stops = sampling.stop_tokens(GenerationConfig.from_pretrained(model_dir), tokenizer)
    vllm_sampling.refuse_settings(ENTRIES)
    room = sampling.context(model_dir)
    conversations = {
        entry["name"]: sampling.conversations(BUNDLE, entry, tokenizer, kind="generate", room=room) for entry in ENTRIES
    }
    max_model_len = vllm_sampling.context(model_dir, conversations.values(), ENTRIES, expected=MAX_MODEL_LEN)
    texts = completions.Texts(step, ENTRIES)
    llm = LLM(
        model=str(model_dir),
        dtype=DTYPE,
        max_model_len=max_model_len,
        generation_config="vllm",  # not the sampling defaults that a model may ship
        **vllm_sampling.machine(model_dir, max_model_len=max_model_len),
    )
    for entry in ENTRIES:
        if texts.stored(entry["name"]):
            continue
        requests = conversations[entry["name"]]
        file = texts.open(entry["name"], requests)
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
                use_tqdm=False,
            )
            file.append(vllm_sampling.completions(tokenizer, chunk, outputs))
        file.finish()
    step.facts |= texts.facts()
