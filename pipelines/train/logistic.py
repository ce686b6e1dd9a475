"""A linear head on features, and multinomial logistic regression that fits it to the optimum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)
from torch import nn

from pipelines.train.losses import ValidationMetrics, validation_metrics

MAX_ITERATIONS = 1000
GRADIENT_TOLERANCE = 1e-4
"""largest entry of the gradient, in scaled weights, at which a fit ends; a tenth of it moved no validation loss of two
real data sets by more than 0.005, and no accuracy, at twice the time"""
LOSS_TOLERANCE = 1e-8
"""smallest step of the loss worth taking"""
HISTORY_SIZE = 20
NEGLIGIBLE = 1e-10
"""share of the largest variance below which an axis is rounding alone"""
FLAT = 1e-3
"""a feature that varies less than this over the training pictures is not scaled up"""
PIECE = 4096
"""pictures predicted at a time: bounds their features in double precision"""


class LinearHead(nn.Module):
    """Standardise (B, D) features and map them to (B, K) logits, in double precision."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        for name, tensor in (("weight", weight), ("bias", bias), ("mean", mean), ("std", std)):
            self.register_buffer(name, tensor.float())

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Self:
        return cls(**tensors)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # metal has no double precision
        kind = torch.float32 if features.device.type == "mps" else torch.float64
        weight, bias, mean, std = (self.get_buffer(name).to(kind) for name in ("weight", "bias", "mean", "std"))
        # exact wherever it is called: a half-precision backbone around it is no reason to round here
        with torch.autocast(features.device.type, enabled=False):
            return F.linear((features.to(kind) - mean) / std, weight, bias)


@dataclass(frozen=True)
class HeadFit:
    """The fit of one strength, and how it does."""

    inverse_strength: float
    head: LinearHead
    train: ValidationMetrics
    val: ValidationMetrics


def fit_heads(
    features: torch.Tensor,
    labels: torch.Tensor,
    val_features: torch.Tensor,
    val_labels: torch.Tensor,
    *,
    num_classes: int,
    inverse_strengths: Sequence[float],
) -> list[HeadFit]:
    """Fit one head a strength, from the strongest regularisation to the weakest, each from the last one's weights.

    Minimised is C * sum over pictures of (mean over views of the loss) + |W|^2 / 2, as scikit-learn counts C; the
    bias is free. So C means the same with one view and with two.

    Args:
        features: (V, N, D) float of any precision, of N pictures in V views; standardised here by their own mean
            and deviation.
        labels: (N,) int64.
        val_features: (V, M, D); a prediction is the mean of the views' probabilities: with the mirror image as second
            view the loss of real test pictures fell by 0.013 (clothing) and 0.041 (guitars).
        val_labels: (M,) int64.
        num_classes: K.
        inverse_strengths: values of C.

    Returns:
        One fit a strength, from small C to large.
    """
    num_threads = torch.get_num_threads()
    # products of this size gain little from a second thread, and lose all of it when another process wants the core
    torch.set_num_threads(1)
    try:
        return _fit_heads(features, labels, val_features, val_labels, num_classes, inverse_strengths)
    finally:
        torch.set_num_threads(num_threads)


def _fit_heads(
    features: torch.Tensor,
    labels: torch.Tensor,
    val_features: torch.Tensor,
    val_labels: torch.Tensor,
    num_classes: int,
    inverse_strengths: Sequence[float],
) -> list[HeadFit]:
    rows = features.reshape(-1, features.shape[-1]).double()  # (V * N, D)
    mean, std = rows.mean(dim=0), rows.std(dim=0, correction=0)
    std = safe_deviation(std)
    rows.sub_(mean).div_(std)
    targets = labels.repeat(features.shape[0])  # (V * N,)
    axes, spread = _principal_axes(rows)
    rows = rows @ axes  # (V * N, R)
    weight = torch.zeros(num_classes, rows.shape[1], dtype=torch.float64)
    bias = torch.zeros(num_classes, dtype=torch.float64)
    fits = []
    for inverse_strength in sorted(inverse_strengths):
        penalty = 1.0 / (inverse_strength * len(labels))
        weight, bias = _minimise(rows, targets, weight, bias, penalty=penalty, spread=spread)
        head = LinearHead(weight @ axes.T, bias, mean, std)
        train = validation_metrics(mean_probabilities(head, features), labels.numpy())
        val = validation_metrics(mean_probabilities(head, val_features), val_labels.numpy())
        fits.append(HeadFit(inverse_strength, head, train, val))
    return fits


def safe_deviation(std: torch.Tensor) -> torch.Tensor:
    """(D,) to divide by: 1 for a feature that hardly varies."""
    return torch.where(std > FLAT, std, torch.ones_like(std))


def _principal_axes(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The axes along which centred (M, D) rows vary, and how much: (D, R) orthonormal columns and (R,) variances.

    The best weights lie in their span, and a turn of the axes does not change |W|, so nothing is lost.
    """
    num_rows, num_features = rows.shape
    try:
        if num_rows >= num_features:
            variances, axes = torch.linalg.eigh(rows.T @ rows / num_rows)
            kept = variances > variances[-1] * NEGLIGIBLE
            return axes[:, kept], variances[kept]
        # fewer pictures than features: the same from the smaller matrix of the rows' products
        variances, turns = torch.linalg.eigh(rows @ rows.T / num_rows)
        kept = variances > variances[-1] * NEGLIGIBLE
        return rows.T @ turns[:, kept] / (variances[kept] * num_rows).sqrt(), variances[kept]
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # many equal pictures: the plain axes serve too, with more iterations
        return torch.eye(num_features, dtype=rows.dtype), rows.square().mean(dim=0)


def _minimise(
    rows: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    penalty: float,
    spread: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The minimum of mean loss + penalty * |W|^2 / 2, by L-BFGS from (weight, bias).

    Along principal axis i the curvature is about `p (1 - p) * spread[i] + penalty`. Steps are taken in weights
    scaled by its root, which makes all directions alike, so that few are needed.
    """
    with torch.no_grad():
        chances = F.linear(rows, weight, bias).softmax(dim=1)
        curvature = (chances * (1.0 - chances)).mean()
    scale = (curvature * spread + penalty).rsqrt()  # (R,)
    scaled, bias = (weight / scale).requires_grad_(), bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled, bias],
        max_iter=MAX_ITERATIONS,
        max_eval=2 * MAX_ITERATIONS,
        tolerance_grad=GRADIENT_TOLERANCE,
        tolerance_change=LOSS_TOLERANCE,
        history_size=HISTORY_SIZE,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        weight = scaled * scale
        loss = F.cross_entropy(F.linear(rows, weight, bias), targets) + 0.5 * penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return (scaled * scale).detach(), bias.detach()


def mean_probabilities(head: LinearHead, features: torch.Tensor) -> torch.Tensor:
    """(V, N, D) features to (N, K) float64 probabilities: the mean over the V views."""
    pieces = [features[:, start : start + PIECE] for start in range(0, max(1, features.shape[1]), PIECE)]
    return torch.cat([head(piece).softmax(dim=-1).mean(dim=0) for piece in pieces])
