"""Records, cards, recipes, adapters and folders to publish."""

from corpus import Case
from spoil import bomb, cut, edit, evil, link, many, remove, with_record, write

RECORD = "run/unlearning_report.json"
PICTURE = "run/before_after.png"
RECIPE = dict(
    name="tiny", data="digits", model="digits_vit", forget={"fraction": 0.1}, methods=["finetune"], seeds=[0]
)


def recipe(what: str, says: str, text: str | bytes | None = None, **changes) -> Case:
    import yaml

    content = yaml.safe_dump({**RECIPE, **changes}) if text is None else text
    return Case(f"recipe {what}", "compare {work}/r.yaml", says, write("r.yaml", content))


REQUESTS = dict(model="digits_vit", data="digits", tasks=[[0, 1], [2, 3]], steps=1, requests=["0R"])


def requests(what: str, says: str, text: str | bytes | None = None, **changes) -> Case:
    import yaml

    content = yaml.safe_dump({**REQUESTS, **changes}) if text is None else text
    return Case(f"requests {what}", "requests run --file {work}/q.yaml", says, write("q.yaml", content))


def record(name: str, says: str, spoil, call: str = "report {work}/run") -> Case:
    return Case(f"record {name}", call, says, spoil)


def publish(name: str, says: str, spoil, folder: str = "vit") -> Case:
    return Case(f"publish {name}", f"publish {{work}}/{folder} user/x --dry_run", says, spoil)


