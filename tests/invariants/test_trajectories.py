"""Two ways to the same weights: resumed and straight, workers, processes, wrappers that should do nothing."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import config, environment, same, tiny_pipeline, weights
from families import family_case
from safetensors.torch import load_file

from hf_unlearn import FineTune, NegGradPlus, SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.saliency.masks import Masks
from hf_unlearn.saliency.ranks import add_lora, choose_lora

ASCENT = dict(forget_loss="ascent", retain_steps=2)


def run(folder, images, method, resume=None, objective=None, **values):
    trainer = UnlearnTrainer(
        objective or tiny_pipeline(), config(folder, **values), method, *split_by_label(images, 1)
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "method",
    [
        SFRon(),
        SFRon(forget_optim="shared", slow_rate=0.5, slow_form="lookahead", **ASCENT),
        SFRon(slow_form="ema", slow_rate=0.3),
        SFRon(resist_relearning=0.5),
        SFRon(adversary=True),
    ],
    ids=["separate", "shared-lookahead", "ema", "resists", "adversary"],
)
def test_resumed_equals_straight(tmp_path, images, method, workers):
    """Four batches an epoch: step 3 is in the middle of one, step 7 in the second."""
    values = dict(max_steps=7, save_strategy="steps", save_steps=3, dataloader_num_workers=workers, eval_steps=3)
    values["learning_rate"] = None if method.adversary else config(tmp_path).learning_rate
    straight = run(tmp_path / "a", images, method, **values)
    resumed = run(tmp_path / "b", images, method, resume=str(tmp_path / "a/checkpoint-3"), **values)
    assert same(weights(straight), weights(resumed))
    assert not same(weights(straight), tiny_pipeline().unet.state_dict())


def test_resumed_equals_straight_with_accumulation_and_a_schedule(tmp_path, images):
    """Two steps an epoch of two micro-batches each; the linear schedule must go on where it was."""
    values = dict(gradient_accumulation_steps=2, max_steps=5, lr_scheduler_type="linear", save_strategy="steps")
    straight = run(tmp_path / "a", images, NegGradPlus(), save_steps=3, **values)
    checkpoint = str(tmp_path / "a/checkpoint-3")
    resumed = run(tmp_path / "b", images, NegGradPlus(), resume=checkpoint, save_steps=3, **values)
    assert same(weights(straight), weights(resumed))


def test_workers_change_nothing(tmp_path, images):
    assert same(*(weights(run(tmp_path, images, SFRon(), dataloader_num_workers=n)) for n in (0, 2)))


def test_one_seed_gives_the_same_bytes(tmp_path, images):
    for name in ("a", "b"):
        run(tmp_path / name, images, SFRon()).save_model()
    first, second = (tmp_path / n / "unet/diffusion_pytorch_model.safetensors" for n in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    other = run(tmp_path / "c", images, SFRon(), seed=1)
    assert not same(weights(other), load_file(first))


def test_masks_of_ones_are_no_masks(tmp_path, images):
    ones = Masks({n: torch.ones_like(p, dtype=torch.bool) for n, p in tiny_pipeline().unet.named_parameters()})
    masked = UnlearnTrainer(tiny_pipeline(), config(tmp_path), SFRon(), *split_by_label(images, 1), masks=ones)
    masked.train()
    assert same(weights(masked), weights(run(tmp_path, images, SFRon(use_mask=False))))


def test_update_and_gradient_masks_differ(tmp_path, images):
    values = [
        weights(run(tmp_path, images, SFRon(mask_mode=m, forget_optim="shared"))) for m in ("update", "gradient")
    ]
    assert not same(*values)


def test_without_resistance_to_relearning_nothing_looks_ahead(tmp_path, images, monkeypatch):
    """The same bytes whatever the look-ahead's rate, and no loss at other weights; with it, other bytes."""
    usual = run(tmp_path / "a", images, SFRon())
    resisting = run(tmp_path / "b", images, SFRon(resist_relearning=0.5))
    monkeypatch.setattr("hf_unlearn.methods.sfron.inner_gradient", None)
    off = run(tmp_path / "c", images, SFRon(resist_relearning=0.0, relearning_rate=0.1))
    assert same(weights(usual), weights(off)) and not same(weights(usual), weights(resisting))
    assert [trainer.step.method.batch_gradients for trainer in (off, resisting)] == [3, 5]


