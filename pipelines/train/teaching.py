"""Teachers: trained members whose probabilities a smaller one learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  (its usual name)

from pipelines.augmentation.packs import PackReader, Rows
from pipelines.core.errors import InputError
from pipelines.params.recipes import Distillation
from pipelines.train.member import Member, load_member
from pipelines.train.pictures import to_input


@dataclass(frozen=True)
class Teachers:
    """Members that teach by the mean of their probabilities.

    Args:
        members: on the device.
        plain: (N, K) float32 on the device, of each picture as it is; None where they look at what the student sees.
    """

    members: tuple[Member, ...]
    plain: torch.Tensor | None

    @property
    def image_size(self) -> int:
        """Side at which pictures must reach `look`, at least; 0 where they never do."""
        return max((m.image_size for m in self.members), default=0) if self.plain is None else 0

    @torch.no_grad()
    def look(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) float, 0 to 255, to (B, K) probabilities."""
        found = []
        for member in self.members:
            seen = to_input(resize_on_device(images, member.image_size), member.spec, member.in_chans)
            found.append(member.module(seen).float().softmax(dim=1))
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
    """Read the teachers' model files, and let them look at the plain pictures once where that is the recipe.

    Args:
        paths: of their model.safetensors, in the order of params.teachers.
        classes: the student's.
        rows: (N,) of the pictures that the student learns from.

    Raises:
        InputError: a teacher is missing, or tells other classes apart.
    """
    members = tuple(load_member(path, device=str(device)) for path in paths)
    for path, member in zip(paths, members, strict=True):
        if member.classes != classes:
            raise InputError(
                f"{path} tells {', '.join(member.classes)} apart, not {', '.join(classes)}: run `dvc repro train`"
            )
    if params.teacher_input == "augmented":
        return Teachers(members, None)
    chunk = 256
    plain = [torch.empty((0, len(classes)))]
    for start in range(0, len(rows), chunk):
        pixels = reader.read(rows[start : start + chunk])
        plain.append(torch.stack([torch.from_numpy(m.predict(pixels)) for m in members]).mean(dim=0))
    return Teachers(members, torch.cat(plain).to(device))


def resize_on_device(images: torch.Tensor, image_size: int) -> torch.Tensor:
    """(B, 3, S, S) to (B, 3, s, s), with antialiasing; the same tensor where it fits."""
    if images.shape[-1] == image_size:
        return images
    return F.interpolate(images, (image_size, image_size), mode="bilinear", align_corners=False, antialias=True)
