"""Models of Hugging Face transformers, for text and for images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from seminmf_lightning.core.checks import one_of, whole_number
from seminmf_lightning.harvest.adapters import CentreCrop, ImageFeed, whole_image
from seminmf_lightning.harvest.inputs.base import digest_of
from seminmf_lightning.harvest.models.base import Loaded, Model, local_path, only, plain
from seminmf_lightning.harvest.models.weights import mark_missing, weights_digest
from seminmf_lightning.harvest.text_feed import TextFeed, tokenizer_digest
from seminmf_lightning.harvest.window_limit import window_limit

NO_CROP_FROM = 384
"""From this size on, the image processor of ConvNeXT resizes without a crop."""
IMAGE_SETTINGS = ("do_", "size", "crop_", "resample", "rescale_", "image_mean", "image_std", "pad_")
"""Starts of the keys of an image processor that decide what the network sees."""
NO_SETTINGS = ("transformers_version", "architectures", "dtype", "torch_dtype", "id2label", "label2id")
"""Keys of a configuration that change no activation."""
DEFAULT_LENGTH = 1024
"""Tokens per window where neither the user nor the model sets a lower limit."""


@dataclass
class TransformersModel(Model):
    """Any model that ``transformers`` loads."""

    path: str
    """Name on the hub, a local folder, or ``package:<module>/<folder>``."""
    architecture: str = "AutoModel"
    """Class of transformers, such as ``AutoModelForCausalLM`` or ``T5EncoderModel``."""
    revision: str | None = None
    max_length: int | None = None
    """Tokens per window, special ones included; None: what the model takes, at most 1,024."""
    precision: str = "float32"
    """Type of the weights: ``float32``, ``bfloat16`` or ``float16``."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model.  Read it first."""

    def __post_init__(self) -> None:
        one_of("model.precision", self.precision, ("float32", "bfloat16", "float16"))
        if self.max_length is not None:
            whole_number("model.max_length", self.max_length, 3)

    def load(self, kind: str) -> Loaded:
        only(kind, ("text", "image"), "transformers")
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "model=transformers needs: pip install 'seminmf-lightning[harvest]'"
            ) from error
        path = local_path(self.path)
        architecture: Any = getattr(transformers, self.architecture, None)
        if not hasattr(architecture, "from_pretrained"):
            raise ValueError(f"model.architecture={self.architecture!r} is not a model class of transformers")
        with _quiet(transformers.utils.logging, os.path.isdir(path)):
            dtype = getattr(torch, self.precision)
            with self._explained():
                network, info = architecture.from_pretrained(
                    path, dtype=dtype, output_loading_info=True, **self._source
                )
            network = network.eval()
            not_loaded = mark_missing(network, info["missing_keys"], info["unexpected_keys"], self.path)
            feed = self._text(network) if kind == "text" else self._image(path, network)
        if hasattr(network.config, "use_cache"):
            network.config.use_cache = False
        preprocessing: dict[str, Any]
        if isinstance(feed, TextFeed):
            preprocessing = {
                "tokenizer": type(feed.tokenizer).__name__, "max_length": feed.max_length,
                "digest": tokenizer_digest(feed.tokenizer),
            }  # fmt: skip
        else:
            processor: Any = feed.transform.processor  # type: ignore[attr-defined]
            settings = plain(processor.to_dict())
            kept = {key: value for key, value in settings.items() if key.startswith(IMAGE_SETTINGS)}
            preprocessing = {"processor": type(processor).__name__} | kept
        description = {
            "library": "transformers", "path": self.path, "architecture": type(network).__name__,
            "revision": getattr(network.config, "_commit_hash", None) or self.revision,
            "weights": weights_digest(network), "precision": self.precision, "preprocessing": preprocessing,
            "config": _config_digest(network.config),
        }  # fmt: skip
        if self.trust_remote_code:
            description["trust_remote_code"] = True
        return Loaded(network, feed, description, not_loaded)

    @property
    def _source(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name the setting that allows a model to run its own code, instead of an interactive question."""
        try:
            yield
        except ValueError as error:
            if self.trust_remote_code or "trust_remote_code" not in str(error):
                raise
            raise ValueError(
                f"model.path={self.path!r} comes with Python code of its own, which is not run. If you "
                "have read and trust the code, set model.trust_remote_code=true (and model.revision to what "
                "you read)"
            ) from error

    def tokenizer(self) -> Any:
        """Return the tokenizer, without the network.

        Raises:
            ValueError: a slow one, which does not tell the positions of tokens.
        """
        from transformers import AutoTokenizer

        with self._explained():
            tokenizer = AutoTokenizer.from_pretrained(local_path(self.path), **self._source)
        if not tokenizer.is_fast:
            raise ValueError(
                f"{self.path}: only fast tokenizers give the positions of tokens in the text, "
                "and this one is slow"
            )
        tokenizer.padding_side = tokenizer.truncation_side = "right"
        return tokenizer

    def _text(self, network: Any) -> TextFeed:
        tokenizer = self.tokenizer()
        limit = window_limit(tokenizer, network)
        if self.max_length is not None and limit is not None and self.max_length > limit:
            raise ValueError(
                f"model.max_length={self.max_length} is more than the {limit} tokens that {self.path} takes"
            )
        return TextFeed(tokenizer, self.max_length or min(limit or DEFAULT_LENGTH, DEFAULT_LENGTH))

    def _image(self, path: str, network: Any) -> ImageFeed:
        from transformers import AutoImageProcessor

        with self._explained():
            processor = AutoImageProcessor.from_pretrained(path, **self._source)
        if hasattr(processor, "device"):
            processor.device = None  # a downloaded file does not choose where to run
        crop = dict(processor.crop_size or {}) if getattr(processor, "do_center_crop", False) else {}
        shorter = dict(getattr(processor, "size", None) or {}).get("shortest_edge")
        share = getattr(processor, "crop_pct", None)
        region: Any = whole_image
        if crop:
            side = shorter or min(crop["height"], crop["width"])
            region = CentreCrop((side, side), (crop["height"], crop["width"]))
        elif share and shorter and shorter < NO_CROP_FROM:  # as ConvNeXT does
            region = CentreCrop((shorter / share, shorter / share), (shorter, shorter))
        prefix_tokens = 1 + getattr(network.config, "num_register_tokens", 0)
        return ImageFeed(Pixels(processor), region, keyword="pixel_values", prefix_tokens=prefix_tokens)


class Pixels:
    """An image processor as a function of one image; a class, so that workers can unpickle it."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Any) -> torch.Tensor:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]


def _config_digest(config: Any) -> str:
    """Return a short digest of a configuration, without its location and authorship."""
    settings = plain(config.to_diff_dict())
    kept = {key: value for key, value in settings.items() if key not in NO_SETTINGS and key[0] != "_"}
    return digest_of([json.dumps(kept, sort_keys=True)])


@contextmanager
def _quiet(logging: Any, local: bool) -> Iterator[None]:
    """Hide progress bars and warnings of transformers if the model is local."""
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    if local:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
