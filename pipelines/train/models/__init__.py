"""The networks that recipes name: built, given weights, cut into stages, and as backbones.

torchvision is imported (3 s) where one of its networks is built, and not before.
"""

from pipelines.features.lite0 import EfficientNetLite0, fold_batch_norm
from pipelines.train.models.backbones import backbone, build_backbone, fold_batch_norms
from pipelines.train.models.building import Stem, build_network, min_image_size
from pipelines.train.models.loading import load_weights
from pipelines.train.models.sources import weights_file
from pipelines.train.models.specs import ModelSpec, Triple, spec_for
from pipelines.train.models.stages import stages

__all__ = [
    "EfficientNetLite0",
    "ModelSpec",
    "Stem",
    "Triple",
    "backbone",
    "build_backbone",
    "build_network",
    "fold_batch_norm",
    "fold_batch_norms",
    "load_weights",
    "min_image_size",
    "spec_for",
    "stages",
    "weights_file",
]