CASES = [
    record("missing", "holds no unlearning_report.json", remove(RECORD)),
    record("torn", "is not a record of a run", cut(RECORD)),
    record("no text", "is not a record of a run", write(RECORD, b"\xff\xfe")),
    record("a list", "is not a record of a run", write(RECORD, "[]")),
    record("deep", "is not a record of a run", write(RECORD, "[" * 100_000)),
    record("of a newer schema", "upgrade hf-unlearn", with_record(schema_version=99)),
    record("schema is a word", "schema", with_record(schema_version="1")),
    record("figures of numbers", "figures", with_record(figures={"after": 3})),
    record("figure without value", "figures", with_record(figures={"after": {"forget_accuracy": {}}})),
    record(
        "figure of words",
        "figures",
        with_record(figures={"after": {"forget_accuracy": {"value": "low", "definition": "d", "samples": 3}}}),
    ),
    record("log of numbers", "log", with_record(log=[1, 2])),
    record("log of words", "log", with_record(log=[{"step": 1, "loss": "low"}])),
    record("log without steps", "log", with_record(log=[{"loss": 0.5}])),
    record("classes of nothing", "per_class", with_record(per_class=[{}])),
    record("mask of words", "mask", with_record(mask={"density": "half", "drift": 0, "layers": [["a", 1, 0.5]]})),
    record("mask rows of one", "mask", with_record(mask={"density": 0.5, "drift": 0, "layers": [["a"]]})),
    record("data of numbers", "data", with_record(data={"forget": 3})),
    record("cost of words", "cost", with_record(cost={"seconds": "long"})),
    record("adapter of nothing", "adapter", with_record(adapter={"rank": 3})),
    record("history of words", "history", with_record(history=["once"])),
    record("picture outside", "not a file in the run's folder", with_record(picture="../../secret.png")),
    record(
        "picture no picture", "is not a picture", many(with_record(picture="before_after.png"), write(PICTURE, "text"))
    ),
    record("picture of a bomb", "before_after.png", many(with_record(picture="before_after.png"), bomb(PICTURE))),
    record(
        "picture a link to outside",
        "before_after.png",
        many(with_record(picture="before_after.png"), write("secret.png", "x"), link(PICTURE, "secret.png")),
    ),
    record("page into a folder", "is a folder", lambda folder: None, "report {work}/run --output {work}/run"),
    record(
        "page below a file", "cannot be written", write("file", "x"), "report {work}/run --output {work}/file/r.html"
    ),
    record("torn, for check", "is not a record of a run", cut(RECORD), "check {work}/run --max-forget 0.1"),
    record(
        "of words, for check",
        "figures",
        with_record(figures={"after": {"forget_accuracy": {"value": "low", "definition": "d", "samples": 3}}}),
        "check {work}/run --max-forget 0.1",
    ),
    record(
        "cost of words, for check", "cost", with_record(cost={"seconds": "long"}), "check {work}/run --max-seconds 3"
    ),
    # ---- two models side by side
    Case(
        "original is not here",
        "demo {work}/run",
        "say where it is with --original",
        with_record(base_model={"name": "gone", "revision": None, "on_hub": False}),
    ),
    Case(
        "original outside",
        "demo {work}/run",
        "base_model",
        with_record(base_model={"name": "../../other", "revision": None, "on_hub": False}),
    ),
    Case("original of another kind", "demo {work}/run --original {work}/ddpm", "the original"),
    Case("original without a name", "demo {work}/run", "base_model", with_record(base_model={})),
    Case(
        "unlearned model a pickle",
        "demo {work}/run --original {work}/vit",
        "safetensors",
        evil("run/pytorch_model.bin", "run/model.safetensors"),
    ),
    Case("unlearned model torn", "demo {work}/run --original {work}/vit", "run", cut("run/model.safetensors")),
    # ---- comparisons
    Case("recipe not there", "compare {work}/none.yaml", "neither a YAML file nor one of"),
    recipe("torn", "r.yaml", "seeds: [0"),
    recipe("no text", "r.yaml", b"\xff\xfe"),
    recipe("deep", "r.yaml", "[" * 5000),
    recipe("an object", "r.yaml", "name: !!python/object/apply:os.mkdir ['RAN']"),
    recipe("a list", "is not a mapping", "- a"),
    recipe("unknown key", "unknown key 'budgets'", budgets=3),
    recipe("methods in one word", "methods", methods="sfron"),
    recipe("seeds of words", "seeds", seeds=["zero"]),
    recipe("one seed for a list", "seeds", seeds=3),
    recipe("budget of words", "budget", budget="large"),
    recipe("name that leaves the folder", "name", name="../escaped"),
    recipe("forget a list", "forget", forget=["fraction"]),
    recipe("fraction of words", "fraction", forget={"fraction": "half"}),
    recipe("classes of one", "classes", forget={"classes": 3}),
    recipe("model that is not there", "nowhere", model="{work}/nowhere"),
    recipe("data that is not there", "nowhere", data="./nowhere"),
    recipe("training options unknown", "steps", train={"steps": 3}),
    Case("jobs -1", "compare digits_vit_class3 --jobs -1", "jobs"),
    # ---- variants of slow-learnt images
    Case("augment at strength 2", "augment --strength 2", "strength must lie in (0, 1)"),
    Case("augment by nothing", "augment --factor 0", "factor must be at least 2"),
    Case("augment without data", "augment --model_name_or_path {work}/vit", "set --train_dir to the images"),
    # ---- requests one after another
    Case("requests without a ledger", "requests", "holds no ledger of requests"),
    Case("requests without a setup", "requests add 0R", "name model, data and tasks in a --file"),
    Case("requests for another action", "requests status 0R", "requests are for add, not for status"),
    Case("ledger torn", "requests", "torn or no JSON", write("../out/ledger.json", '{"version": 1, "ent')),
    Case("ledger of a newer version", "requests", "upgrade hf-unlearn", write("../out/ledger.json", '{"version": 9}')),
    requests("torn", "q.yaml", "requests: [0"),
    requests("a list", "is not a mapping", "- a"),
    requests("unknown key", "unknown key 'epochs'", epochs=3),
    requests("tasks of words", "tasks[0]", tasks=["zero"]),
    requests("class in two tasks", "class 1 is in two tasks", tasks=[[0, 1], [1, 2]]),
    requests("class that is not there", "class 12 has no training sample", tasks=[[0, 12]]),
    requests("unknown method", "method 'magic' is not one of", method="magic"),
    requests("unknown option", "unexpected keyword argument 'speed'", options={"speed": 3}),
    requests("unknown task", "there is no task 5", requests=["5R"]),
    requests("never learnt", "task 1 was never learnt", requests=["0R", "1F"]),
    requests("learnt twice", "task 0 is learnt already", requests=["0R", "0R"]),
    requests(
        "both at once",
        "to be learnt and forgotten",
        requests=["0T", {"learn": {"tasks": [0]}, "forget": {"classes": [0]}}],
    ),
    requests("memory too small", "fewer than the 2 classes", memory={"samples": 1}),
    requests("memory of words", "unknown key 'many'", memory={"many": 1}),
    requests("no request", "names no data", requests=[{"learn": {"tasks": []}}]),
    # ---- what is published
    publish("torn", "is torn or no safetensors file", cut("vit/model.safetensors")),
    publish("a pickle", "weights only as pytorch_model.bin", evil("vit/pytorch_model.bin", "vit/model.safetensors")),
    publish("config is a list", "config.json", write("vit/config.json", "[]")),
    publish(
        "card a link to outside", "README.md", many(write("secret.txt", "key"), link("vit/README.md", "secret.txt"))
    ),
    publish(
        "part outside",
        "secret",
        many(edit("ddpm/model_index.json", **{"../secret": ["diffusers", "X"]}), write("secret/config.json", "{}")),
        "ddpm",
    ),
    publish(
        "index that leads outside",
        "outside.safetensors",
        many(
            write("vit/model.safetensors.index.json", '{"weight_map": {"a": "../outside.safetensors"}}'),
            remove("vit/model.safetensors"),
        ),
    ),
    publish(
        "index of nothing",
        "index.json",
        many(write("vit/model.safetensors.index.json", "{}"), remove("vit/model.safetensors")),
    ),
    publish("index model of empty parts", "model_index.json", edit("ddpm/model_index.json", unet=[]), "ddpm"),
    Case("attack of nothing", "attack {work}/nowhere", "nowhere"),
    Case("attack of a folder without a record", "attack {work}/vit", "unlearning_report.json"),
    Case("export of nothing", "export {work}/nowhere --format kohya", "nowhere"),
    Case("export of a classifier", "export {work}/vit --format single_file", "has no layout in a single file"),
    Case("attack from one seed", "attack {work}/vit --seeds 3", "at least two different ones"),
    Case("estimate of nothing", "estimate {work}/nowhere --no_time", "nowhere"),
    Case("estimate of a torn configuration", "estimate {work}/vit --no_time", "config.json", cut("vit/config.json")),
    Case(
        "estimate of foreign code",
        "estimate {work}/sd --no_time",
        "its code would run",
        edit("sd/model_index.json", unet=["os", "system"]),
    ),
    Case("estimate at batch 0", "estimate {work}/vit --batch_size 0", "batch_size must be at least 1"),
    Case("estimate without budget", "estimate {work}/vit --rank_budget nan", "rank_budget must lie in (0, 1]"),
]
