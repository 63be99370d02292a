"""Retain sets that are streamed: the trajectory of a set in memory, resumed runs, disjoint parts, what is refused."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from conftest import config, random_images, same, tiny_pipeline, weights
from PIL import Image

from hf_unlearn import FineTune, SFRon, UnlearnTrainer, fisher, split_by_label
from hf_unlearn.data.sources import load_images, stream_images
from hf_unlearn.data.streaming import RetainStream, StreamedPairs
from hf_unlearn.families import NoisePrediction
from hf_unlearn.saving.checkpoints import seal

SCRIPT = Path(__file__).parents[1] / "scripts/unlearn_ddpm.py"


@pytest.fixture
def shards(tmp_path) -> list[str]:
    """The 15 samples that are not of class 1, in three parquet files."""
    retain = split_by_label(random_images(), 1)[1]
    paths = []
    for number in range(3):
        items = [retain[i] for i in range(number * 5, number * 5 + 5)]
        rows = {
            "pixels": [i["pixel_values"].flatten().tolist() for i in items],
            "labels": [int(i["labels"]) for i in items],
        }
        paths.append(str(tmp_path / f"{number}.parquet"))
        datasets.Dataset.from_dict(rows).to_parquet(paths[-1])
    return paths


def stream(shards):
    rows = datasets.load_dataset("parquet", data_files={"train": shards}, split="train", streaming=True)
    return rows.map(as_item, remove_columns=["pixels"])


def as_item(row):
    return {"pixel_values": torch.tensor(row["pixels"]).view(1, 8, 8), "labels": torch.tensor(row["labels"])}


def run(folder, retain, method, resume=None, **values):
    forget = split_by_label(random_images(), 1)[0]
    trainer = UnlearnTrainer(tiny_pipeline(), config(folder, **values), method, forget, retain)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_streamed_equals_in_memory(tmp_path, shards):
    """Three batches of four in the same order, masks from all 15 samples."""
    method = SFRon(retain_steps=1)
    held = split_by_label(random_images(), 1)[1]
    values = dict(max_steps=3, train_sampling_strategy="sequential")
    in_memory = run(tmp_path, held, method, **values)
    streamed = run(tmp_path, stream(shards), method, **values)
    assert same(weights(in_memory), weights(streamed))
    assert not same(weights(streamed), tiny_pipeline().unet.state_dict())
    made = json.loads(streamed.masks.metadata["retain"])
    assert made["chosen"] == "the first of a stream" and made["samples"] == "15"
    assert "chosen" not in json.loads(streamed.masks.metadata["forget"])


@pytest.mark.parametrize("method", [SFRon(), FineTune()], ids=["sfron", "finetune"])
def test_resumed_equals_straight(tmp_path, shards, method):
    """15 samples: at step 3 of sfron's 8 samples a step the stream is in its second round, in the middle of a file."""
    values = dict(max_steps=5, save_strategy="steps", save_steps=3)
    straight = run(tmp_path / "a", stream(shards), method, **values)
    place = json.loads((tmp_path / "a/checkpoint-3/stream-0.json").read_text())
    assert place["given"] == 12 and place["epoch"] == (12 * method.retain_batches) // 15
    resumed = run(tmp_path / "b", stream(shards), method, str(tmp_path / "a/checkpoint-3"), **values)
    assert same(weights(straight), weights(resumed))
    place["rows"] = None  # the test would see a stream that begins afresh
    (tmp_path / "a/checkpoint-3/stream-0.json").write_text(json.dumps(place))
    seal(tmp_path / "a/checkpoint-3")
    afresh = run(tmp_path / "c", stream(shards), method, str(tmp_path / "a/checkpoint-3"), **values)
    assert not same(weights(straight), weights(afresh))


