"""Models of torchvision."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from seminmf_lightning.harvest.adapters import CentreCrop, Feed, ImageFeed, Region, TensorFeed, whole_image
from seminmf_lightning.harvest.models.base import Loaded, Model, only, plain
from seminmf_lightning.harvest.models.weights import NotLoaded, load_weights, read_weights, weights_digest
from seminmf_lightning.io.untrusted import refusing


@dataclass
class TorchvisionModel(Model):
    """Loads any model that ``torchvision.models.get_model`` makes."""

    path: str
    """Name, such as ``resnet50``."""
    weights: str | None = "DEFAULT"
    """Name of pretrained weights and their preprocessing; None: random weights, images of ``image_size``."""
    checkpoint: str | None = None
    """File of weights (a state dict) to load instead of the pretrained ones, which are not downloaded."""
    image_size: int = 224
    """Side of the image in pixels, where ``weights`` is None."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments of the model's constructor."""

    def load(self, kind: str) -> Loaded:
        only(kind, ("image", "tensor"), "torchvision")
        try:
            from torchvision.models import get_model_weights, list_models
            from torchvision.transforms._presets import ImageClassification, OpticalFlow, VideoClassification
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "model=torchvision needs: pip install 'seminmf-lightning[torchvision]'"
            ) from error
        if self.path not in list_models():
            raise ValueError(
                f"model.path={self.path!r} is not a model of torchvision; it has {', '.join(list_models())}"
            )
        accepted = get_model_weights(self.path).__members__
        if self.weights is not None and self.weights not in accepted:
            raise ValueError(
                f"model.weights={self.weights!r}: {self.path} has {', '.join(accepted)}; "
                "null gives random ones"
            )
        if self.weights is not None:
            transform = accepted[self.weights].transforms()
        else:
            transform = ImageClassification(crop_size=self.image_size, resize_size=self.image_size)
        if kind == "image" and isinstance(transform, OpticalFlow | VideoClassification):
            raise ValueError(
                f"model.path={self.path!r} takes videos or pairs of images, and these inputs are single "
                "images; use inputs=tensors"
            )
        network, not_loaded = self._network()
        network.eval()
        feed: Feed = TensorFeed(images=True)
        if kind == "image":
            feed = ImageFeed(transform, _detector_region(network) or _region(transform))
        feed.prefix_tokens = 1 if hasattr(network, "class_token") else 0
        description = {
            "library": "torchvision",
            "path": self.path,
            "architecture": type(network).__name__,
            "revision": self.weights,
            "weights": weights_digest(network),
            "precision": "float32",
            "preprocessing": repr(transform),
        }
        if self.options:
            description["options"] = plain(self.options)
        return Loaded(network, feed, description, not_loaded)

    def _network(self) -> tuple[nn.Module, NotLoaded]:
        """Build the network; with ``checkpoint``, nothing is downloaded."""
        from torchvision.models import get_model, get_model_builder

        if self.checkpoint is None and self.weights is not None:
            return get_model(self.path, weights=self.weights, **self.options), NotLoaded()
        if self.checkpoint is not None and self.weights is not None and "num_classes" not in self.options:
            # Some constructors build pretrained networks otherwise than random ones (transform_input, frozen
            # normalisation with another eps), so they must believe that they load theirs.
            with (
                _in_place_of_download(self.checkpoint),
                refusing(self.checkpoint, f"a file of weights of {self.path}"),
            ):
                return get_model(self.path, weights=self.weights, **self.options), NotLoaded()
        # Segmentation and detection would otherwise download their backbones.
        parameters = inspect.signature(get_model_builder(self.path)).parameters
        backbone = {"weights_backbone": None} if "weights_backbone" in parameters else {}
        network = get_model(self.path, weights=None, **(backbone | self.options))
        return network, NotLoaded() if self.checkpoint is None else load_weights(network, self.checkpoint)


@contextmanager
def _in_place_of_download(path: str) -> Iterator[None]:
    """Let the constructors of torchvision read a file where they would download one."""
    from torchvision.models import WeightsEnum

    download = WeightsEnum.get_state_dict
    state = read_weights(path)
    WeightsEnum.get_state_dict = lambda *args, **options: state
    try:
        yield
    finally:
        WeightsEnum.get_state_dict = download


def _region(transform: Any) -> Callable[[int, int], Region]:
    """The region that a preset of torchvision leaves: the whole image, where it does not crop."""
    from torchvision.transforms._presets import ImageClassification, VideoClassification

    if not isinstance(transform, ImageClassification | VideoClassification):
        return whole_image
    resize, crop = transform.resize_size, transform.crop_size
    fit = "cover" if len(resize) == 1 else "stretch"
    return CentreCrop((resize[0], resize[-1]), (crop[0], crop[-1]), fit)


def _detector_region(network: nn.Module) -> Callable[[int, int], Region] | None:
    """The region that the maps of a detection network cover; None for other networks."""
    from torchvision.models.detection.transform import GeneralizedRCNNTransform

    transform = dict(network.named_children()).get("transform")
    if not isinstance(transform, GeneralizedRCNNTransform):
        return None
    return PaddedResize(
        transform.min_size[-1], transform.max_size, transform.fixed_size, transform.size_divisible
    )


@dataclass(frozen=True)
class PaddedResize:
    """Region of a detection network, which resizes an image and pads it below and on the right.

    >>> PaddedResize(320, 640, None, 32)(100, 200)
    (0.0, 0.0, 100.0, 200.0)
    >>> PaddedResize(300, 640, None, 32)(100, 200)[2:]  # 300 x 600 pixels, padded to 320 x 608
    (106.66666666666667, 202.66666666666666)
    """

    shorter: int
    """The shorter side gets this length, unless the longer one then exceeds ``longer``."""
    longer: int
    fixed: tuple[int, int] | None
    """Width and height to resize to instead, aspect not kept."""
    divisible: int
    """Both sides are padded to multiples of this."""

    def __call__(self, height: int, width: int) -> Region:
        if self.fixed is not None:
            h, w = self.fixed[1], self.fixed[0]
        else:
            scale = min(self.shorter / min(height, width), self.longer / max(height, width))
            h, w = math.floor(height * scale), math.floor(width * scale)
        padded_h, padded_w = (math.ceil(side / self.divisible) * self.divisible for side in (h, w))
        return 0.0, 0.0, height * padded_h / h, width * padded_w / w
