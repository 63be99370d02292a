"""Features of a vision model that transformers loads: DINOv2, CLIP or an image classifier, by folder or Hub id."""

from pathlib import Path
from typing import Any

import torch
from diffusers.utils.pil_utils import numpy_to_pil
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from ..common.untrusted import check_folder, loading
from ..common.weights import weights_digest
from ..families.classifier.load import load_image_classifier, load_image_processor
from .class_judge import ClassifierJudge


class VisionFeatures(nn.Module):
    """Maps images (B, 3, H, W) in [-1, 1] to features (B, num_features), through the model's own image processor.

    The features are CLIP's and SigLIP's image embeddings, the pooled output of other models whose weights hold all
    that it needs (DINOv2, ConvNeXt), else the last hidden state, averaged over positions, as for image classifiers.

    Args:
        name_or_path: folder or Hub id; its last part is the name in every metric.

    Attributes:
        weights_digest: digest of the weights, which every metric records.

    Raises:
        ValueError: the folder does not exist, holds no model that sees images, or lacks weights or a processor.
        OSError: the Hub has no such model, or cannot be reached.
    """

    def __init__(self, name_or_path: str):
        super().__init__()
        path = Path(name_or_path)
        self.name = self.label = (path.resolve() if path.exists() else path).name
        check_folder(name_or_path)
        with loading(name_or_path):
            config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
        self.model: Any
        self.judge: ClassifierJudge | None = None
        self.pooled = True
        if any(name.endswith("ForImageClassification") for name in config.architectures or ()):
            self.model, processor = load_image_classifier(name_or_path)
            self.judge = ClassifierJudge(self.model, processor, self.name)
        else:
            self._load(name_or_path)
        self.requires_grad_(False).eval()
        self.weights_digest = weights_digest(self.model)
        with loading(name_or_path):
            self.num_features = self.features(torch.zeros(1, 3, 64, 64)).shape[1]

    def _load(self, name_or_path: str) -> None:
        with loading(name_or_path):
            self.model, report = AutoModel.from_pretrained(
                name_or_path,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
        missing = sorted(report["missing_keys"])
        self.pooled = not missing
        other = [name for name in missing if "pooler" not in name]
        if other:
            raise ValueError(f"{name_or_path} has no weights for {', '.join(other[:3])}: name a trained vision model")
        if self.model.main_input_name != "pixel_values" and not hasattr(self.model, "get_image_features"):
            raise ValueError(f"{name_or_path} sees no images ({type(self.model).__name__}): name a vision model")
        self.processor = load_image_processor(name_or_path)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return features (B, num_features) on the CPU."""
        if self.judge is not None:
            return self.judge.features(images.cpu())
        pictures = numpy_to_pil(((images + 1) / 2).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy())
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"].to(self.model.device)
        return self._read(pixels).float().cpu()

    def _read(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "get_image_features"):
            found: Any = self.model.get_image_features(pixel_values=pixels)
            return found if isinstance(found, Tensor) else found.pooler_output
        found = self.model(pixel_values=pixels)
        pooled = getattr(found, "pooler_output", None)
        if self.pooled and pooled is not None:
            return pooled.flatten(1)
        states = found.last_hidden_state  # (B, positions, D) or (B, D, h, w)
        return states.mean(1 if states.ndim == 3 else (2, 3))
