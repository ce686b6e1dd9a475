"""Losses, a number a picture, so that pictures can be weighed and batches computed in parts."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import Rows
from pipelines.params.recipes import CrossEntropy, Focal


def losses(logits: torch.Tensor, labels: torch.Tensor, loss: CrossEntropy | Focal) -> torch.Tensor:
    """(B,) float32.

    Args:
        logits: (B, K).
        labels: (B,) int64.
    """
    logits = logits.float()
    match loss:
        case CrossEntropy():
            return F.cross_entropy(logits, labels, label_smoothing=loss.label_smoothing, reduction="none")
        case Focal():
            entropy = F.cross_entropy(logits, labels, reduction="none")
            return (1.0 - torch.exp(-entropy)) ** loss.gamma * entropy


def distillation_losses(logits: torch.Tensor, teachers: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """(B,) float32: divergence of the student's softened probabilities from the teachers', times temperature squared.

    The factor keeps gradients of one size over temperatures (Hinton et al. 2015, section 2).

    Args:
        logits: (B, K), the student's.
        teachers: (B, K) probabilities.
    """
    softened = F.softmax(teachers.clamp_min(1e-12).log() / temperature, dim=1)
    found = F.log_softmax(logits.float() / temperature, dim=1)
    return F.kl_div(found, softened, reduction="none").sum(dim=1) * temperature**2


def class_weights(labels: Rows, num_classes: int) -> torch.Tensor:
    """(K,) float32: in inverse proportion to how many pictures a class has, 1 on average over the pictures.

    A class without pictures weighs 0: there is nothing to weigh.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return torch.from_numpy(weights).float()
