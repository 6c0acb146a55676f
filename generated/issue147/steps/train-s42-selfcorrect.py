"""Train selfcorrect, seed 42: 96 optimizer steps.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/train-s42-selfcorrect.py
"""

from pathlib import Path

import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from epc.runtime import data, training
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DATA_STEP = "data-selfcorrect"  # specs/issue147.yaml:256
ROWS = 1000  # specs/issue147.yaml:211
DATA_SHA256 = None  # pending: epc freeze writes it
TRAIN_ON = "every_assistant_turn"  # specs/recipes/phase_1.yaml:3
MAX_LENGTH = 2048  # specs/recipes/phase_1.yaml:11
LORA_R = 16  # specs/recipes/phase_1.yaml:4
LORA_ALPHA = 32  # specs/recipes/phase_1.yaml:4
LORA_DROPOUT = 0.0  # default
# specs/recipes/phase_1.yaml:4
TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 1e-5  # specs/recipes/phase_1.yaml:5
SCHEDULE = "cosine"  # specs/recipes/phase_1.yaml:6
WARMUP_STEPS = 3  # specs/recipes/phase_1.yaml:7
EPOCHS = 3  # specs/recipes/phase_1.yaml:8
BATCH = 8  # specs/recipes/phase_1.yaml:9
ACCUMULATION = 4  # specs/recipes/phase_1.yaml:10
OPTIMIZER_STEPS = 96  # computed: epochs x ceil(ceil(rows / batch) / accumulation)
SEED = 42  # specs/issue147.yaml:156
DTYPE = "bfloat16"  # specs/issue147.yaml:157
THREADS = 1  # execution plan
GRADIENT_CHECKPOINTING = True  # execution plan

with Step("train-s42-selfcorrect", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it builds a plan for every new length of a batch
    set_seed(SEED)
    model_dir = step.input(MODEL_STEP) / "model"
    rows = data.read_rows(step.input(DATA_STEP) / "rows.jsonl", rows=ROWS, expected_sha256=DATA_SHA256)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=DTYPE)
    lora = LoraConfig(
        r=LORA_R,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=TARGET_MODULES,
        task_type="CAUSAL_LM",
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(step.out / "trainer"),
            assistant_only_loss=True,
            max_length=MAX_LENGTH,
            packing=False,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type=SCHEDULE,
            warmup_steps=WARMUP_STEPS,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION,
            optim="adamw_torch",
            weight_decay=0.0,
            max_grad_norm=1.0,
            bf16=DTYPE == "bfloat16",
            fp16=DTYPE == "float16",
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=GRADIENT_CHECKPOINTING,
            seed=SEED,
            data_seed=SEED,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=data.training_set(rows, TRAIN_ON),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=[training.progress_callback(step)],
    )
    before = training.snapshot(trainer.model)
    trainer.train()
    step.facts |= training.verify(trainer, before, optimizer_steps=OPTIMIZER_STEPS, place=step.out)
    training.write_log(trainer, step.out / "log.jsonl")
    trainer.model.save_pretrained(step.out / "adapter")