def first_pixels(items) -> list[float]:
    return [round(s["pixel_values"][0, 0, 0].item(), 5) for item in items for s in item["retain"]]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_see_disjoint_samples(shards, world):
    """Three files: for three processes whole ones, for two every other sample. Together they see everything once."""
    forget = split_by_label(random_images(), 1)[0]
    parts = []
    for rank in range(world):
        pairs = iter(StreamedPairs(forget, RetainStream(stream(shards)), 1, 1, rank, world))
        parts.append(first_pixels(next(pairs) for _ in range(15 // world)))
    everything = [round(s["pixel_values"][0, 0, 0].item(), 5) for s in stream(shards)]
    seen = sum(parts, [])
    assert len(set(seen)) == len(seen) == 15 // world * world and set(seen) <= set(everything)


def test_forget_samples_are_those_of_the_global_batch():
    """Two processes of two samples a batch: places 0 1 | 2 3, then 4 5 | 6 7, of five forget samples."""
    rows = datasets.Dataset.from_dict({"x": list(range(40))}).to_iterable_dataset(num_shards=2)
    rows = rows.map(lambda row: {"pixel_values": torch.zeros(1, 8, 8)}, remove_columns=["x"])
    forget = split_by_label(random_images(), 1)[0]
    met = []
    for rank in range(2):
        pairs = iter(StreamedPairs(forget, RetainStream(rows), 1, 2, rank, 2))
        met.append([next(pairs)["forget"]["index"] for _ in range(4)])
    assert met == [[0, 1, 4, 0], [2, 3, 1, 2]]


def test_fisher_of_a_stream_is_that_of_its_first_samples(shards):
    held = split_by_label(random_images(), 1)[1]
    objective = NoisePrediction(tiny_pipeline())
    first = torch.utils.data.Subset(held, range(6))
    ours, metadata = fisher(objective, RetainStream(stream(shards)), forget=False, max_samples=6, batch_size=4)
    theirs, _ = fisher(objective, first, forget=False, max_samples=0, batch_size=4)
    assert all(torch.equal(ours[n], theirs[n]) for n in ours) and metadata["samples"] == "6"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: (rows.shuffle(seed=1, buffer_size=8), {}), "store the shards shuffled"),
        (lambda rows: (rows, {"dataloader_num_workers": 1}), "dataloader_num_workers=0"),
        (lambda rows: (rows, {"eval_strategy": "epoch"}), "eval_retain_dataset"),
        (lambda rows: (rows.filter(lambda row: False), {}), "stream is empty"),
        (lambda rows: (torch.utils.data.ChainDataset([]), {}), "datasets.IterableDataset"),
    ],
)
def test_refused_at_construction(tmp_path, shards, change, words):
    rows, values = change(stream(shards))
    with pytest.raises(ValueError, match=words):
        UnlearnTrainer(
            tiny_pipeline(), config(tmp_path, **values), SFRon(), split_by_label(random_images(), 1)[0], rows
        )


def test_a_stream_is_resumed_as_it_was_run(tmp_path, shards):
    pairs = StreamedPairs(None, RetainStream(stream(shards)), 1, 2, 0, 2)
    next(iter(pairs))
    alone = StreamedPairs(None, RetainStream(stream(shards)), 1, 2)
    with pytest.raises(ValueError, match="world 2, this run has 1"):
        alone.restart(pairs.state())
    run(tmp_path / "a", split_by_label(random_images(), 1)[1], FineTune(), save_strategy="steps", save_steps=2)
    with pytest.raises(ValueError, match="this run has|where this process was"):
        run(tmp_path / "b", stream(shards), FineTune(), str(tmp_path / "a/checkpoint-2"))


def test_no_sample_of_all_is_no_number(shards):
    with pytest.raises(ValueError, match="fisher_samples"):
        RetainStream(stream(shards)).first(0)


@pytest.fixture
def folders(tmp_path):
    """A tiny pipeline, one image of class 1 to forget, and shards of images of the others: parquet, webdataset."""
    tiny_pipeline().save_pretrained(tmp_path / "model")
    pictures = [Image.fromarray(np.full((8, 8), 10 * i, dtype=np.uint8)) for i in range(6)]
    (tmp_path / "forget/1").mkdir(parents=True)
    (tmp_path / "forget/0").mkdir()
    pictures[0].save(tmp_path / "forget/1/0.png")
    pictures[1].save(tmp_path / "forget/0/0.png")
    rows = {"image": pictures, "label": [2, 3] * 3}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    (tmp_path / "parquet").mkdir()
    datasets.Dataset.from_dict(rows, features=kinds).to_parquet(str(tmp_path / "parquet/0.parquet"))
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars/0.tar", "w") as tar:
        for i, picture in enumerate(pictures):
            stored = io.BytesIO()
            picture.save(stored, "PNG")
            for name, content in ((f"{i}.png", stored.getvalue()), (f"{i}.cls", str(2 + i % 2).encode())):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "columns"),
    [("parquet", {}), ("tars", {"image_column": "png", "label_column": "cls"})],
)
def test_shards_stream_as_they_load(folders, kind, columns):
    """The same pixels and labels as the whole set in memory."""
    streamed = list(stream_images(folders / kind, 8, 1, **columns))
    held = load_images(folders / kind, 8, 1, **columns)
    assert len(streamed) == len(held) == 6
    for ours, theirs in zip(streamed, (held[i] for i in range(6))):
        assert torch.equal(ours["pixel_values"], theirs["pixel_values"]) and ours["labels"] == theirs["labels"]
    with pytest.raises(ValueError, match="column 'picture' is not in the data"):
        stream_images(folders / kind, 8, 1, image_column="picture")


def test_the_script_streams(folders, run_script):
    words = ["--pretrained_model_name_or_path", folders / "model", "--train_data_dir", folders / "parquet"]
    words += ["--forget_data_dir", folders / "forget", "--max_train_steps", 2, "--train_batch_size", 2]
    words += ["--num_inference_steps", 2, "--fisher_samples", 4, "--streaming", "--output_dir", folders / "out"]
    code, _, error = run_script(SCRIPT, *words)
    assert code == 0, error
    written = json.loads((folders / "out/unlearning_report.json").read_text())
    assert written["method"]["name"] == "sfron" and (folders / "out/unet/config.json").is_file()
    code, _, error = run_script(SCRIPT, "--streaming", "--forget_class", 1)
    assert code == 2 and "--forget_data_dir" in error
