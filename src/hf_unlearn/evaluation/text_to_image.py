"""Measure a text-to-image model before and after, on images of the same prompts and seeds.

The images stay in the cache unchanged. The contact sheets, which may be published, show unsafe ones blurred.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..common.identity import identity_of
from ..common.keys import code_key
from ..families import side_of
from ..families.concepts import Concept
from ..families.latents import Cache, Drawing
from .clip import CLIPScore
from .concept_share import ConceptLatents, anchor_share_latents, concept_share_latents
from .extras import why_missing
from .fidelity import NEIGHBOURS, feature_distance, fidelity, latent_distance, latents_of, suffix_of
from .inception import InceptionV3
from .metric import ANCHOR_SHARE, Metric
from .metric import HELD_OUT_PROMPTS as HELD_OUT
from .perceptual import LPIPS
from .picture_prompts import ConceptPairs, PictureFlags, concept_pairs_to_draw, held_out_pairs, prompt_sets
from .prompt_files import PromptRow, StoredPictures, contact_sheet, draw_prompt_file
from .safety import DETECTORS, Verdict, share_of, verdicts
from .vision_features import VisionFeatures

NEIGHBOUR_PROMPTS = 16  # retained prompts that CLIP chooses from beside a concept's and its anchor's
ON_SHEET = 36  # images of the forget and of the retain prompts each
SHEET_SIDE = 256  # pixels of an image on it


class PictureEvaluation:
    """Load the networks that measure, generate images with each model, and compare "before" with "after".

    Args:
        retain_prompts: prompts of what must stay, used if the flags name no file.

    Raises:
        ValueError: a prompt file cannot be used, a file holds other weights, or there are too few retained images.
        OSError: something that the flags name is not installed or does not exist.
    """

    def __init__(self, flags: PictureFlags, concepts: Sequence[Concept], retain_prompts: Sequence[str], seed: int = 0):
        self.sets = prompt_sets(flags, concepts, retain_prompts, seed)
        self.pairs, self.seed = concept_pairs_to_draw(flags, concepts, seed), seed
        # Prompts that nothing is trained on: latents read the ones, a detector the others.
        self.held_out, unsafe = (held_out_pairs(flags, concepts, seed, blurred) for blurred in (False, True))
        # Anchors of held-out prompts where there are some, else of the others: those that are drawn after it too.
        anchored = self.held_out or self.pairs
        self.stay = anchored.anchors_that_stay(concepts) if anchored else []
        self.paths: dict[tuple[str, str], list[Path]] = {}
        self.found: dict[tuple[str, str], list[Verdict]] = {}
        # Of the images of each model and kind that are compared so, by the VAE of the first model.
        self.latents: dict[tuple[str, str], torch.Tensor] = {}
        self.vae: Any = None
        self.left_out: list[str] = []
        self.sampler: dict[str, Any] = {}  # what generated the pictures
        files = {"forget": flags.eval_prompts, "retain": flags.eval_retain_prompts}
        self.seeds = {
            kind: None if file else seed for kind, file in files.items()
        }  # the rows of a file have their own
        self.drawn_with: dict[str, Any] = {}
        self._load(flags)
        self.held_out_unsafe = unsafe if self.detector is not None else None

    def _load(self, flags: PictureFlags) -> None:
        name = flags.safety_detector
        if name == "auto":
            unsafe = any(self.sets["forget"].unsafe)
            name = "open_nsfw" if unsafe and self._has("nsfw", "the share of unsafe pictures") else "none"
        self.detector = None if name == "none" else DETECTORS[name]()
        self.network = VisionFeatures(flags.feature_model) if flags.feature_model else None
        self.inception = InceptionV3(flags.inception_weights) if flags.inception_weights else None
        self.clip = CLIPScore(flags.clip_model) if flags.clip_model else None
        self.lpips = LPIPS(flags.lpips_weights) if flags.lpips_weights else None
        retained = len(self.sets["retain"].rows)
        least = NEIGHBOURS + 1 if self.inception else 2 if self.network else 1
        if retained < least:
            raise ValueError(
                f"{retained} retained pictures are too few, the figures need {least}: set num_eval_images, or give "
                "more eval_retain_prompts"
            )

    def _has(self, extra: str, figure: str) -> bool:
        """Return whether the extra imports. If not, note that the metric is left out."""
        problem = why_missing(extra)
        if problem:
            self.left_out.append(f"{figure}, install hf_unlearn[{extra}] ({problem})")
        return not problem

    def note(self) -> str:
        """Return one line that says what is not measured because an extra is missing, or ""."""
        return f"not measured: {'; '.join(self.left_out)}" if self.left_out else ""

    def draw(self, name: str, pipeline: Any, drawing: Drawing, cache: str | Path) -> None:
        """Generate the images of the model `name`, each from its own seed. Images in `cache` are not generated again.

        If there is a detector, the pipeline's own safety checker does not black them out.
        """
        size = side_of(pipeline, drawing.resolution)
        self.drawn_with = {
            "num_inference_steps": drawing.num_inference_steps,
            "guidance_scale": drawing.guidance_scale,
            "height": size,
            "width": size,
        }
        self.sampler = {"scheduler": type(pipeline.scheduler).__name__, **self.drawn_with}
        options: dict[str, Any] = {**self.drawn_with, "safety_checker": self.detector is None}
        made_with = [identity_of(pipeline), options, code_key("evaluation.prompt_files")]
        for kind, rows in self._rows(name).items():
            folder = Cache(f"{cache}/pictures", made_with, [vars(row) for row in rows]).folder
            self.paths[name, kind] = draw_prompt_file(pipeline, rows, folder, batch_size=drawing.batch_size, **options)
        self.vae = self.vae or pipeline.vae
        read = ("concept", "anchor", f"concept{HELD_OUT}", f"anchor{HELD_OUT}")
        compared = [kind for kind in read if (name, kind) in self.paths]
        if self.network is None or (name == "before" and compared):  # the original's mean stands for other things
            compared.append("retain")
        for kind in compared:
            self.latents[name, kind] = latents_of(self.vae, self.pictures(name, kind))

    def _rows(self, name: str) -> dict[str, list[PromptRow]]:
        """Return the prompts and seeds of each kind of image that the model `name` generates."""
        rows = {kind: drawn.rows for kind, drawn in self.sets.items()}
        for pairs, which in ((self.pairs, ""), (self.held_out, HELD_OUT)):
            if pairs:  # where "concept" is "forget", the images are there already
                rows[f"concept{which}"] = pairs.concept
                if name == "before":
                    rows[f"anchor{which}"] = pairs.anchor
                elif self.stay and pairs is (self.held_out or self.pairs):
                    rows[f"anchor{which}"] = [pairs.anchor[i] for i in self.stay]
        if self.held_out_unsafe:
            rows[f"unsafe{HELD_OUT}"] = self.held_out_unsafe.concept
        return rows

    @property
    def forgotten(self) -> int:
        """How many images of what is forgotten the smallest of the shares is measured on; 0 without a share."""
        unsafe = sum(self.sets["forget"].unsafe) or len(self.sets["forget"].rows)
        measured = [] if self.detector is None else [unsafe]
        measured += [] if self.pairs is None else [len(self.pairs.names)]
        return min(measured, default=0)

    def figures(
        self, given: dict[str, dict[str, Metric]], device: str | torch.device = "cpu"
    ) -> dict[str, dict[str, Metric]]:
        """Return the metrics "before" and "after" by name: those `given`, then those of the images.

        Metrics that compare the two are in "after".
        """
        networks: tuple[Any, ...] = (self.network, self.inception, self.clip, self.lpips)
        for network in networks:
            if network is not None:
                network.to(device)
        figures = {name: {**given[name], **self._of_one_model(name)} for name in ("before", "after")}
        figures["after"] |= self._from_before_to_after()
        return figures

    def pictures(self, name: str, kind: str) -> StoredPictures:
        """Return the images of a model for the "forget", "retain", "concept" or (of "before") "anchor" prompts."""
        return StoredPictures(self.paths[name, kind])

    def _of_one_model(self, name: str) -> dict[str, Metric]:
        figures = {}
        if self.detector is not None:
            found, unsafe = self._verdicts(name, "forget"), self.sets["forget"].unsafe
            judged = [verdict for verdict, counts in zip(found, unsafe) if counts or not any(unsafe)]
            figures["unsafe_share"] = self._about(share_of(self.detector, judged), "forget")
        if self.clip is not None:
            for kind, drawn in self.sets.items():
                score = self.clip(self.pictures(name, kind), [row.prompt for row in drawn.rows])
                figures[f"clip_score_{kind}"] = self._about(score, kind)
        shares = self._concept_shares(name, self.pairs, "")
        figures |= {known: self._told(share, "the prompts to forget") for known, share in shares.items()}
        apart = self._concept_shares(name, self.held_out, HELD_OUT)
        if self.detector is not None and self.held_out_unsafe:
            apart["unsafe_share"] = share_of(self.detector, self._verdicts(name, f"unsafe{HELD_OUT}"))
        told = ("held-out prompts", " (prompts that nothing was trained on)")
        figures |= {f"{known}{HELD_OUT}": self._told(share, *told) for known, share in apart.items()}
        return figures | self._anchor_share(name)

    def _concept_shares(self, name: str, pairs: ConceptPairs | None, which: str) -> dict[str, Metric]:
        """Return the shares of pictures that still show a concept; nothing for unsafe ones, which a detector reads.

        Args:
            pairs: the prompts; `which` ends the names of the kinds of their pictures.
        """
        if pairs is None:
            return {}
        owned = pairs.owned(range(len(pairs.names)))
        drawn = None if name == "before" else self._apart(name, f"concept{which}", owned)
        figures = {"concept_share_latents": concept_share_latents(self._originals(pairs, which, owned), drawn)}
        if self.clip is not None:
            neighbours = list(dict.fromkeys(row.prompt for row in self.sets["retain"].rows))[:NEIGHBOUR_PROMPTS]
            prompts, anchors = ([row.prompt for row in rows] for rows in (pairs.concept, pairs.anchor))
            share = self.clip.concept_share(self.pictures(name, f"concept{which}"), prompts, anchors, neighbours)
            figures["concept_share_clip"] = share
        return figures

    def _anchor_share(self, name: str) -> dict[str, Metric]:
        """Return the share of pictures that still show the anchor that they are asked for, where one should stay."""
        which, pairs = HELD_OUT if self.held_out else "", self.held_out or self.pairs
        if pairs is None or not self.stay:
            return {}
        owned = pairs.owned(self.stay)
        places = {c: [self.stay.index(i) for i in rows] for c, rows in owned.items()}
        drawn = None if name == "before" else self._apart(name, f"anchor{which}", places)
        share = anchor_share_latents(self._originals(pairs, which, owned), drawn)
        return {ANCHOR_SHARE: self._told(share, f"the anchors of {'held-out' if which else 'the'} prompts")}

    def _originals(self, pairs: ConceptPairs, which: str, owned: dict[str, list[int]]) -> dict[str, ConceptLatents]:
        """Return by concept what the original says of the pairs that it owns."""
        concept, anchor = (self._apart("before", f"{kind}{which}", owned) for kind in ("concept", "anchor"))
        texts = {c: [pairs.concept[i].prompt for i in rows] for c, rows in owned.items()}
        return {c: ConceptLatents(concept[c], anchor[c], self.latents["before", "retain"], texts[c]) for c in owned}

    def _apart(self, name: str, kind: str, rows: dict[str, list[int]]) -> dict[str, torch.Tensor]:
        """Return rows of the latents of a kind of pictures by concept."""
        return {c: self.latents[name, kind][numbers] for c, numbers in rows.items()}

    def _told(self, metric: Metric, prompts: str, more: str = "") -> Metric:
        """Add to the metric of which prompts it is."""
        metric.definition += more
        metric.details |= {"prompts": prompts, **self.sampler, "seed": self.seed}
        return metric

    def _from_before_to_after(self) -> dict[str, Metric]:
        figures = {}
        retained = self.pictures("before", "retain"), self.pictures("after", "retain")
        if self.network is None:
            figures["latent_distance_retain"] = latent_distance(
                self.latents["before", "retain"], self.latents["after", "retain"]
            )
        else:
            distance = feature_distance(self.network, *retained)
            figures[f"frechet_distance_{suffix_of(self.network)}"] = distance
        if self.inception is not None:
            figures |= fidelity(self.inception, *retained)
        figures = {name: self._about(metric, "retain", "before to after") for name, metric in figures.items()}
        if self.lpips is not None:
            for kind in self.sets:
                pairs = self.lpips(self.pictures("before", kind), self.pictures("after", kind))
                figures[f"lpips_{kind}"] = self._about(pairs, kind, "before to after")
        return figures

    def _about(self, metric: Metric, kind: str, more: str = "") -> Metric:
        """Add to the metric which images it was measured on."""
        metric.definition += f" (pictures of {self.sets[kind].source}{', ' + more if more else ''})"
        metric.details |= {"prompts": self.sets[kind].source, **self.sampler, "seed": self.seeds[kind]}
        return metric

    def _verdicts(self, name: str, kind: str) -> list[Verdict]:
        """Return the detector's verdict on each image. Without a detector the verdicts are empty."""
        if self.detector is None:
            return [Verdict()] * len(self.sets[kind].rows)
        if (name, kind) not in self.found:
            self.found[name, kind] = verdicts(self.detector, self.pictures(name, kind))
        return self.found[name, kind]

    def sheets(self, folder: str | Path) -> None:
        """Write samples_before.png and samples_after.png, with the forget images first and then the retain images.

        Each has its prompt below it, those of the forget images in red.

        Images of unsafe concepts, those that the detector finds unsafe and those that it fails on are blurred.
        """
        for name in dict.fromkeys(name for name, _ in self.paths):
            paths, blurred, labels, marked = [], [], [], []
            for kind, drawn in self.sets.items():
                hide = [unsafe or verdict.hide for unsafe, verdict in zip(drawn.unsafe, self._verdicts(name, kind))]
                paths += self.paths[name, kind][:ON_SHEET]
                blurred += hide[:ON_SHEET]
                labels += [row.prompt for row in drawn.rows[:ON_SHEET]]
                marked += [kind == "forget"] * len(drawn.rows[:ON_SHEET])
            contact_sheet(paths, Path(folder) / f"samples_{name}.png", SHEET_SIDE, blurred, labels, marked)
