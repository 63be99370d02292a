"""Publishing to a Hub on loopback: what goes up, what never does, what a stranger loads, and every way it can fail."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest
from conftest import config, random_images, tiny_pipeline, tiny_sd, tiny_vit
from hub_routes import Repo
from hub_server import READER, TOKEN
from huggingface_hub import HfApi, constants
from safetensors.numpy import save_file
from test_cards import a_record

from hf_unlearn import SFRon, UnlearnTrainer, split_by_label
from hf_unlearn.__main__ import main
from hf_unlearn.common.errors import redact
from hf_unlearn.common.weights import weights_digest
from hf_unlearn.hub.contents import read_contents
from hf_unlearn.hub.upload import publish
from hf_unlearn.report.cards import write_card

WRONG = "hf_" + "wRoNgToKeN9mN1pQ3sT5vX7zA2cD4fG6hJk"
CARD = "---\nlibrary_name: diffusers\ntags: [hf-unlearn]\n---\n# A card\n"
BESIDE = ["README.md", "before_after.png", "figures.json", "figures.md", "unlearning_report.json", "report.html"]
BESIDE = [".eval_results/digits.yaml", "verdict.svg", *BESIDE]
SD = ["model_index.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer.json"]
SD += ["tokenizer/tokenizer_config.json", "text_encoder/config.json", "text_encoder/model.safetensors"]
SD += [f"{part}/{file}" for part in ("unet", "vae") for file in ("config.json", "diffusion_pytorch_model.safetensors")]
EXPECTED = {
    "ddpm": ("pipeline", [name for name in SD if name.split("/")[0] in ("model_index.json", "scheduler", "unet")]),
    "sd": ("pipeline", SD),
    "classifier": ("model", ["config.json", "model.safetensors", "preprocessor_config.json"]),
    "adapter": ("adapter", ["adapter_config.json", "adapter_model.safetensors"]),
    "lora": ("adapter", ["pytorch_lora_weights.safetensors"]),
}


def weights(path: Path, size: int = 8, seed: int = 0) -> Path:
    """A safetensors file of `size` random bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"w": np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)}, path)
    return path