@pytest.mark.parametrize("rate", [None, 1e-3], ids=["found", "rate"])
@pytest.mark.parametrize(
    ("family", "options", "lora"),
    [
        ("unet", {"forget_loss": "match"}, False),
        ("unet", {"forget_loss": "ascent"}, False),
        ("vit", {"forget_loss": "unseen"}, False),
        ("sd", {}, True),
    ],
    ids=["match", "ascent", "unseen", "lora"],
)
def test_every_forget_loss_looks_ahead(tmp_path, family, options, lora, rate):
    """Masked-out weights stay, and the steps are others than without; an adapter's are the only ones that move."""
    found = []
    for resist in (0.0, 1.0):
        objective, *sets = family_case(family)
        if lora:
            add_lora(objective, choose_lora(objective, *sets, rank=2))
        method = SFRon(resist_relearning=resist, use_mask=True, **options)
        args = config(tmp_path, max_steps=3, learning_rate=rate, verify_mask_steps=1)
        trainer = UnlearnTrainer(objective, args, method, *sets)
        frozen = {n: p.clone() for n, p in objective.network.named_parameters() if not p.requires_grad}
        trainer.train()
        assert (trainer.step.strength is not None) == (rate is None)
        assert lora or (trainer.verify_mask() == 0 and trainer.masks.density < 1)
        now = dict(objective.network.named_parameters())
        assert all(torch.equal(now[n], p) for n, p in frozen.items()) and bool(frozen) == lora
        found.append(torch.cat([p.detach().flatten() for p in now.values() if p.requires_grad]))
    assert all(f.isfinite().all() for f in found) and not torch.equal(*found)


def test_beta_one_is_no_wrapper(tmp_path, images):
    """FineTune through FastSlow against the stock optimizer in its place."""

    class Stock(UnlearnTrainer):
        def create_optimizer(self, model=None):
            made = super().create_optimizer(model)
            self.optimizer = made.base
            return self.optimizer

    stock = Stock(tiny_pipeline(), config(tmp_path), FineTune(), None, split_by_label(images, 1)[1])
    stock.train()
    ours = UnlearnTrainer(tiny_pipeline(), config(tmp_path), FineTune(), None, split_by_label(images, 1)[1])
    ours.train()
    assert same(weights(stock), weights(ours)) and not ours.step.weights.has_slow
    slow = SFRon(slow_form="lookahead", slow_rate=0.5)
    unslow = SFRon(slow_form="lookahead", slow_rate=1.0)
    assert not same(weights(run(tmp_path, images, slow)), weights(run(tmp_path, images, unslow)))


def test_activation_checkpointing_changes_nothing(tmp_path, images):
    plain = weights(run(tmp_path, images, SFRon()))
    trainer = run(tmp_path, images, SFRon(), activation_checkpointing=True)
    assert any(getattr(module, "gradient_checkpointing", False) for module in trainer.objective.network.modules())
    saved = weights(trainer)
    assert max((plain[n] - saved[n]).abs().max().item() for n in plain) <= 1e-6


def test_masked_out_weights_stay_through_the_forget_phase(tmp_path, images):
    """AdamW with weight decay: 0 drift with mask_mode update, seen by verify_mask at every step."""
    values = dict(weight_decay=0.1, verify_mask_steps=1)
    for optim in ("separate", "shared"):
        trainer = run(tmp_path, images, SFRon(forget_optim=optim), **values)
        assert trainer.verify_mask() == 0 and 0 < trainer.masks.density < 1
        trainer.args.verify_mask_steps = 0  # then nobody would have looked
        assert trainer.verify_mask() is None
    assert run(tmp_path, images, SFRon(forget_optim="shared", mask_mode="gradient"), **values).verify_mask() > 1e-5


def test_micro_batches_draw_anew(tmp_path, images):
    """Two micro-batches of an accumulated step must not share noise."""
    seen = []
    values = config(tmp_path, gradient_accumulation_steps=2, max_steps=1)
    trainer = UnlearnTrainer(tiny_pipeline(), values, FineTune(), None, split_by_label(images, 1)[1])
    add = trainer.step.draws.add

    def watched(*args, **kwargs):
        made = add(*args, **kwargs)
        seen.append(made["noise"])
        return made

    trainer.step.draws.add = watched
    trainer.train()
    assert len(seen) == 2 and not torch.equal(*seen)


