"""Models, images, masks and checkpoints."""

import torch
from corpus import Case
from spoil import bomb, cut, edit, evil, huge_header, link, many, parquet, remove, tensors, write

DDPM = "ddpm --pretrained_model_name_or_path {work}/ddpm --train_data_dir {work}/grey --forget_class 1"
DIT = "dit --pretrained_model_name_or_path {work}/dit --train_data_dir {work}/colour --forget_class 1"
SD = "sd --pretrained_model_name_or_path {work}/sd --concept church"
VIT = "vit --model_name_or_path {work}/vit --train_dir {work}/grey --forget_class 1"
UNET, VITW = "ddpm/unet/diffusion_pytorch_model.safetensors", "vit/model.safetensors"
TRANSFORMER = "dit/transformer/diffusion_pytorch_model.safetensors"
INDEX = {"metadata": {}, "weight_map": {"a": "../../outside.safetensors"}}
PARQUET = DDPM.replace("grey", "rows")
RESUME = DDPM + " --resume_from_checkpoint {work}/checkpoint-1"
STATE = "checkpoint-1/unlearn_state.json"


def masks(name: str, says: str, spoil) -> Case:
    return Case(f"masks {name}", f"{DDPM} --mask_path {{work}}/m.safetensors", says, spoil)


def resume(name: str, says: str, spoil) -> Case:
    return Case(f"checkpoint {name}", RESUME, says, spoil)


