"""Flags and YAML files."""

from corpus import Case
from spoil import write

DDPM = "ddpm --pretrained_model_name_or_path {work}/ddpm --train_data_dir {work}/grey"
VIT = "vit --model_name_or_path {work}/vit --train_dir {work}/grey --forget_class 1"
LORA = f"{DDPM} --forget_class 1 --use_lora"
SD = "sd --pretrained_model_name_or_path {work}/sd --concept church"


def config(name: str, text: str | bytes, says: str, more: str = "") -> Case:
    return Case(f"yaml {name}", f"ddpm --config {{work}}/c.yaml {more}", says, write("c.yaml", text))


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)

CASES = [
    config("is a list", "- seed\n- 1\n", "c.yaml is not a mapping"),
    config("is empty", "", "c.yaml is not a mapping"),
    config("is torn", "seed: [1, 2", "c.yaml cannot be read"),
    config("is no text", b"\xff\xfe\x00s", "c.yaml cannot be read"),
    config("is deep", "seed: " + "[" * 5000, "c.yaml cannot be read"),
    config("is an alias bomb", BOMB.replace("a:", "forget_class:", 1), "c.yaml"),
    config("asks for an object", "seed: !!python/object/apply:os.mkdir ['RAN']", "c.yaml cannot be read"),
    config("word for a number", "seed: many", "'many'"),
    config("list for a number", "seed: [1, 2]", "seed"),
    config("mapping for a number", "seed: {a: 1}", "seed"),
    config("nothing for a number", "seed: null", "seed"),
    config("nothing in a list", "forget_class: [1, null]", "forget_class"),
    config("word for a switch", "antithetic: perhaps", "perhaps"),
    config("method is a list", "method: [sfron]", "method"),
    config("preset is a mapping", "preset: {a: 1}", "preset"),
    config("unknown key", "leraning_rate: 1", "unknown key 'leraning_rate'"),
    Case("yaml is a folder", "ddpm --config {work}/empty", "cannot be read"),
    Case("yaml is not there", "ddpm --config {work}/none.yaml", "cannot be read"),
    Case("flag unknown", "dit --leraning_rate 1", "unrecognized arguments"),
    Case("flag without value", "sd --learning_rate", "expected one argument"),
    Case("method unknown", "sd --method magic", "method 'magic' is not one of"),
    Case("seed negative", f"{DDPM} --forget_class 1 --seed -1", "seed must lie in [0, 4294967295], got -1"),
    Case("learning rate nan", f"{DDPM} --forget_class 1 --learning_rate nan", "learning_rate must be"),
    Case("learning rate negative", f"{SD} --learning_rate=-1e-4", "learning_rate must be"),
    Case("learning rate of a classifier nan", f"{VIT} --learning_rate nan", "learning_rate must be"),
    Case("scheduler unknown", f"{DDPM} --forget_class 1 --lr_scheduler magic", "magic"),
    Case("tracker unknown", f"{DDPM} --forget_class 1 --report_to magic", "magic"),
    Case("batch of nothing", "ddpm --train_batch_size 0", "train_batch_size must be at least 1"),
    Case(
        "batch of nothing, classifier", f"{VIT} --per_device_train_batch_size 0", "train_batch_size must be at least 1"
    ),
    Case("logging every 0 steps", f"{DDPM} --forget_class 1 --logging_steps 0", "logging_steps"),
    Case("checkpoints every -1", f"{DDPM} --forget_class 1 --checkpointing_steps -1", "checkpointing_steps"),
    Case("evaluation every -1", f"{DDPM} --forget_class 1 --eval_steps -1", "eval_steps"),
    Case("workers -1", f"{DDPM} --forget_class 1 --dataloader_num_workers -1", "num_workers"),
    Case("warm-up -1", f"{DDPM} --forget_class 1 --lr_warmup_steps -1", "warmup_steps"),
    Case("beta 1", f"{DDPM} --forget_class 1 --adam_beta1 1", "adam_beta1"),
    Case("no steps of sampling", f"{DDPM} --forget_class 1 --num_inference_steps 0", "num_inference_steps"),
    Case(
        "no steps of sampling, dit",
        "dit --pretrained_model_name_or_path {work}/dit --train_data_dir {work}/colour "
        "--forget_class 1 --num_inference_steps 0",
        "num_inference_steps",
    ),
    Case("no steps of drawing", f"{SD} --num_inference_steps 0", "num_inference_steps"),
    Case("drawing of nothing", f"{SD} --drawing_batch_size 0", "drawing_batch_size"),
    Case("samples -1", f"{DDPM} --forget_class 1 --eval_samples_per_class -1", "eval_samples_per_class"),
    Case("guidance nan", f"{DDPM} --forget_class 1 --guidance_scale nan", "guidance_scale"),
    Case("dropout 2", f"{DDPM} --forget_class 1 --label_dropout 2", "label_dropout"),
    Case("null class 99", f"{DDPM} --forget_class 1 --null_class 99", "null_class"),
    Case("resolution 0", f"{DDPM} --forget_class 1 --resolution 0", "resolution"),
    Case("resolution 0, sd", f"{SD} --resolution 0", "resolution"),
    Case("resolution 13, sd", f"{SD} --resolution 13", "resolution"),
    Case("fisher of -1", f"{DDPM} --forget_class 1 --fisher_samples -1", "fisher_samples"),
    Case("fisher in chunks of 0", f"{DDPM} --forget_class 1 --fisher_batch_size 0", "fisher_batch_size"),
    Case("gamma nan", f"{DDPM} --forget_class 1 --mask_threshold nan", "mask_threshold"),
    Case("alpha nan", f"{DDPM} --forget_class 1 --forget_alpha nan", "forget_alpha"),
    Case("rank 0", f"{LORA} --rank 0", "rank must be at least 1"),
    Case("rank budget 2", f"{LORA} --rank_budget 2", "rank_budget must lie in (0, 1]"),
    Case("layers of magic", f"{LORA} --lora_select magic", "lora_select must be one of"),
    Case("lora alpha nan", f"{LORA} --lora_alpha nan", "lora_alpha"),
    Case("class not in the data", f"{DDPM} --forget_class 9", "class 9 is not in the data"),
    Case("all classes", f"{DDPM} --forget_class 0 1 2 3", "retain"),
    Case("position -1", f"{DDPM} --forget_indices -1", "out of range"),
    Case("no model, dit", "dit --forget_class 1", "no model: set --pretrained_model_name_or_path"),
    Case(
        "output is a file",
        f"{DDPM} --forget_class 1 --output_dir {{work}}/file",
        "cannot be written",
        write("file", "x"),
    ),
    Case("concept empty", "sd --pretrained_model_name_or_path {work}/sd --concept :", "concept"),
    Case("preset without its name", "sd --pretrained_model_name_or_path {work}/sd --concept nudity:x", "nudity"),
    Case("training method unknown", f"{SD} --train_method attn", "train_method must be one of"),
    Case(
        "token to a tracker",
        f"{DDPM} --hub_token hf_{'x' * 30} --report_to wandb",
        "which may record the command line",
    ),
    # other commands
    Case("no command", "env --nope", "unrecognized arguments"),
    Case("training of 0 steps", "train_ddpm --max_train_steps 0", "max_train_steps must be at least 1"),
    Case("batch of 0", "train_ddpm --train_batch_size 0", "train_batch_size must be at least 1"),
    Case("left out class 12", "train_ddpm --exclude_class 12", "class 12 is not in the data"),
    Case("weights to nowhere", "train_ddpm --half_weights {work}/no/such/file", "half_weights"),
    Case("dit of 0 steps", "train_dit --max_train_steps 0", "max_train_steps must be at least 1"),
    Case("autoencoder of nothing", "train_dit --vae {work}/empty", "empty"),
    Case("judge of 0 steps", "train_judge --steps 0", "steps must be at least 1"),
    Case("judge into a file", "train_judge --output_dir {work}/file", "cannot be written", write("file", "x")),
    Case("emoji without tokenizer", "train_emoji --tokenizer {work}/empty --data_dir {work}/empty", "fluent_64.npz"),
    Case("emoji of 0 steps", "train_emoji --tokenizer {work}/empty --judge_steps 0", "judge_steps must be at least 1"),
    Case("check without limit", "check {work}/run", "no limit: give at least one of"),
    Case("check of a limit nan", "check {work}/run --max-forget nan", "not a finite number"),
    Case("port 99999", "demo {work}/run --port 99999", "port"),
    Case("steps 0 of a demo", "demo {work}/run --num_inference_steps 0", "num_inference_steps"),
    Case("density 2", "saliency {work}/ddpm --train_data_dir {work}/grey --forget_class 1 --mask_density 2", "(0, 1]"),
    Case(
        "density nan",
        "saliency {work}/ddpm --train_data_dir {work}/grey --forget_class 1 --mask_density nan",
        "(0, 1]",
    ),
    Case(
        "masks into a file's folder",
        "saliency --output {work}/file/m.safetensors",
        "cannot be written",
        write("file", "x"),
    ),
    Case(
        "prompts without column",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "no prompt column",
        write("p.csv", "text\nx\n"),
    ),
    Case(
        "prompts of another coding",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "p.csv",
        write("p.csv", b"prompt\n\xff\xfe\n"),
    ),
    Case(
        "prompt row without prompt",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "row 0",
        write("p.csv", "evaluation_seed,prompt\n3\n"),
    ),
    Case(
        "prompt seed of 70 bits",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "row 0",
        write("p.csv", f"prompt,evaluation_seed\nx,{2**70}\n"),
    ),
    Case(
        "prompt seed ²",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "row 0",
        write("p.csv", "prompt,evaluation_seed\nx,²\n"),
    ),
    Case(
        "prompt of 200,000 letters",
        f"{SD} --eval_prompts {{work}}/p.csv",
        "p.csv",
        write("p.csv", f"prompt\n{'x' * 200_000}\n"),
    ),
    Case(
        "positions that are words",
        VIT.replace("--forget_class 1", "--forget_indices {work}/i.txt"),
        "write one position a line",
        write("i.txt", "1\ntwo\n"),
    ),
    Case(
        "positions of another coding",
        VIT.replace("--forget_class 1", "--forget_indices {work}/i.txt"),
        "i.txt",
        write("i.txt", b"\xff\xfe1"),
    ),
    Case(
        "positions far away",
        VIT.replace("--forget_class 1", "--forget_indices {work}/i.txt"),
        "are not in use",
        write("i.txt", "99999\n"),
    ),
    Case(
        "no positions",
        VIT.replace("--forget_class 1", "--forget_indices {work}/i.txt"),
        "i.txt",
        write("i.txt", "\n\n"),
    ),
    Case(
        "positions of 5,000 digits",
        VIT.replace("--forget_class 1", "--forget_indices {work}/i.txt"),
        "i.txt",
        write("i.txt", "9" * 5000),
    ),
]
