"""Losses and metrics. Losses are per image, so that images can be weighted and batches computed in parts."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import Rows
from pipelines.params.recipes import CrossEntropy, Focal


def classification_loss(logits: torch.Tensor, labels: torch.Tensor, loss: CrossEntropy | Focal) -> torch.Tensor:
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


def distillation_loss(logits: torch.Tensor, teachers: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """(B,) float32: KL divergence of the softened probabilities of teachers and student, times temperature squared.

    The factor makes the size of gradients independent of the temperature (Hinton et al. 2015, section 2).

    Args:
        logits: (B, K), the student's.
        teachers: (B, K) probabilities.
    """
    softened = F.softmax(teachers.clamp_min(1e-12).log() / temperature, dim=1)
    found = F.log_softmax(logits.float() / temperature, dim=1)
    return F.kl_div(found, softened, reduction="none").sum(dim=1) * temperature**2


def class_weights(labels: Rows, num_classes: int) -> torch.Tensor:
    """(K,) float32: inversely proportional to the class counts, 1 on average over the images; 0 for an empty class."""
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    present = counts > 0
    weights = np.zeros(num_classes)
    weights[present] = len(labels) / (present.sum() * counts[present])
    return torch.from_numpy(weights).float()


@dataclass(frozen=True)
class ValidationMetrics:
    """Metrics over N images; NaN for N = 0."""

    loss: float
    accuracy: float
    macro_f1: float


def validation_metrics(probabilities: torch.Tensor, labels: Rows) -> ValidationMetrics:
    """Compute cross-entropy, accuracy, and the mean F1 over the classes that have images.

    Evaluate's metrics are weighted counts for its bootstrap; these choose an epoch.

    Args:
        probabilities: (N, K).
        labels: (N,) int64.
    """
    if len(labels) == 0:
        return ValidationMetrics(float("nan"), float("nan"), float("nan"))
    actual = torch.from_numpy(labels)
    loss = -probabilities[torch.arange(len(labels)), actual].clamp_min(1e-12).log().mean()
    predicted = probabilities.argmax(dim=1)
    num_classes = probabilities.shape[1]
    correct = torch.bincount(actual[predicted == actual], minlength=num_classes).double()
    actual_counts = torch.bincount(actual, minlength=num_classes)
    both = actual_counts + torch.bincount(predicted, minlength=num_classes)
    f1 = (2.0 * correct / both.clamp_min(1))[actual_counts > 0].mean()
    return ValidationMetrics(float(loss), float(correct.sum()) / len(labels), float(f1))
