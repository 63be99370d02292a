"""Calls that could run what a file holds, found in source text."""

import ast

UNSAFE_YAML = {"load", "load_all", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all"}
UNPICKLING = {"load", "loads", "Unpickler"}
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# from_pretrained of these reads weights; of an Auto class it may also run code of the repository.
NO_WEIGHTS = ("Config", "Processor", "Tokenizer", "Scheduler", "cls")


def unsafe(source: str) -> list[str]:
    """Lines that no file of the project may have, as "line: what"."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {what}" for what in _problems(node)]
        if isinstance(node, ast.ImportFrom) and node.module in PICKLES and {a.name for a in node.names} & UNPICKLING:
            found.append(f"{node.lineno}: {node.module} reads pickles")
    return found


def _problems(call: ast.Call) -> list[str]:
    owner, name = _called(call.func)
    options = {k.arg: k.value for k in call.keywords}

    def given(option: str) -> object:
        return getattr(options[option], "value", "unknown") if option in options else "missing"

    said = []
    if owner in PICKLES and name in UNPICKLING:
        said.append(f"{owner}.{name}")
    if (owner, name) == ("torch", "load") and given("weights_only") is not True:
        said.append("torch.load without weights_only=True")
    if owner in ("np", "numpy") and name == "load" and given("allow_pickle") is not False:
        said.append("np.load without allow_pickle=False")
    if owner == "yaml" and name in UNSAFE_YAML:
        said.append(f"yaml.{name}")
    if owner == "" and name in ("eval", "exec", "compile", "__import__"):
        said.append(name)
    if (owner, name) in (("os", "system"), ("os", "popen")) or given("shell") not in ("missing", False):
        said.append("a shell")
    if name in ("extractall", "extract", "unpack_archive"):
        said.append(f"{name} of an archive")
    if name in ("from_pretrained", "from_config") and owner.startswith("Auto") and not owner.startswith("Autoencoder"):
        if given("trust_remote_code") is not False:
            said.append(f"{owner}.{name} without trust_remote_code=False")
    elif given("trust_remote_code") not in ("missing", False):
        said.append("trust_remote_code")
    if name == "from_pretrained" and not owner.endswith(NO_WEIGHTS) and given("use_safetensors") is not True:
        said.append(f"{owner}.{name} without use_safetensors=True")
    if name == "load_lora_weights" and given("use_safetensors") is not True:
        said.append("load_lora_weights without use_safetensors=True")
    return said


def _called(func: ast.expr) -> tuple[str, str]:
    """("torch", "load") of `torch.load`, ("", "eval") of `eval`; the last name before the dot of a longer one."""
    if isinstance(func, ast.Name):
        return "", func.id
    if isinstance(func, ast.Attribute):
        value = func.value
        owner = value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else "?"
        return owner, func.attr
    return "?", "?"
