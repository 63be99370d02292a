"""hf-unlearn attack RUN_DIR: try to bring back what a finished run forgot.

hf-unlearn attack without-rockets
hf-unlearn attack without-rockets --suite full --images photos-of-rockets
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

from ..attacks.flags import SEEDS, AttackFlags
from ..terminal import CommandParser, check_writable


def attack_command(argv: list[str]) -> None:
    """hf-unlearn attack RUN_DIR"""
    parser = CommandParser(
        prog="hf-unlearn attack",
        description="Try to bring back what a finished run forgot, beside the same attacks on the original (the "
        "ceiling) and on controls. The results go into the run's record, card and page; a call that was stopped goes "
        "on where it was.",
    )
    parser.add_argument("run_dir", help="Output folder of a run, with its unlearning_report.json.")
    parser.add_argument("--suite", choices=("quick", "full"), default="quick", help="Short or all attacks.")
    parser.add_argument("--attacks", nargs="+", metavar="NAME", help="These attacks alone, such as soft_prefix.")
    parser.add_argument("--images", help="Folder of pictures of it; without them the original draws some.")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS, help="At least two; the default is 0 1.")
    parser.add_argument("--samples", type=int, help="Images from each seed; default 15 of quick, 36 of full.")
    parser.add_argument("--original", help="Folder or Hub id of the original; the default is what the run recorded.")
    parser.add_argument(
        "--retrained_model",
        "--retrained",
        nargs="+",
        default=(),
        help="Models trained without the forget data: the negative control, and what classifiers are compared with.",
    )
    parser.add_argument("--classifier_model_name_or_path", help="Classifier that reads classes: folder or Hub id.")
    parser.add_argument("--classifier_revision", help="Hub revision of that classifier.")
    parser.add_argument("--clip_model", help="CLIPModel that reads concepts, instead of the latents of the original.")
    parser.add_argument(
        "--safety_detector", choices=("open_nsfw", "nudenet"), help="What reads unsafe concepts; default the run's."
    )
    parser.add_argument(
        "--never_concept", help="A concept that the model never learnt, the negative control; needs --clip_model."
    )
    parser.add_argument("--never_images", help="Folder of pictures of --never_concept.")
    parser.add_argument("--concept", help="The concept to attack; the default is the first one of the run.")
    parser.add_argument("--anchor_concept", help="What --concept was to be replaced by.")
    parser.add_argument("--retain_prompts", nargs="+", help="Prompts of what stayed; the default is the run's.")
    parser.add_argument("--forget_class", help="The class to attack, name or number; the default is the run's first.")
    parser.add_argument(
        "--neighbours",
        nargs="?",
        const="",
        metavar="FILE",
        help="Also say which neighbours moved: the prompts or classes of a .txt file, else those that lie nearest.",
    )
    parser.add_argument("--train_data_dir", help="Where the training images of a classifier's run are now.")
    parser.add_argument("--validation_data_dir", help="Where its held-out images are now.")
    parser.add_argument("--json", action="store_true", help="Print the outcome and what the attacks found as JSON.")
    options = parser.parse_args(argv)
    flags = AttackFlags(**{field.name: getattr(options, field.name) for field in fields(AttackFlags)})
    from ...report.cards import updated_card
    from ...report.reading import read_record

    record = read_record(options.run_dir)
    from ..attacks.attacking import attack_run, attacks_table

    check_writable(options.run_dir)
    updated_card(Path(options.run_dir), record)  # one that cannot be updated is said before anything is drawn
    record, said = attack_run(record, options.run_dir, flags)
    from ...common.bars import phase
    from ...evaluation.metric import is_attack
    from ...report.outcome import outcome
    from ..finish import renew

    phase("writing the report")
    written = renew(options.run_dir, record)
    if options.json:
        after = record.figures["after"].items()
        found = {name: metric.as_dict() for name, metric in after if is_attack(name)}
        print(json.dumps({"outcome": asdict(outcome(record)), "notes": said, "attacks": found}))
        return
    print("".join(f"{line}\n" for line in said) + f"{outcome(record).line}\n\n{attacks_table(record)}\n")
    print(f"{', '.join(str(Path(options.run_dir) / name) for name in written)} say it too.")
