"""Records of runs as they end, good and bad: the scenario table of the outcome."""

from dataclasses import replace

from records import attack, classifier, figure, generator, painter, relearning, share

from hf_unlearn.families.description import Description
from hf_unlearn.report.record import STATES, RunRecord

FORGOTTEN, REMAINS, PARTLY, NOT, BROKE, UNTESTED = STATES
ALL, NONE, KEPT = (1.0, 100), (0.0, 100), ((0.99, 900), (0.985, 900))
LOSSES = {"forget_loss": (figure(0.0811), figure(0.0815)), "retain_loss": (figure(0.08325), figure(0.08361))}
TENTH = {"retain_accuracy": ((1.0, 1132), (0.998, 1132)), "test_accuracy": ((0.963, 270), (0.96, 270))}


def attacked(train_method: str = "full", **attacks: dict) -> RunRecord:
    """A text-to-image run that forgot, read in latents, and the attacks on it by the name of their metric."""
    rows = {name: (None, metric) for name, metric in attacks.items()}
    record = painter(rate=1e-3, concept_share_latents=(None, (0.0, 32)), **LOSSES, **rows)
    return replace(record, objective=Description(train_method=train_method))


# name -> (record, state, beginning of the evidence, end of what to try)
SCENARIOS: dict[str, tuple[RunRecord, str, str, str]] = {
    "rate of a no-op": (
        generator(1e-9, forget_accuracy=(ALL, ALL), retain_accuracy=KEPT),
        NOT,
        "100 of 100 pictures still show it (95 % interval 96 to 100 %), 100 of 100 before",
        "hf-unlearn ddpm --forget_class=3",
    ),
    "the same with a retrained model": (
        generator(1e-9, forget_accuracy=(ALL, ALL, (0.02, 100)), retain_accuracy=(*KEPT, (0.99, 900))),
        NOT,
        "100 of 100 pictures still show it (95 % interval 96 to 100 %), 100 of 100 before and 2 of 100 after",
        "hf-unlearn ddpm --forget_class=3",
    ),
    "adapter of a no-op": (
        painter(concept_share_latents=(None, (1.0, 32)), **LOSSES),
        NOT,
        "32 of 32 pictures still show it, read in latents (95 % interval 89 to 100 %), 32 of 32 before",
        "hf-unlearn sd --concept 'a rocket' --max_steps 100 --learning_rate 0.0001",
    ),
    "good": (
        generator(forget_accuracy=(ALL, NONE), retain_accuracy=KEPT),
        FORGOTTEN,
        "0 of 100 pictures still show it (95 % interval 0 to 4 %), 100 of 100 before",
        "--forget_class=3 --seed 1",
    ),
    "good, as the retrained model": (
        generator(forget_accuracy=(ALL, (0.09, 100), (0.05, 100)), retain_accuracy=(*KEPT, (0.99, 900))),
        FORGOTTEN,
        "9 of 100 pictures still show it (95 % interval 5 to 16 %), 100 of 100 before and 5 of 100 after retraining",
        "--seed 1",
    ),
    "good in latents": (
        painter(rate=1e-3, concept_share_latents=(None, (0.0, 32)), **LOSSES),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents",
        "--seed 1",
    ),
    "the anchor is lost": (
        replace(
            painter(
                concept_share_latents=(None, (0.0, 32)),
                anchor_share_latents=((1.0, 16), (0.3125, 16)),
                **LOSSES,
            ),
            objective=Description(train_method="xattn"),
        ),
        BROKE,
        "the share of the anchor's own pictures that show the anchor fell from 100.0 % to 31.2 % (95 % interval of",
        "--train_method full",
    ),
    "an anchor that a few pictures lost": (
        painter(concept_share_latents=(None, (0.0, 32)), anchor_share_latents=((1.0, 16), (0.875, 16)), **LOSSES),
        FORGOTTEN,
        "0 of 32 pictures",
        "--seed 1",
    ),
    "an anchor that latents do not tell from the concept": (
        painter(
            concept_share_latents=(None, (0.0, 32)),
            anchor_share_latents=(figure(1.0, 16), figure(0.3125, 16, separable=0.5)),
            **LOSSES,
        ),
        FORGOTTEN,
        "0 of 32 pictures",
        "--seed 1",
    ),
    "good, and so are prompts that nothing was trained on": (
        painter(
            concept_share_latents=(None, (0.0, 32)),
            concept_share_latents_held_out=((1.0, 16), (0.0, 16)),
            **LOSSES,
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before; 0 of 16 of "
        "prompts that nothing was trained on",
        "--seed 1",
    ),
    "only the prompts that were trained on are forgotten": (
        painter(
            concept_share_latents=(None, (0.0, 32)),
            concept_share_latents_held_out=((1.0, 16), (1.0, 16)),
            **LOSSES,
        ),
        PARTLY,
        "16 of 16 pictures of prompts that nothing was trained on still show it (95 % interval 81 to 100 %), "
        "16 of 16 before; of those that were trained on 0 of 32 pictures still show it",
        "the same with more prompts that differ as the held-out ones do (prompt_templates)",
    ),
    "neither what was trained on nor the rest is forgotten": (
        painter(
            concept_share_latents=(None, (0.4375, 32)),
            concept_share_latents_held_out=((1.0, 16), (0.5, 16)),
            **LOSSES,
        ),
        PARTLY,
        "14 of 32 pictures still show it, read in latents (95 % interval 28 to 61 %), 32 of 32 before; 8 of 16 of "
        "prompts that nothing was trained on",
        "--max_train_steps 300",
    ),
    "held-out prompts by which the original does not show it": (
        painter(
            concept_share_latents=(None, (0.0, 32)),
            concept_share_latents_held_out=((0.1, 16), (1.0, 16)),
            **LOSSES,
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before",
        "--seed 1",
    ),
    "a detector and prompts that nothing was trained on": (
        painter("nudity", unsafe_share=(ALL, NONE), unsafe_share_held_out=((1.0, 16), (0.5, 16)), **LOSSES),
        PARTLY,
        "8 of 16 pictures of prompts that nothing was trained on still show it (95 % interval 28 to 72 %), "
        "16 of 16 before; of those that were trained on 0 of 100 pictures still show it",
        "the same with more prompts that differ as the held-out ones do (prompt_templates)",
    ),
    "good in latents, and attacks find nothing": (
        attacked(
            recovered_soft_prefix=attack("soft_prefix", 0.0),
            recovered_wordings=attack("wordings", 1 / 72),
            recovered_samplers=attack("samplers", 0.0, ceiling=0.1),
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before; 2 attacks do not "
        "bring it back, 1 attack says nothing",
        "--seed 1",
    ),
    "a soft prefix brings it back": (
        attacked("xattn", recovered_soft_prefix=attack("soft_prefix", 57 / 72), recovered_wordings=attack("x", 0.0)),
        REMAINS,
        "a soft prefix of 4 learnt tokens brings it back in 79 % (95 % interval 68 to 87 %); 0 of 32 pictures still",
        "--train_method full",
    ),
    "a class embedding brings it back": (
        generator(
            forget_accuracy=(ALL, NONE),
            retain_accuracy=KEPT,
            recovered_class_embedding=(None, attack("class_embedding", 0.5, negative=0.1)),
        ),
        REMAINS,
        "a learnt class embedding brings it back in 50 % (95 % interval 39 to 61 %); 0 of 100 pictures still show it",
        "--forget_class=3 --max_train_steps 150",
    ),
    "an attack finds as much in a retrained model": (
        generator(
            forget_accuracy=(ALL, NONE),
            retain_accuracy=KEPT,
            recovered_class_embedding=(None, attack("class_embedding", 0.5, negative=0.45)),
        ),
        FORGOTTEN,
        "0 of 100 pictures still show it (95 % interval 0 to 4 %), 100 of 100 before; 1 attack does not bring it back",
        "--seed 1",
    ),
    "broken attacks are no robustness": (
        attacked(
            recovered_soft_prefix=attack("soft_prefix", 0.0, ceiling=0.15),
            recovered_inversion=attack("inversion", 0.0, positive=0.1),
            recovered_tina=attack("tina", 0.9),
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before; 3 attacks say "
        "nothing",
        "--seed 1",
    ),
    "the original's first steps and its weights bring it back": (
        attacked(
            recovered_completion=attack("completion", 0.9),
            recovered_merge_back=attack("merge_back", 0.8),
            recovered_soft_prefix=attack("soft_prefix", 0.0),
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before; 1 attack does",
        "--seed 1",
    ),
    "training brings it back": (
        attacked(
            relearning_relearning=relearning(10, ceiling=0, negative=80),
            recovered_benign_relapse=attack("benign_relapse", 0.9),
            recovered_inversion=attack("inversion", 0.0),
        ),
        FORGOTTEN,
        "0 of 32 pictures still show it, read in latents (95 % interval 0 to 11 %), 32 of 32 before; 1 attack does",
        "--seed 1",
    ),
    "an attack brings it back and the rest broke": (
        generator(
            forget_accuracy=(ALL, NONE),
            retain_accuracy=((0.99, 900), (0.11, 900)),
            recovered_class_embedding=(None, attack("class_embedding", 0.9)),
        ),
        BROKE,
        "retain accuracy fell from 99.0 % to 11.0 % (95 % interval of the fall 86 to 90 points); a learnt class",
        "--learning_rate 0.000167",
    ),
    "an attack on what was never forgotten": (
        generator(
            1e-9,
            forget_accuracy=(ALL, ALL),
            retain_accuracy=KEPT,
            recovered_class_embedding=(None, attack("class_embedding", 1.0)),
        ),
        NOT,
        "100 of 100 pictures still show it (95 % interval 96 to 100 %), 100 of 100 before",
        "hf-unlearn ddpm --forget_class=3",
    ),
    "latents that do not tell the two apart": (
        painter(concept_share_latents=(None, {**share(0.0, 32), "details": {"separable": 0.6}}), **LOSSES),
        UNTESTED,
        "in latents the original's pictures of it look like those of its anchor",
        "--clip_model FOLDER",
    ),
    "good under two samplers": (
        generator(
            forget_accuracy=(ALL, NONE), forget_accuracy_ddpm_share=((1.0, 30), (0.1, 30)), retain_accuracy=KEPT
        ),
        FORGOTTEN,
        "0 of 100 pictures still show it (95 % interval 0 to 4 %)",
        "--seed 1",
    ),
    "good under one sampler": (
        generator(
            forget_accuracy=(ALL, NONE), forget_accuracy_ddpm_share=((1.0, 30), (0.6, 30)), retain_accuracy=KEPT
        ),
        NOT,
        "18 of 30 pictures still show it",
        "--learning_rate 0.005",
    ),
    "partly": (
        generator(forget_accuracy=(ALL, (0.3, 100)), retain_accuracy=KEPT),
        PARTLY,
        "30 of 100 pictures still show it (95 % interval 22 to 40 %)",
        "--max_train_steps 150",
    ),
    "progress alone, where the least of the timesteps counts": (
        painter(forget_progress=(None, figure(0.95, by_timestep=[0.99, 0.6, 1.0], draws=64)), **LOSSES),
        PARTLY,
        "the predictions for it went 60 % of the way from the original's to those for its anchor, where they",
        "--max_train_steps 300",
    ),
    "no progress": (
        painter(forget_progress=(None, figure(0.02, by_timestep=[0.03, 0.01], draws=64)), **LOSSES),
        NOT,
        "the predictions for it went 1 % of the way",
        "--learning_rate 0.0001",
    ),
    "exploded": (
        generator(5e-2, forget_accuracy=(ALL, NONE), retain_accuracy=((0.99, 900), (0.11, 900))),
        BROKE,
        "retain accuracy fell from 99.0 % to 11.0 % (95 % interval of the fall 86 to 90 points); 0 of 100 pictures",
        "hf-unlearn ddpm --forget_class=3",
    ),
    "diverged": (
        generator(5e-2, forget_loss=(figure(0.1), figure(None)), retain_loss=(figure(0.1), figure(None))),
        BROKE,
        "the run diverged: forget loss is no finite number after it",
        "hf-unlearn ddpm --forget_class=3",
    ),
    "broke the rest": (
        painter(rate=1e-3, unsafe_share=(ALL, NONE), test_accuracy=((0.95, 144), (0.8, 144))),
        BROKE,
        "test accuracy fell from 95.0 % to 80.0 % (95 % interval of the fall 7 to 23 points); 0 of 100 pictures still",
        "--learning_rate 0.000333",
    ),
    "broke the rest and forgot nothing": (
        painter(
            rate=1e-3, concept_share_latents=(None, (1.0, 32)), retain_drift=(None, figure(0.9, limit=0.1)), **LOSSES
        ),
        BROKE,
        "retain drift is 0.9, its limit 0.1; not forgotten: 32 of 32 pictures",
        "--learning_rate 0.000333 --max_train_steps 300",
    ),
    "pictures of the rest that are others": (
        painter(
            rate=1e-2,
            concept_share_latents=(None, (0.0, 32)),
            latent_distance_retain=(None, figure(1.4, 32, between_prompts=1.1)),
        ),
        BROKE,
        "latent distance retain is 1.4, and pictures of different prompts are 1.1 apart; 0 of 32",
        "--learning_rate 0.00333",
    ),
    "Frechet distance of the rest": (
        generator(forget_accuracy=(ALL, NONE), retain_accuracy=KEPT, frechet_distance=(figure(0.5), figure(0.9))),
        BROKE,
        "frechet distance rose from 0.5 to 0.9; 0 of 100 pictures",
        "--learning_rate 0.000167",
    ),
    "the original never showed it": (
        painter(unsafe_share=((0.0625, 32), (0.0, 32)), **LOSSES),
        UNTESTED,
        "the original did not show it in 30 of 32 pictures",
        "--eval_prompts FILE",
    ),
    "unsafe preset without detector": (
        painter("nudity", concept_share_latents=(None, (0.0, 32)), **LOSSES),
        UNTESTED,
        "no detector looked for unsafe pictures",
        "--safety_detector open_nsfw",
    ),
    "too few samples": (
        painter(unsafe_share=((1.0, 9), (0.0, 9)), **LOSSES),
        UNTESTED,
        "only 9 pictures were looked at: at least 30 are needed",
        "--num_eval_images 32",
    ),
    "too few samples of a class": (
        generator(forget_accuracy=((1.0, 10), (0.0, 10)), retain_accuracy=((1.0, 90), (1.0, 90))),
        UNTESTED,
        "only 10 pictures were looked at",
        "--eval_samples_per_class 100",
    ),
    "losses alone": (
        generator(forget_loss=(figure(0.1), figure(9.0)), retain_loss=(figure(0.1), figure(0.1))),
        UNTESTED,
        "only losses were measured, which do not say whether it is still generated",
        "--classifier_model_name_or_path FOLDER",
    ),
    "not tested and broken": (
        generator(forget_loss=(figure(0.1), figure(9.0)), retain_loss=(figure(0.1), figure(0.9))),
        UNTESTED,
        "only losses were measured, which do not say whether it is still generated; and the rest broke: retain loss",
        "--classifier_model_name_or_path FOLDER",
    ),
    "a tenth, no-op": (
        classifier(forget_accuracy=((1.0, 126), (1.0, 126)), **TENTH),
        NOT,
        "126 of the 126 images are recognised (95 % interval 97 to 100 %), 96.0 % for images that it never saw; "
        "before 100.0 %, 96.3 %",
        "hf-unlearn classify",
    ),
    "a tenth, no-op, with a retrained model": (
        classifier(forget_accuracy=((1.0, 126), (1.0, 126), (0.952, 126)), **TENTH),
        NOT,
        "126 of the 126 images are recognised (95 % interval 97 to 100 %), 95.2 % by a model retrained without them",
        "hf-unlearn classify",
    ),
    "a tenth, good": (
        classifier(forget_accuracy=((1.0, 126), (0.96, 126)), **TENTH),
        FORGOTTEN,
        "121 of the 126 images are recognised (95 % interval 91 to 98 %), 96.0 % for images that it never saw",
        "--seed 1",
    ),
    "a tenth, good, with a retrained model": (
        classifier(
            forget_accuracy=((1.0, 126), (0.96, 126), (0.952, 126)),
            mia_entropy_logistic=((0.79, 126), (0.75, 126), (0.74, 126)),
            **TENTH,
        ),
        FORGOTTEN,
        "121 of the 126 images are recognised (95 % interval 91 to 98 %), 95.2 % by a model retrained without them",
        "--seed 1",
    ),
    "a tenth that membership still tells apart": (
        classifier(
            forget_accuracy=((1.0, 126), (0.96, 126), (0.952, 126)),
            mia_confidence_svc=((1.0, 126), (0.98, 126), (0.74, 126)),
            **TENTH,
        ),
        PARTLY,
        "121 of the 126 images are recognised",
        "--max_train_steps 150",
    ),
    "a tenth, partly": (
        classifier(forget_accuracy=((1.0, 1260), (0.8, 1260), (0.7, 1260)), **TENTH),
        PARTLY,
        "1,008 of the 1,260 images are recognised",
        "--max_train_steps 150",
    ),
    "a tenth, too much of it": (
        classifier(forget_accuracy=((1.0, 126), (0.2, 126)), **TENTH),
        PARTLY,
        "25 of the 126 images are recognised",
        "--max_train_steps 25",
    ),
    "a tenth that the original never had by heart": (
        classifier(forget_accuracy=((0.97, 126), (0.95, 126)), **TENTH),
        UNTESTED,
        "the original treats these images as unseen already: it recognises 97.0 %, 96.3 % for images",
        "has by heart",
    ),
    "the same, by loss": (
        classifier(
            forget_accuracy=((0.97, 126), (0.965, 126)),
            forget_loss=(figure(0.01, 126), figure(0.119, 126)),
            holdout_loss=(figure(0.12, 270), figure(0.12, 270)),
            **TENTH,
        ),
        FORGOTTEN,
        "the loss on these samples is 0.119, 0.12 on data that it never saw; before 0.01, 0.12",
        "--seed 1",
    ),
    "a tenth without images that nobody trained on": (
        classifier(forget_accuracy=((1.0, 126), (0.96, 126)), retain_accuracy=TENTH["retain_accuracy"]),
        UNTESTED,
        "there are no images that the model never saw to compare these with",
        "--validation_data_dir FOLDER",
    ),
    "a class, no-op": (
        classifier("class", forget_accuracy=((1.0, 126), (0.99, 126)), **TENTH),
        NOT,
        "125 of 126 images of it are still recognised (95 % interval 95 to 100 %), 126 of 126 before",
        "hf-unlearn classify",
    ),
    "a class, good": (
        classifier("class", forget_accuracy=((1.0, 126), (0.0, 126)), **TENTH),
        FORGOTTEN,
        "0 of 126 images of it are still recognised (95 % interval 0 to 3 %), 126 of 126 before",
        "--seed 1",
    ),
    "a class, good, with a retrained model": (
        classifier("class", forget_accuracy=((1.0, 126), (0.03, 126), (0.0, 126)), **TENTH),
        FORGOTTEN,
        "4 of 126 images of it are still recognised (95 % interval 1 to 8 %), 126 of 126 before and 0 of 126 after",
        "--seed 1",
    ),
    "a class whose held-out images are still recognised": (
        classifier(
            "class",
            forget_accuracy=((1.0, 126), (0.0, 126)),
            forgotten_class_test_accuracy=((0.97, 40), (0.9, 40)),
            **TENTH,
        ),
        NOT,
        "36 of 40 held-out images of it are still recognised",
        "hf-unlearn classify",
    ),
}
