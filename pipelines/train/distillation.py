"""Knowledge distillation: trained members whose probabilities a student learns (Hinton et al. 2015)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.core.errors import InputError
from pipelines.params.recipes import Distillation
from pipelines.train.inference import to_input
from pipelines.train.member import TrainedMember, load_member

CHUNK = 256
"""images predicted at a time"""


@dataclass(frozen=True)
class Teachers:
    """Members that teach the mean of their probabilities.

    Args:
        members: on the device.
        precomputed: (N, K) float32 on the device, for each unaugmented training image; None where the teachers see
            the augmented images at every step.
    """

    members: tuple[TrainedMember, ...]
    precomputed: torch.Tensor | None

    @property
    def image_size(self) -> int:
        """Smallest side of the images that `predict` needs; 0 where it is never called."""
        return max((m.image_size for m in self.members), default=0) if self.precomputed is None else 0

    @torch.no_grad()
    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) float, 0 to 255, to (B, K) probabilities."""
        found = []
        for member in self.members:
            resized = resize_on_device(images, member.image_size)
            found.append(member.module(to_input(resized, member.spec, member.in_chans)).float().softmax(dim=1))
        return torch.stack(found).mean(dim=0)


def load_teachers(
    params: Distillation,
    paths: Sequence[Path],
    *,
    classes: list[str],
    reader: PackReader,
    rows: Rows,
    device: torch.device,
) -> Teachers:
    """Load the teachers, and predict the unaugmented images once where the recipe says so.

    Args:
        paths: of their model.safetensors, in the order of params.teachers.
        classes: the student's.
        rows: (N,) of the student's training images.

    Raises:
        InputError: a teacher is missing, or has other classes.
    """
    members = tuple(load_member(path, device=str(device)) for path in paths)
    for path, member in zip(paths, members, strict=True):
        if member.classes != classes:
            raise InputError(
                f"{path} tells {', '.join(member.classes)} apart, not {', '.join(classes)}: run `dvc repro train`"
            )
    if params.teacher_input == "augmented":
        return Teachers(members, None)
    found = [torch.empty((0, len(classes)))]
    for start in range(0, len(rows), CHUNK):
        pixels = reader.read(rows[start : start + CHUNK])
        found.append(torch.stack([torch.from_numpy(m.predict(pixels)) for m in members]).mean(dim=0))
    return Teachers(members, torch.cat(found).to(device))


def resize_on_device(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """Resize (B, 3, S, S) to (B, 3, s, s), bilinear with antialiasing; returns `images` where S is s."""
    if images.shape[-1] == image_size:
        return images
    return F.interpolate(images, (image_size, image_size), mode="bilinear", align_corners=False, antialias=True)