def add_what_runs_leave(folder: Path) -> None:
    """The files of a finished run that are for others, and those that never are."""
    for name in BESIDE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(CARD if name == "README.md" else "{}")
    for name in ("masks.safetensors", "fisher_forget.safetensors", "profile.safetensors", "best.safetensors"):
        weights(folder / name)
    for name in ("checkpoint-2/model.safetensors", "cache/masks/0.safetensors", "last_good/unet/model.safetensors"):
        weights(folder / name)
    for name in ("checkpoint-2/trainer_state.json", "checkpoint-2/optimizer.pt"):
        (folder / name).write_text("{}")
    for name in ("checkpoint-2/adapter_config.json", "optimizer.pt", "training_args.bin"):
        (folder / name).write_text("{}")
    for name in ("stages.json", "unlearn_state.json", "trainer_state.json", "forget_indices.txt", "model.partial"):
        (folder / name).write_text("{}")
    (folder / "runs").mkdir()
    (folder / "runs/events.out.tfevents").write_text("")
    if (folder / "unet").is_dir():
        weights(folder / "unet/masks.safetensors")
        (folder / "unet/diffusion_pytorch_model.bin").write_text("")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """One of each kind as a run leaves it, and `base`, what the adapter is for."""
    from peft import LoraConfig, get_peft_model
    from transformers import ViTImageProcessorPil

    root = tmp_path_factory.mktemp("results")
    tiny_pipeline(seed=1).save_pretrained(root / "ddpm")
    tiny_sd(seed=1).save_pretrained(root / "sd")
    tiny_vit(seed=1).save_pretrained(root / "classifier")
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(root / "classifier")
    tiny_vit(seed=2).save_pretrained(root / "base")
    lora = get_peft_model(tiny_vit(seed=2), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    lora.save_pretrained(root / "adapter")
    weights(root / "lora/pytorch_lora_weights.safetensors")
    for name in EXPECTED:
        add_what_runs_leave(root / name)
    return root


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(*arguments)` is `hf-unlearn publish` in this process: (exit code, standard output, error)."""

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-unlearn", "publish", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return call


def environment(url: str, home: Path, **more: str) -> dict[str, str]:
    """Of a process that knows nothing but the address of the Hub."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    return {
        **kept,
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
        **more,
    }


# ---- what is uploaded -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_for_others_is_named(folders, name):
    kind, files = EXPECTED[name]
    contents = read_contents(folders / name)
    assert (contents.kind, list(contents.files)) == (kind, sorted([*files, *BESIDE]))
    assert contents.size == sum((folders / name / file).stat().st_size for file in contents.files)
    more = set(read_contents(folders / name, include_masks=True).files) - set(contents.files)
    assert more == {"masks.safetensors", "fisher_forget.safetensors"}


def test_shards_and_several_adapters(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big/config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    shards = [weights(tmp_path / f"big/model-0000{i}-of-00002.safetensors").name for i in (1, 2)]
    index = tmp_path / "big/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    weights(tmp_path / "big/model-00003-of-00003.safetensors")  # of another save
    assert read_contents(tmp_path / "big").files == ("config.json", *shards, index.name)
    for name in ("", "van_gogh", "cache"):
        weights(tmp_path / "adapters" / name / "adapter_model.safetensors")
        (tmp_path / "adapters" / name / "adapter_config.json").write_text("{}")
    both = ("adapter_config.json", "adapter_model.safetensors")
    assert read_contents(tmp_path / "adapters").files == (*both, *(f"van_gogh/{name}" for name in both))


def test_what_is_not_finished_is_refused(folders, tmp_path):
    def changed(name: str, change) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folders / name, folder)
        change(folder)
        return folder

    def only_pickled(folder: Path) -> None:
        (folder / "unet/diffusion_pytorch_model.safetensors").unlink()

    def pickled(folder: Path) -> None:
        (folder / "pytorch_lora_weights.safetensors").rename(folder / "pytorch_lora_weights.bin")

    def torn(folder: Path) -> None:
        os.truncate(folder / "model.safetensors", 9000)

    def bare(folder: Path) -> None:
        (folder / "vae/diffusion_pytorch_model.safetensors").unlink()

    for folder, message in (
        (tmp_path / "nowhere", "is not a folder"),
        (changed("ddpm", lambda f: (f / "model_index.json").unlink()), "no model_index.json (pipeline), config.json"),
        (changed("ddpm", only_pickled), "weights only as diffusion_pytorch_model.bin: save them as safetensors"),
        (changed("sd", bare), "is not a finished result: it has no diffusion_pytorch_model.safetensors"),
        (changed("sd", lambda f: shutil.rmtree(f / "unet")), "names unet, which is not there"),
        (changed("classifier", torn), "model.safetensors is torn or no safetensors file"),
        (changed("classifier", lambda f: (f / "config.json").write_text("{")), "config.json is torn or no JSON"),
        (changed("classifier", lambda f: shutil.copytree(folders / "adapter", f, dirs_exist_ok=True)), "mix them"),
        (changed("classifier", lambda f: (f / "model.safetensors.index.json").write_text("{}")), "remove the older"),
        (changed("lora", lambda f: (f / "pytorch_lora_weights.safetensors").unlink()), "is not a finished result"),
        (changed("lora", pickled), "has weights only as pytorch_lora_weights.bin: save them as safetensors"),
        (folders / "ddpm/unet", "is one part of a pipeline"),
        (folders / "ddpm/checkpoint-2", "is a checkpoint, not a finished result: give the folder above it"),
        (folders / "ddpm/cache", "is not a finished result"),
    ):
        with pytest.raises(ValueError) as caught:
            read_contents(folder)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has no masks.* to include"):
        read_contents(folders / "base", include_masks=True)


# ---- there and back -------------------------------------------------------------------------------------

LOAD = """
import json, sys
from diffusers import StableDiffusionPipeline, UNet2DModel
from peft import PeftModel
from transformers import AutoImageProcessor, AutoModelForImageClassification
from hf_unlearn import load_ddpm_pipeline
from hf_unlearn.common.weights import weights_digest
sd = StableDiffusionPipeline.from_pretrained("user/sd")
base = AutoModelForImageClassification.from_pretrained(sys.argv[1])
AutoImageProcessor.from_pretrained("user/classifier", backend="pil")
loaded = {
    "unet": UNet2DModel.from_pretrained("user/ddpm", subfolder="unet"),
    "ddpm": load_ddpm_pipeline("user/ddpm").unet,
    "sd": sd.unet,
    "vae": sd.vae,
    "text_encoder": sd.text_encoder,
    "classifier": AutoModelForImageClassification.from_pretrained("user/classifier"),
    "adapter": PeftModel.from_pretrained(base, "user/adapter"),
}
print(json.dumps({name: weights_digest(module) for name, module in loaded.items()}))
"""


def test_a_stranger_loads_the_same_bytes(hub, folders, command, tmp_path):
    """Everything is pushed by the command; a fresh process without a token or cache loads it by its id."""
    for name, (kind, files) in EXPECTED.items():
        code, output, error = command(folders / name, f"user/{name}", "--json")
        assert code == 0, error
        done = json.loads(output)
        assert (done["repo"], done["kind"], done["changed"], done["private"]) == (f"user/{name}", kind, True, False)
        assert done["url"] == f"{hub.url}/user/{name}" and done["commit"] == hub.repos[f"user/{name}"].commits[-1][0]
        published = hub.files(f"user/{name}")
        assert sorted(published) == done["files"] == sorted([*files, *BESIDE])
        assert all(content == (folders / name / path).read_bytes() for path, content in published.items())

    script = [sys.executable, "-c", LOAD, str(folders / "base")]
    fresh = subprocess.run(script, env=environment(hub.url, tmp_path / "home"), capture_output=True, text=True)
    assert fresh.returncode == 0, fresh.stderr
    theirs = json.loads(fresh.stdout.splitlines()[-1])
    from peft import PeftModel

    sd = tiny_sd(seed=1)
    ours = {"unet": tiny_pipeline(seed=1).unet, "ddpm": tiny_pipeline(seed=1).unet, "sd": sd.unet, "vae": sd.vae}
    ours |= {"text_encoder": sd.text_encoder, "classifier": tiny_vit(seed=1)}
    ours["adapter"] = PeftModel.from_pretrained(tiny_vit(seed=2), folders / "adapter")
    assert theirs == {name: weights_digest(module) for name, module in ours.items()}
    cached = list((tmp_path / "home").rglob("snapshots/*/**/*.safetensors"))
    assert len(cached) == 6 and {path.read_bytes() for path in cached} <= set(hub.storage.values())


def test_the_command_alone_and_its_help(hub, folders, tmp_path):
    """By subprocess, as a user would; the token comes from the stored login."""
    (tmp_path / "token").write_text(TOKEN)
    run = [sys.executable, "-m", "hf_unlearn", "publish"]
    env = environment(hub.url, tmp_path)
    done = subprocess.run([*run, folders / "ddpm", "user/plain"], env=env, capture_output=True, text=True)
    assert done.returncode == 0 and TOKEN not in done.stdout + done.stderr, done.stderr
    assert done.stdout.startswith(f"{hub.url}/user/plain: pipeline of 12 files, commit ")
    assert len(hub.files("user/plain")) == 12
    heavy = "import sys; sys.argv = ['hf-unlearn', 'publish', '--help']\nimport hf_unlearn.__main__ as m\n"
    heavy += "try: m.main()\nexcept SystemExit as stop: assert stop.code == 0\n"
    heavy += "print(sorted({'torch', 'transformers', 'diffusers', 'huggingface_hub'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True)
    assert "usage: hf-unlearn publish" in done.stdout and done.stdout.endswith("[]\n"), done.stderr


def test_an_unchanged_folder_is_not_sent_again(hub, folders, command):
    assert command(folders / "sd", "user/sd")[0] == 0
    sent, commits = len(hub.seen("PUT")), len(hub.repos["user/sd"].commits)
    code, output, _ = command(folders / "sd", "user/sd", "--json")
    assert code == 0 and json.loads(output)["changed"] is False
    assert (len(hub.seen("PUT")), len(hub.repos["user/sd"].commits)) == (sent, commits) == (3 + 1, 2)
    assert not any("authorization" in map(str.lower, request.headers) for request in hub.seen("PUT"))


def test_a_changed_card_is_a_commit_without_weights(hub, folders, command, tmp_path):
    shutil.copytree(folders / "classifier", tmp_path / "out")
    assert command(tmp_path / "out", "user/classifier")[0] == 0
    sent = len(hub.seen("PUT"))
    (tmp_path / "out/README.md").write_text(CARD + "More.\n")
    code, output, _ = command(tmp_path / "out", "user/classifier", "--json")
    assert code == 0 and json.loads(output)["changed"] and len(hub.seen("PUT")) == sent
    assert hub.files("user/classifier")["README.md"].endswith(b"More.\n")


def test_the_card_of_a_run_loads_from_where_it_is_published(hub, folders, command, tmp_path):
    """One that a person wrote stays as it is; so does ours if nothing is published."""
    shutil.copytree(folders / "ddpm", tmp_path / "out")
    record = a_record()
    record.write(tmp_path / "out")
    card = write_card(tmp_path / "out", record)
    card.write_text(card.read_text() + "\nWhat others added.\n")
    ours = card.read_text()
    assert command(tmp_path / "out", "user/renamed", "--dry_run")[0] == 0 and card.read_text() == ours
    assert '"out"' in ours and "user/renamed" not in ours
    assert command(tmp_path / "out", "user/renamed")[0] == 0
    pushed = hub.files("user/renamed")["README.md"].decode()
    assert 'from_pretrained("user/renamed"' in pushed and '"out"' not in pushed and "What others added." in pushed
    card.write_text("# Written by hand\n")
    assert command(tmp_path / "out", "user/renamed")[0] == 0
    assert hub.files("user/renamed")["README.md"] == b"# Written by hand\n"


def test_weights_that_would_be_loaded_instead_are_removed(hub, folders, command):
    """The original, pushed earlier as shards, as a variant, as a pickle; everything else in the repository stays."""
    repo = HfApi(token=TOKEN).create_repo("user/again").repo_id
    old = [
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "adapter_config.json",
    ]
    old += ["model.fp16.safetensors"]
    kept = ["notes.md", "model-card.json", "onnx/model.onnx", "sub/model.fp16.safetensors", "masks.safetensors"]
    hub.repos[repo].commit("main", {name: b"old" for name in (*old, *kept)})
    code, output, _ = command(folders / "classifier", repo)
    assert code == 0 and all(f"removed {name}, which" in output for name in old)
    assert set(hub.files(repo)) == {*kept, *EXPECTED["classifier"][1], *BESIDE}


def test_a_gitignore_in_the_repository_leaves_nothing_out(hub, folders, command):
    hub.repos["user/ignoring"] = Repo(private=False)
    hub.repos["user/ignoring"].commit("main", {".gitignore": b"*.safetensors figures.*"})
    assert command(folders / "ddpm", "user/ignoring")[0] == 0
    assert set(hub.files("user/ignoring")) == {".gitignore", *EXPECTED["ddpm"][1], *BESIDE}


def test_options_of_the_command(hub, folders, command):
    code, output, _ = command(folders / "lora", "user/x", "--dry_run", "--include_masks")
    expected = sorted([*EXPECTED["lora"][1], *BESIDE, "masks.safetensors", "fisher_forget.safetensors"])
    assert code == 0 and output.splitlines() == expected and not hub.requests
    code, output, _ = command(
        *(folders / "lora", "closed", "--private", "--revision", "v2", "--include_masks", "--token", TOKEN, "--json")
    )
    done = json.loads(output)
    assert (done["repo"], done["private"], done["revision"]) == ("user/closed", True, "v2")
    assert sorted(hub.files("user/closed", "v2")) == expected and hub.files("user/closed") == {}


# ---- what goes wrong ------------------------------------------------------------------------------------


def big_pipeline(folder: Path) -> Path:
    """Two parts with weights of 1 kB and 8 MB."""
    parts = {"small": 1 << 10, "large": 8 << 20}
    for name, size in parts.items():
        weights(folder / name / "diffusion_pytorch_model.safetensors", size, seed=size)
        (folder / name / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    (folder / "model_index.json").write_text(json.dumps({name: ["diffusers", "UNet2DModel"] for name in parts}))
    return folder


def storage_path(file: Path) -> str:
    return f"/storage/{hashlib.sha256(file.read_bytes()).hexdigest()}"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_killed_upload_leaves_nothing_and_the_next_sends_what_is_missing(hub, command, tmp_path, sent, code):
    folder = big_pipeline(tmp_path / "out")
    small, large = (storage_path(folder / n / "diffusion_pytorch_model.safetensors") for n in ("small", "large"))
    held = hub.fail("PUT", large, status=0, after=1 << 20, hold=True)
    run = [sys.executable, "-m", "hf_unlearn", "publish", str(folder), "user/killed"]
    process = subprocess.Popen(run, env=environment(hub.url, tmp_path, HF_TOKEN=TOKEN), stderr=subprocess.DEVNULL)
    assert held.reached.wait(60)
    while small not in {f"/storage/{oid}" for oid in hub.storage}:  # it goes up beside the large one
        assert process.poll() is None
    process.send_signal(sent)
    assert process.wait(20) == code
    assert len(hub.repos["user/killed"].commits) == 1 and hub.files("user/killed") == {} and len(hub.storage) == 1

    code, output, error = command(folder, "user/killed", "--json")
    assert code == 0 and json.loads(output)["changed"], error
    assert len(hub.files("user/killed")) == 5
    assert (len(hub.seen("PUT", small)), len(hub.seen("PUT", large))) == (1, 2)


def test_a_fault_in_the_middle_is_tried_again(hub, folders, command, monkeypatch):
    waited = []
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    hub.fail("PUT", "/storage/", status=500)
    hub.fail("PUT", "/storage/", status=0, after=1000)
    hub.fail("POST", "/preupload/", status=503)
    code, _, error = command(folders / "ddpm", "user/ddpm")
    assert code == 0 and len(waited) == 3, error
    assert len(hub.seen("PUT")) == 2 + 2 and len(hub.files("user/ddpm")) == 12


@pytest.mark.parametrize(
    ("method", "path", "how", "message"),
    [
        ("POST", "/api/repos/create", {"status": 500}, "failed (500): publish again"),
        pytest.param(
            "POST", "/api/validate-yaml", {"status": 0}, "cannot be reached or hung up", marks=pytest.mark.long
        ),
        pytest.param("POST", "/preupload/", {"status": 502, "times": 9}, "failed (502)", marks=pytest.mark.long),
        pytest.param("POST", "/objects/batch", {"status": 500, "times": 9}, "failed (500)", marks=pytest.mark.long),
        ("PUT", "/storage/", {"status": 500, "times": 99}, "failed (500)"),
        ("PUT", "/storage/", {"status": 0, "after": 2000, "times": 99}, "cannot be reached or hung up"),
        pytest.param("POST", "/objects/verify", {"status": 404, "times": 9}, "(404)", marks=pytest.mark.long),
        ("POST", "/commit/", {"status": 500}, "failed (500): publish again"),
        ("POST", "/commit/", {"status": 0}, "cannot be reached or hung up"),
        ("POST", "/commit/", {"status": 409, "text": f"busy, Bearer {TOKEN}"}, "(409)"),
        ("POST", "/commit/", {"status": 400, "text": f"you sent {WRONG}"}, "(400)"),
        pytest.param("GET", "/api/models/", {"status": 429}, "failed (429)", marks=pytest.mark.long),
    ],
)
def test_a_fault_that_stays_is_one_line_and_no_commit(hub, folders, command, monkeypatch, method, path, how, message):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    fault = hub.fail(method, path, **how)
    code, output, error = command(folders / "ddpm", "user/ddpm")
    lines = [line for line in error.splitlines() if "hf-unlearn: error:" in line]
    assert fault.reached.is_set() and code == 2 and output == "" and len(lines) == 1 and message in lines[0], error
    assert TOKEN not in error and WRONG not in error and "Traceback" not in error
    assert "user/ddpm" not in hub.repos or hub.files("user/ddpm") == {}
    fault.times = 0
    assert command(folders / "ddpm", "user/ddpm")[0] == 0 and len(hub.files("user/ddpm")) == 12
    successes = [request for request in hub.seen("PUT") if request.status == 200]
    assert len(successes) == len({request.path for request in successes}) == 2  # nothing was sent twice


def closed_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_what_the_user_can_mend_is_one_line(hub, folders, command, monkeypatch, tmp_path):
    ddpm = folders / "ddpm"
    HfApi(token=TOKEN).create_repo("user/public")
    hub.repos["other/repo"] = hub.repos["user/public"]
    shutil.copytree(folders / "lora", tmp_path / "leaky")
    (tmp_path / "leaky/README.md").write_text(CARD + TOKEN)
    shutil.copytree(folders / "lora", tmp_path / "bad_card")
    (tmp_path / "bad_card/README.md").write_text("---\na: [\n---\n")
    requests = len(hub.requests)
    for arguments, message in (
        ([tmp_path, "user/x"], "is not a finished result"),
        ([ddpm, "user/x/y"], "is no Hub id: user/name"),
        ([ddpm, "user/a--b"], "is no Hub id"),
        ([ddpm, TOKEN + "/x y"], "is no Hub id"),
        ([ddpm], "the following arguments are required: repo"),
        ([ddpm, "user/x", "--tokn", TOKEN], "unrecognized arguments: --tokn <token>"),
        ([ddpm, "user/x", "--token", TOKEN + "\nx"], "holds a space or another character"),
        ([ddpm, "user/x", "--token", "geheim\N{LATIN SMALL LETTER U WITH DIAERESIS}"], "another character"),
        ([tmp_path / "leaky", "user/x"], "README.md holds a Hub token: take it out and revoke"),
    ):
        code, output, error = command(*arguments)
        assert code == 2 and message in error and len(error.splitlines()) == 1 and TOKEN not in error, error
    assert len(hub.requests) == requests  # all found before the Hub was asked
    for arguments, message in (
        ([ddpm, "user/x", "--token", WRONG], "does not know the token (401)"),
        ([ddpm, "user/x", "--token", READER], "may not write to user/x (403)"),
        ([ddpm, "user/public", "--token", READER], "may not write to user/public (403)"),
        ([ddpm, "other/repo"], "may not write to other/repo (403)"),
        ([ddpm, "user/public", "--private"], "user/public is there and public"),
        ([tmp_path / "bad_card", "user/x"], "Invalid metadata in README.md"),
    ):
        code, output, error = command(*arguments)
        assert code == 2 and output == "" and message in error and len(error.splitlines()) == 1, error
        assert not any(token in error for token in (TOKEN, WRONG, READER))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, error = command(ddpm, "user/x")
    assert code == 2 and "offline mode is enabled" in error and len(error.splitlines()) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", closed_port())
    code, _, error = command(ddpm, "user/x")
    assert code == 2 and "cannot be reached" in error and len(error.splitlines()) == 1
    monkeypatch.delenv("HF_TOKEN")
    code, _, error = command(ddpm, "user/x")
    assert code == 2 and "no Hub token: log in with" in error and len(error.splitlines()) == 1


def test_an_error_holds_no_token_even_with_its_traceback(hub, folders):
    """Also one that looks like no token, which the Hub repeats in its answer."""
    secret = "a-token-of-another-kind"
    hub.tokens[secret] = ("user", True)
    hub.fail("POST", "/commit/", status=400, text=f"Bearer {secret} may not")
    with pytest.raises(OSError) as caught:
        publish(folders / "lora", "user/x", secret)
    assert "Bearer <token> may not" in str(caught.value)
    assert secret not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_redact(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "the-environment")
    assert redact(f"a {TOKEN}, hf_unlearn-without-nudity-or-violence, hf_hub_download") == (
        "a <token>, hf_unlearn-without-nudity-or-violence, hf_hub_download"
    )
    assert redact("the-environment and secret!", "secret", None, "") == "<token> and <token>!"
    assert redact("hf_oauth_eyJhbGciOiJFZERTQSJ9.eyJz-x_y tail") == "<token> tail"
    assert redact("no", "n") == "no"


# ---- from Python ----------------------------------------------------------------------------------------


def trainer_of(folder: Path, **values) -> UnlearnTrainer:
    forget, retain = split_by_label(random_images(), 3)
    settings = dict(push_to_hub=True, hub_model_id="user/trained", hub_token=TOKEN, max_steps=2, save_steps=1)
    given = config(folder, save_strategy="steps", **{**settings, **values})
    return UnlearnTrainer(tiny_pipeline(), given, SFRon(fisher_samples=4), forget, retain)


def test_the_trainer_publishes_what_it_saved_and_no_checkpoint(hub, tmp_path):
    trainer = trainer_of(tmp_path / "out", report_to="tensorboard", logging_steps=1)
    assert len(hub.seen("POST", "/create")) == 1 and trainer.hub_model_id == "user/trained"
    trainer.train()
    assert (tmp_path / "out/checkpoint-1/masks.safetensors").is_file() and not hub.seen("PUT")
    trainer.save_model()
    assert sorted(hub.files("user/trained")) == sorted(EXPECTED["ddpm"][1])
    done = trainer.push_to_hub(include_masks=True)
    assert set(hub.files("user/trained")) == {*EXPECTED["ddpm"][1], "masks.safetensors"} and done.changed
    assert len(hub.seen("POST", "/create")) == 3  # before training, and by each publish
    trainer.reference.masks = None
    with pytest.raises(ValueError, match="sfron has no masks"):
        trainer.push_to_hub(include_masks=True)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path
    assert TOKEN not in repr(trainer.args) + str(trainer.args.to_dict())


def test_a_trainer_with_a_wrong_token_is_not_even_made(hub, tmp_path):
    for token, message in ((WRONG, "does not know the token"), (READER, "may not write to user/trained")):
        with pytest.raises(OSError, match=message):
            trainer_of(tmp_path, hub_token=token)
    assert not hub.storage and not list(tmp_path.rglob("*.safetensors"))
