"""What a Hub may answer: nothing, errors, other things than asked for. One line, exit code 2, nothing lost."""

from pathlib import Path

import pytest
from conftest import tiny_pipeline, tiny_vit
from hub_routes import Repo
from huggingface_hub import constants
from spoil import Spoiler, cut, edit, evil, write
from test_inputs import call, contents  # noqa: F401  (a fixture)

from hf_unlearn.common.errors import redact

UNET = "unet/diffusion_pytorch_model.safetensors"
DDPM = "unlearn_ddpm --pretrained_model_name_or_path user/ddpm --train_data_dir {work} --forget_class 1"
DDPM += " --output_dir {out}"
VIT = "unlearn_classification --model_name_or_path user/vit --train_dir {work} --forget_class 1 --output_dir {out}"
SALIENCY = "hf-unlearn saliency user/{} --output {{out}}/masks.safetensors"
PUBLISH = "hf-unlearn publish {work} user/new"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(root / "ddpm")
    tiny_vit().save_pretrained(root / "vit")
    return root


@pytest.fixture
def asked(hub, tmp_path, monkeypatch, call):  # noqa: F811
    """`asked(folder, argv)`: `folder` is on the Hub as user/NAME; the call's (exit code, output, error)."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("transformers.utils.hub.TRANSFORMERS_CACHE", str(tmp_path / "cache"), raising=False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setenv("DISABLE_SAFETENSORS_CONVERSION", "1")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/model.safetensors").write_bytes(b"weights of an earlier run")
    monkeypatch.chdir(tmp_path / "out")

    def run(folder: Path, line: str) -> tuple[int, str, str]:
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        hub.repos[f"user/{folder.name}"] = Repo(private=False)
        hub.repos[f"user/{folder.name}"].commit("main", files)
        before = contents(tmp_path / "out")
        result = call([word.format(out=tmp_path / "out", work=folder) for word in line.split()])
        assert contents(tmp_path / "out") == before and not list(tmp_path.rglob("RAN"))
        return result

    return run


def refused(result: tuple[int, str, str], says: str) -> None:
    code, output, error = result
    lines = [line for line in error.splitlines() if "error:" in line]
    assert code == 2 and len(lines) == 1 and "Traceback" not in error, output + error
    assert says in lines[0].split("error:", 1)[1] and lines[0] == redact(lines[0]) and len(lines[0]) < 900, lines[0]


@pytest.mark.parametrize(
    ("model", "line", "spoil", "says"),
    [
        ("ddpm", DDPM.replace("user/ddpm", "user/none"), None, "the Hub has no user/none"),
        ("vit", VIT.replace("user/vit", "user/none"), None, "the Hub has no user/none"),
        ("ddpm", SALIENCY.format("none"), None, "the Hub has no user/none"),
        ("ddpm", DDPM + " --revision v9", None, "set --revision"),
        ("vit", VIT + " --revision v9", None, "set --revision"),
        ("ddpm", DDPM, write("model_index.json", "{"), "model_index.json"),
        ("ddpm", DDPM, write("model_index.json", "<html>busy</html>"), "model_index.json"),
        (
            "ddpm",
            SALIENCY.format("ddpm"),
            edit("model_index.json", scheduler=["own", "DDIMScheduler"]),
            "not of diffusers",
        ),
        ("ddpm", DDPM, cut("unet/config.json"), "config.json"),
        ("ddpm", DDPM, cut(UNET), "user/ddpm"),
        # Which part diffusers misses first depends on the order of a set.
        ("ddpm", DDPM, evil("unet/diffusion_pytorch_model.bin", UNET), "user/ddpm"),
        ("vit", VIT, write("config.json", "[]"), "user/vit"),
        ("vit", VIT, cut("model.safetensors"), "user/vit"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_what_is_on_the_hub_is_no_model(models, asked, tmp_path, model, line, spoil: Spoiler | None, says):
    import shutil

    folder = tmp_path / model
    shutil.copytree(models / model, folder)
    if spoil:
        spoil(folder)
    refused(asked(folder, line), says)


@pytest.mark.parametrize(
    ("line", "method", "path", "how", "says"),
    [
        (DDPM, "HEAD", "model_index", {"status": 403}, "user/ddpm"),
        (DDPM, "HEAD", "model_index", {"status": 500}, "user/ddpm"),
        (DDPM, "HEAD", "model_index", {"status": 0}, "user/ddpm"),
        (DDPM, "GET", "model_index", {"status": 200}, "user/ddpm"),
        (VIT, "HEAD", "config.json", {"status": 401}, "user/vit"),
        (VIT, "HEAD", "config.json", {"status": 0}, "user/vit"),
        (PUBLISH, "POST", "/api/repos/create", {"status": 200}, "user/new"),
        (PUBLISH, "GET", "/api/models/", {"status": 200}, "user/new"),
        (PUBLISH, "POST", "/commit/", {"status": 200}, "user/new"),
        (PUBLISH, "POST", "/preupload/", {"status": 200}, "user/new"),
    ],
)
def test_the_hub_answers_something_else(hub, models, asked, line, method, path, how, says):
    """Errors, a cut line, and answers of status 200 that lack what was asked for."""
    fault = hub.fail(method, path, times=99, **how)
    refused(asked(models / ("vit" if line in (VIT, PUBLISH) else "ddpm"), line), says)
    assert fault.reached.is_set()


def test_nobody_listens(hub, models, asked, monkeypatch):
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", closed)
    files = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", closed + "".join(files[1:]))
    for model, line in (("ddpm", DDPM), ("vit", VIT)):
        refused(
            asked(models / model, line), f"user/{model} is no folder here, the cache does not hold it, and the Hub"
        )