CASES = [
    # ---- models
    Case("model is not there", DDPM.replace("/ddpm", "/nowhere", 1), "nowhere"),
    Case("model is empty", DDPM.replace("/ddpm", "/empty", 1), "model_index.json"),
    Case("model index torn", DDPM, "model_index.json", cut("ddpm/model_index.json")),
    Case("model index is a list", DDPM, "model_index.json", write("ddpm/model_index.json", "[]")),
    Case("model index of words", DDPM, "ddpm", edit("ddpm/model_index.json", unet="UNet2DModel")),
    Case(
        "model index of another library",
        DDPM,
        "evil",
        many(
            edit("ddpm/model_index.json", scheduler=["evil", "DDIMScheduler"]),
            write("ddpm/scheduler/evil.py", "import os\nos.mkdir('RAN')\nclass DDIMScheduler: pass\n"),
        ),
    ),
    Case("model index of another pipeline", DIT.replace("/dit", "/ddpm", 1), "give a DiTPipeline"),
    Case("part missing", DIT, "vae", lambda folder: __import__("shutil").rmtree(folder / "dit/vae")),
    Case("unet torn", DDPM, "unet", cut(UNET)),
    Case("unet empty", DDPM, "unet", cut(UNET, 0)),
    Case("unet header of 2^60 bytes", DDPM, "unet", huge_header(UNET)),
    Case("unet of other names", DDPM, "ddpm", tensors(UNET, {"w": torch.zeros(3)})),
    Case("unet a pickle", DDPM, "safetensors", evil("ddpm/unet/diffusion_pytorch_model.bin", UNET)),
    Case("unet config torn", DDPM, "config.json", cut("ddpm/unet/config.json")),
    Case("unet config of words", DDPM, "ddpm", edit("ddpm/unet/config.json", block_out_channels="wide")),
    Case("unet of no sample size", DDPM, "sample_size", edit("ddpm/unet/config.json", sample_size=None)),
    Case("scheduler config torn", DDPM, "scheduler_config.json", cut("ddpm/scheduler/scheduler_config.json")),
    Case(
        "scheduler of magic betas", DDPM, "magic", edit("ddpm/scheduler/scheduler_config.json", beta_schedule="magic")
    ),
    Case("transformer torn", DIT, "transformer", cut(TRANSFORMER)),
    Case("transformer a pickle", DIT, "safetensors", evil("dit/transformer/diffusion_pytorch_model.bin", TRANSFORMER)),
    Case(
        "text encoder a pickle",
        SD,
        "safetensors",
        evil("sd/text_encoder/pytorch_model.bin", "sd/text_encoder/model.safetensors"),
    ),
    Case("text encoder torn", SD, "sd", cut("sd/text_encoder/model.safetensors")),
    Case("tokenizer torn", SD, "sd", cut("sd/tokenizer/tokenizer.json")),
    Case("vae torn", SD, "vae", cut("sd/vae/diffusion_pytorch_model.safetensors")),
    Case("classifier config torn", VIT, "config.json", cut("vit/config.json")),
    Case("classifier config is a list", VIT, "config.json", write("vit/config.json", "[]")),
    Case("classifier of an unknown type", VIT, "magic", edit("vit/config.json", model_type="magic")),
    Case("classifier torn", VIT, "vit", cut(VITW)),
    Case("classifier header of 2^60 bytes", VIT, "vit", huge_header(VITW)),
    Case("classifier a pickle", VIT, "safetensors", evil("vit/pytorch_model.bin", VITW)),
    Case("classifier of another width", VIT, "vit", edit("vit/config.json", hidden_size=32)),
    Case("classifier of words", VIT, "vit", edit("vit/config.json", hidden_size="wide")),
    Case(
        "classifier shards outside",
        VIT,
        "outside.safetensors",
        many(write("vit/model.safetensors.index.json", __import__("json").dumps(INDEX)), remove(VITW)),
    ),
    Case(
        "classifier code of its own",
        VIT,
        "custom code",
        many(
            edit(
                "vit/config.json",
                model_type="own",
                auto_map={"AutoConfig": "own.Own", "AutoModelForImageClassification": "own.Own"},
            ),
            write("vit/own.py", "import os\nos.mkdir('RAN')\nclass Own: pass\n"),
        ),
    ),
    Case("processor torn", VIT, "preprocessor_config.json", cut("vit/preprocessor_config.json")),
    Case(
        "processor code of its own",
        VIT,
        "custom code",
        many(
            edit(
                "vit/preprocessor_config.json", image_processor_type="Own", auto_map={"AutoImageProcessor": "own.Own"}
            ),
            write("vit/own.py", "import os\nos.mkdir('RAN')\nclass Own: pass\n"),
        ),
    ),
    Case(
        "label maps that differ",
        VIT,
        "label",
        edit("vit/config.json", label2id={"cat": 0}, id2label={"0": "cat", "1": "b", "2": "c", "3": "d"}),
    ),
    Case(
        "retrained of another width",
        VIT + " --retrained_model {work}/run",
        "run does not load",
        edit("run/config.json", num_labels=9),
    ),
    Case("clip without weights", SD + " --clip_model {work}/empty", "empty"),
    Case("inception weights a pickle", SD + " --inception_weights {work}/i.pth", "i.pth", evil("i.pth")),
    Case("lpips weights torn", SD + " --lpips_weights {work}/l.pth", "l.pth", write("l.pth", b"PK\x03\x04torn")),
    # ---- images
    Case("image torn", DDPM, "1/0.png", cut("grey/1/0.png")),
    Case("image of text", DDPM, "1/0.png", write("grey/1/0.png", "no picture")),
    Case("image empty", DIT, "1/0.png", write("colour/1/0.png", "")),
    Case("image of 3.6 thousand million pixels", DDPM, "0/0.png", bomb("grey/0/0.png")),
    Case("image of 100 million pixels", DDPM, "0/0.png", bomb("grey/0/0.png", 10_000)),
    Case("image bomb, dit", DIT, "1/0.png", bomb("colour/1/0.png")),
    Case("image bomb, classifier", VIT, "2/0.png", bomb("grey/2/0.png")),
    Case("image bomb, less, classifier", VIT, "2/0.png", bomb("grey/2/0.png", 10_000)),
    Case("image bomb to forget, sd", SD + " --forget_data_dir {work}/colour", "3/2.png", bomb("colour/3/2.png")),
    Case("image missing behind its link", DDPM, "1/0.png", link("grey/1/0.png", "nowhere.png")),
    Case("folder without images", DDPM.replace("/grey", "/empty"), "no image and no parquet file"),
    Case("folder is a file", DDPM.replace("/grey", "/file"), "file", write("file", "x")),
    Case("folder is not there", DDPM.replace("/grey", "/nowhere"), "nowhere"),
    Case(
        "captions of a picture that is not there",
        SD + " --retain_data_dir {work}/colour",
        "none.png",
        write("colour/metadata.jsonl", '{"file_name": "none.png", "text": "x"}\n'),
    ),
    Case(
        "captions torn",
        SD + " --retain_data_dir {work}/colour",
        "colour does not load",
        write("colour/metadata.jsonl", '{"file_name": '),
    ),
    Case("parquet torn", PARQUET, "rows", write("rows/train.parquet", b"PAR1torn")),
    Case(
        "parquet without images",
        PARQUET,
        "column 'image' is not in the data",
        parquet("rows/train.parquet", label=[0, 1]),
    ),
    Case(
        "parquet of numbers for images",
        PARQUET,
        "image",
        parquet("rows/train.parquet", image=[1, 2, 3], label=[0, 1, 2]),
    ),
    Case(
        "parquet of words for labels",
        PARQUET,
        "label",
        parquet("rows/train.parquet", image=[{"bytes": b"", "path": None}] * 2, label=["a", "b"]),
    ),
    Case(
        "parquet without labels in places",
        PARQUET,
        "label",
        parquet("rows/train.parquet", image=[{"bytes": b"", "path": None}] * 2, label=[1, None]),
    ),
    Case(
        "parquet of labels, classifier",
        VIT.replace("grey", "rows"),
        "image",
        parquet("rows/train.parquet", image=[1.5, 2.5], label=[0, 1]),
    ),
    Case(
        "data set offline",
        "ddpm --pretrained_model_name_or_path {work}/ddpm --dataset_name user/none --forget_class 1",
        "user/none",
    ),
    Case(
        "data set of a bad name",
        "vit --model_name_or_path {work}/vit --dataset_name a/b/c/d --forget_class 1",
        "a/b/c/d",
    ),
    # ---- masks
    masks("not there", "m.safetensors is not a readable mask file", lambda folder: None),
    masks("of text", "is not a readable mask file", write("m.safetensors", "no masks")),
    masks("empty", "is not a readable mask file", write("m.safetensors", "")),
    masks("header of 2^60 bytes", "is not a readable mask file", huge_header("m.safetensors")),
    masks("a pickle", "is not a readable mask file", evil("m.safetensors")),
    masks("a folder", "is not a readable mask file", write("m.safetensors/x", "")),
    masks("of numbers", "holds no weight masks", tensors("m.safetensors", {"conv_in.weight": torch.zeros(3)})),
    masks("without any", "holds no weight masks", tensors("m.safetensors", {})),
    masks("of another model", "do not belong to this model", tensors("m.safetensors", {"w": torch.ones(3) > 0})),
    # ---- checkpoints
    resume(
        "not there",
        "does not exist or is not one",
        lambda folder: __import__("shutil").rmtree(folder / "checkpoint-1"),
    ),
    resume("state missing", "unlearn_state.json is missing", remove(STATE)),
    resume("state torn", "unlearn_state.json", cut(STATE)),
    resume("state is a list", "unlearn_state.json", write(STATE, "[]")),
    resume("state without keys", "unlearn_state.json", write(STATE, "{}")),
    resume("progress torn", "trainer_state.json", cut("checkpoint-1/trainer_state.json")),
    resume("progress is a list", "trainer_state.json", write("checkpoint-1/trainer_state.json", "[]")),
    resume("optimizer a pickle", "optimizer.pt", evil("checkpoint-1/optimizer.pt")),
    resume("optimizer torn", "optimizer.pt", cut("checkpoint-1/optimizer.pt")),
    resume("schedule a pickle", "scheduler.pt", evil("checkpoint-1/scheduler.pt")),
    resume("random state a pickle", "rng_state.pth", evil("checkpoint-1/rng_state.pth")),
    resume("random state torn", "rng_state.pth", cut("checkpoint-1/rng_state.pth")),
    resume("weights torn", "model.safetensors", cut("checkpoint-1/model.safetensors")),
    resume(
        "weights a pickle",
        "model.safetensors",
        evil("checkpoint-1/pytorch_model.bin", "checkpoint-1/model.safetensors"),
    ),
    resume(
        "weights of another model",
        "model.safetensors",
        tensors("checkpoint-1/model.safetensors", {"network.w": torch.zeros(3)}),
    ),
    resume("masks torn", "masks.safetensors", cut("checkpoint-1/masks.safetensors")),
    Case("checkpoint of another method", RESUME + " --method ssd", "was written with method"),
    Case("checkpoint of another seed of options", RESUME + " --forget_alpha 9", "was written with options"),
    Case(
        "latest of a strange name",
        DDPM + " --resume_from_checkpoint latest",
        "no checkpoint in",
        lambda folder: (folder.parent / "out/checkpoint-abc").mkdir(),
    ),
]
