"""From the data flags of UNets and DiTs to forget and retain sets, whose labels are the model's class numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.class_names import class_numbers, model_numbers
from ..data.images import ImageDataset, digits
from ..data.pairs import forget_and_retain
from ..data.protocols import SizedDataset
from ..data.sources import load_images, stream_class_names, stream_images
from ..data.streaming import RetainStream
from ..families.latents import encode_images
from ..families.vae import side_factor
from .flags import ImageDataFlags


def image_sets(
    data: ImageDataFlags,
    size: int | Sequence[int],
    channels: int,
    conditional: bool = True,
    names: Mapping[str, int] | None = None,
) -> tuple[Any, Any]:
    """Return (forget, retain) images as the flags say, of `size` (one number, or height and width) unless they give a
    resolution.

    Class numbers are those of the training data, in the sorted order of its folders' names, or the model's where it
    names the same classes. Separate forget images have them too, by the names of their folders.

    Args:
        conditional: whether the model has classes; otherwise the labels of separate forget images do not matter.
        names: the model's class numbers by name, if it has any.

    Raises:
        ValueError: no data is named, a class is not in the training data, or what loading and splitting raise.
    """
    if data.source is None:
        raise ValueError("no data: set --train_data_dir or --dataset_name to the images the model was trained on")
    columns = dict(image_column=data.image_column, label_column=data.label_column, center_crop=data.center_crop)
    options: dict[str, Any] = dict(size=data.resolution or size, channels=channels, **columns)
    if data.streaming and data.forget_data_dir:
        streamed = stream_images(data.source, config_name=data.dataset_config_name, **options)
        retain = RetainStream(streamed)
        stored = stream_class_names(data.source, data.label_column, data.dataset_config_name)
        forget = load_images(data.forget_data_dir, **options)
        if conditional and retain.labels is not None:
            forget = _numbered_like(forget, data.forget_data_dir, stored, set(retain.labels), options)
        return forget, retain
    everything = load_images(data.source, config_name=data.dataset_config_name, **options)
    if everything.class_names and names:
        everything.renumber(model_numbers(everything.class_names, names, "the model"))
    data.choose_classes(everything.class_names)
    chosen = load_images(data.forget_data_dir, **options) if data.forget_data_dir else None
    if chosen is not None and conditional and everything.labels is not None:
        present = set(everything.labels)
        chosen = _numbered_like(chosen, str(data.forget_data_dir), everything.class_names, present, options)
    return forget_and_retain(everything, data.classes, data.forget_indices, chosen)


def _numbered_like(
    chosen: ImageDataset, folder: str, names: Mapping[int, str], present: set[int], options: dict[str, Any]
) -> ImageDataset:
    """Give forget images the class numbers of the training data, by the names of their folders.

    Images that lie in the folder itself are of the class that it is called by.

    Args:
        names: of the training data's classes, by number; empty where it has numbers only, by which the folders are
            then called.
        present: class numbers that occur in the training data.

    Raises:
        ValueError: a class of the forget images is not in the training data.
    """
    if chosen.labels is None:
        known = {**{str(number): number for number in present}, **{name: number for number, name in names.items()}}
        own = Path(folder).resolve().name
        if own not in known or options["label_column"] in chosen.rows.column_names:
            raise ValueError(
                f"the images of {folder} have no classes, but those of the training data have: put them in folders "
                f"that are called as there, such as {folder}/{next(iter(names.values()), min(present))}"
            )
        labelled = chosen.rows.add_column(options["label_column"], [known[own]] * len(chosen))
        return load_images(labelled, **options)
    if not chosen.class_names:  # plain numbers are the training data's
        return chosen
    try:
        found = {number: class_numbers([name], names)[0] for number, name in chosen.class_names.items()}
    except ValueError as error:
        how = "name its folders like those of the training data" if names else "name its folders by class numbers"
        raise ValueError(f"{folder}: {error}; {how}") from error
    chosen.renumber(found)
    return chosen


def unet_sets(data: ImageDataFlags, pipeline: Any, default: bool) -> tuple[Any, Any]:
    """Return (forget, retain) images for a UNet2D pipeline. For the shipped one (`default`) these are the digits, of
    which it forgets the 3 where the flags do not say."""
    if data.source is None and default:
        if not data.says_what:
            data.forget_class = ["3"]
        data.choose_classes({})
        return forget_and_retain(digits(), data.classes, data.forget_indices)
    config = pipeline.unet.config
    return image_sets(data, config.sample_size, config.in_channels, bool(config.num_class_embeds))


def latent_sets(
    data: ImageDataFlags, pipeline: Any, cache: str, flips: bool = False, device: Any = "cpu"
) -> tuple[SizedDataset, SizedDataset]:
    """Return (forget, retain) latents for a DiTPipeline, encoded once and kept in `cache`; its VAE ends on the CPU."""
    images = decoded_sets(data, pipeline)
    pipeline.vae.to(device)
    forget, retain = (encode_images(pipeline.vae, part, cache, flips=flips) for part in images)
    pipeline.vae.to("cpu")
    return forget, retain


def decoded_sets(data: ImageDataFlags, pipeline: Any) -> tuple[Any, Any]:
    """Return (forget, retain) images as a DiTPipeline's VAE gives them."""
    pixels = pipeline.transformer.config.sample_size * side_factor(pipeline.vae)
    if data.streaming:
        raise ValueError("--streaming is for pixels: latents are encoded once and kept")
    return image_sets(data, pixels, pipeline.vae.config.in_channels, names=getattr(pipeline, "labels", None))
