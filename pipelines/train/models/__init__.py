"""The networks that recipes name: built, given weights, and cut into stages.

timm and torchvision are imported (4 s) where one of their networks is built, and not before.
"""

from pipelines.features.backbones import ModelSpec
from pipelines.train.models.building import Stem, build_backbone, build_network, spec_for, stages
from pipelines.train.models.weights import load_weights, weights_file

__all__ = [
    "ModelSpec",
    "Stem",
    "build_backbone",
    "build_network",
    "load_weights",
    "spec_for",
    "stages",
    "weights_file",
]