def launch(folder, methods: list[str], processes: int, *options) -> subprocess.CompletedProcess:
    """Run the methods, each in `folder`/METHOD, in a launch of this many processes.

    Started by torchrun: without MPI `accelerate launch --cpu --num_processes 2` starts one process.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    worker = Path(__file__).with_name("worker.py")
    done = subprocess.run(
        [*command, str(worker), str(folder), ",".join(methods), *map(str, options)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment(ACCELERATE_USE_CPU="true", HF_UNLEARN_TRACEBACK="1"),
    )
    assert f"world size {processes}" in done.stdout, done.stderr
    return done


def finished(*arguments) -> str:
    """Standard output of a launch that ends well."""
    done = launch(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_processes_equal_one(tmp_path):
    """gloo at the same global batch, adaptive weights over the global batch; then a stream is resumed.

    Step 3 of 4 is in the middle of the stream's second round: each process goes on with its own part.
    """
    methods = ["sfron", "ascent", "found", "found_ascent", "neg_grad_plus", "munba", "evaluated", "streamed"]
    methods[:0] = ["found_resists", "lur", "lur_first_order", "clu", "found_clu", "found_learns", "finetune_learns"]
    methods += ["found_adversary", "found_adversary_pair"]
    for processes in (1, 2):
        finished(tmp_path / str(processes), methods, processes, "--save_steps", 3)
    start = tiny_pipeline().unet.state_dict()
    for method in methods:
        one, two = (exported(tmp_path / str(processes) / method) for processes in (1, 2))
        most = (
            5e-6 if method.startswith("found_adversary") or method == "found_clu" else 1e-6
        )  # its samples lie where the network was never trained
        assert max((one[n] - two[n]).abs().max().item() for n in one) <= most, method
        assert max((one[n] - start[n]).abs().max().item() for n in one) > 1e-4, method
    checkpoint = tmp_path / "2/streamed/checkpoint-3"
    assert {path.name for path in checkpoint.glob("stream-*")} == {"stream-0.json", "stream-1.json"}
    two = exported(tmp_path / "2/streamed")
    finished(tmp_path / "2", ["streamed"], 2, "--save_steps", 3, "--resume", "checkpoint-3", "--into", "resumed")
    assert same(two, exported(tmp_path / "2/streamed/resumed"))


def test_divergence_in_two_processes_leaves_whole_weights(tmp_path):
    """All processes stop, and none ends before the last good weights are written: the launcher would kill the rest."""
    done = launch(tmp_path, ["diverges"], 2)
    assert done.returncode != 0 and done.stderr.count("DivergenceError: diverged at outer step 1") == 2
    saved = load_file(tmp_path / "diverges/last_good/unet/diffusion_pytorch_model.safetensors")
    assert same(saved, tiny_pipeline().unet.state_dict())


def test_forget_set_of_other_size_is_met_evenly(tmp_path, images):
    """20 samples, 5 to forget: in an epoch every forget sample is met the same number of times."""
    trainer = run(tmp_path, images, NegGradPlus())
    indices = [i % 5 for i in range(len(trainer.train_dataset))]
    assert len(trainer.train_dataset) == 16 and max(indices.count(i) for i in range(5)) <= 4


def exported(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "unet/diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    "methods",
    [
        ["sfron", "found", "found_clu"],
        pytest.param(["shared", "ema", "neg_grad_plus", "evaluated", "clu", "found_learns"], marks=pytest.mark.long),
    ],
    ids=["sfron", "others"],
)
def test_two_processes_that_share_the_weights_equal_one(tmp_path, methods):
    """FSDP2 against one process: masked step, frozen original, slow weights; the masks and the Fisher too."""
    single = finished(tmp_path / "1", methods, 1, "--files")
    sharded = finished(tmp_path / "2", methods, 2, "--files", "--fsdp", "--save_steps", 4)
    start = tiny_pipeline().unet.state_dict()
    for method in methods:
        masked = method != "neg_grad_plus"
        drift = 0.0 if masked else None  # without masks nobody looked
        for is_sharded, output in ((False, single), (True, sharded)):
            assert f"{method}: sharded {is_sharded} drift {drift}" in output
        one, two = (exported(tmp_path / n / method) for n in "12")
        assert max((one[n] - two[n]).abs().max().item() for n in one) <= 1e-6, method
        assert max((one[n] - start[n]).abs().max().item() for n in one) > 1e-4, method
        one, two = (load_file(tmp_path / n / method / "fisher.safetensors") for n in "12")
        assert all(torch.allclose(one[n], two[n], rtol=1e-5, atol=0) for n in one)
        assert max(one[n].max() for n in one) > 0
        if masked:
            one, two = (load_file(tmp_path / n / method / "masks.safetensors") for n in "12")
            assert all(torch.equal(one[n], two[n]) for n in one)


@pytest.mark.long
def test_resumed_equals_straight_with_shared_weights(tmp_path):
    """Each process writes its rows, in safetensors; on one process the checkpoint says how it was written."""
    methods = ["sfron", "found", "found_adversary", "ema", "found_clu"]
    finished(tmp_path, methods, 2, "--fsdp", "--save_steps", 2)
    resume = ("--save_steps", 2, "--resume", "checkpoint-2", "--into", "resumed")
    finished(tmp_path, methods, 2, "--fsdp", *resume)
    for method in methods:
        shards = tmp_path / method / "checkpoint-2/shards"
        assert len(list(shards.glob("*.safetensors"))) == 2 and not list(shards.parent.rglob("*.bin"))
        assert same(exported(tmp_path / method), exported(tmp_path / method / "resumed"))
    alone = launch(tmp_path, ["sfron"], 1, *resume[2:], "--into", "alone")
    assert alone.returncode != 0 and "was written with FSDP: resume with the same launch" in alone.stderr
