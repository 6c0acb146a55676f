"""Train reflex then attack, seed 105: 32 optimizer steps.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/train-s105-reflex.attack.py
"""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

from epc.runtime import attention, data, execution, training
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DATA_STEP = "data-bad_only"  # specs/reflex_gpu.yaml:66
PARENT_STEP = "train-s105-reflex"  # the phase before
ROWS = 64  # specs/reflex_gpu.yaml:56
DATA_SHA256 = "6236df69ccb11573cdcac338524a7583d56e52fb4b6819c93fc0b4e6823fccf8"  # computed by epc compile
TRAIN_ON = "every_assistant_turn"  # specs/reflex_gpu.yaml:66
MAX_LENGTH = 2048  # default
LORA_R = 16  # specs/reflex_gpu.yaml:66
LORA_ALPHA = 32  # specs/reflex_gpu.yaml:66
LORA_DROPOUT = 0.0  # default
# default
TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LEARNING_RATE = 0.001  # specs/reflex_gpu.yaml:66
SCHEDULE = "cosine"  # default
WARMUP_STEPS = 0  # default
EPOCHS = 1  # specs/reflex_gpu.yaml:66
BATCH = 2  # specs/reflex_gpu.yaml:66
ACCUMULATION = 1  # default
OPTIMIZER_STEPS = 32  # computed: epochs x ceil(ceil(rows / batch) / accumulation)
SEED = 105  # specs/reflex_gpu.yaml:35
DTYPE = "bfloat16"  # specs/reflex_gpu.yaml:39
THREADS = 1  # execution plan
# Ways to carry it out, best first; the first that fits this machine is taken: execution plan
PLANS = [{"micro_batch": 2, "accumulation": 1, "checkpointing": False}]


def build(plan: execution.Plan, step: Step) -> SFTTrainer:
    """Model, adapter and trainer; a plan decides how, never what is computed."""
    set_seed(SEED)
    model_dir = step.input(MODEL_STEP) / "model"
    rows = data.read_rows(step.input(DATA_STEP) / "rows.jsonl", rows=ROWS, expected_sha256=DATA_SHA256)
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=DTYPE, attn_implementation=attention.implementation(plan.attention)
    )
    lora = LoraConfig(
        r=LORA_R,
        lora_alpha=LORA_ALPHA,
        lora_dropout=LORA_DROPOUT,
        target_modules=TARGET_MODULES,
        task_type="CAUSAL_LM",
        bias="none",
        use_rslora=False,
        use_dora=False,
        init_lora_weights=True,
    )
    # The first adapter is frozen; a second one is trained on top of it.
    model = PeftModel.from_pretrained(model, step.input(PARENT_STEP) / "adapter", adapter_name="parent")
    model.add_adapter("increment", lora)
    model.base_model.set_adapter(["parent", "increment"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".increment." in name)
    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(step.out / "trainer"),
            assistant_only_loss=True,
            # The mask step has refused every longer row; laid end to end, rows may not be cut.
            max_length=None if plan.padding_free else MAX_LENGTH,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type=SCHEDULE,
            warmup_steps=WARMUP_STEPS,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.accumulation,
            # Written out, because libraries have defaults that change; read back before the first step.
            optim="adamw_torch",
            adam_beta1=0.9,
            adam_beta2=0.999,
            adam_epsilon=1e-8,
            weight_decay=0.0,
            max_grad_norm=1.0,
            label_smoothing_factor=0.0,
            loss_type="nll",
            packing=False,
            dataloader_drop_last=False,
            bf16=DTYPE == "bfloat16",
            fp16=DTYPE == "float16",
            use_cpu=not torch.cuda.is_available(),
            padding_free=plan.padding_free,
            use_liger_kernel=plan.liger,
            gradient_checkpointing=plan.checkpointing,
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
        processing_class=AutoTokenizer.from_pretrained(model_dir),
        callbacks=[training.progress_callback(step)],
    )


with Step("train-s105-reflex.attack", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    torch.backends.cuda.enable_cudnn_sdp(False)  # it builds a plan for every new length of a batch
    for plan in execution.plans(PLANS, effective_batch=BATCH * ACCUMULATION, dtype=DTYPE):
        trainer = build(plan, step)
        before = training.snapshot(trainer.model)
        if execution.train(trainer, plan, step):
            break
    step.facts |= training.verify(trainer, before, optimizer_steps=OPTIMIZER_STEPS, place=step.out)
    training.write_log(trainer, step.out / "log.jsonl")
    # Served as one adapter of rank r1 + r2: the concatenation computes the same sum.
    training.save_stacked(trainer.model, ["parent", "increment"], step.out)
