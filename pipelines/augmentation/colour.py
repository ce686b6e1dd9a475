"""Changes of colour, each as a few passes over pictures that they overwrite: (B, 3, H, W) float, 0 to 255."""

import torch

LUMA = (0.299, 0.587, 0.114)
"""ITU-R 601, as Pillow converts to grey"""


def brighten(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """As Pillow's ImageEnhance.Brightness; factor is (B, 1, 1, 1), and 1 keeps the bits. So of the next three."""
    return images.mul_(factor).clamp_(0.0, 255.0)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    # of the colours first, whose sums are short enough that no thread takes a part of one: B changes no bit
    mean = to_grey(images.mean(dim=(2, 3)))  # (B, 1)
    return _blend(mean.view(-1, 1, 1, 1), images, factor)


def saturate(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blend(to_grey(images), images, factor)


def sharpen(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """As ImageEnhance.Sharpness: the outermost pixels stay."""
    if min(images.shape[2:]) < 3:
        return images
    rows = images[..., :-2, :] + images[..., 1:-1, :] + images[..., 2:, :]
    smooth = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner = images[..., 1:-1, 1:-1]
    smooth.add_(inner * 4.0).div_(13.0)
    inner.mul_(factor).add_(smooth.mul_(1.0 - factor)).clamp_(0.0, 255.0)
    return images


def turn_hue(images: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the hue and keep saturation and value, all of HSV.

    Args:
        turn: (B, 1, 1, 1), of the whole circle.
    """
    red, green, blue = images.unbind(1)  # each (B, H, W)
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # in sixths of the circle; a grey pixel has no hue, and any will do
    scale = chroma.clamp(min=1e-6)
    hue = torch.where(
        value == red,
        (green - blue).div_(scale),
        torch.where(value == green, (blue - red).div_(scale).add_(2.0), (red - green).div_(scale).add_(4.0)),
    )
    hue.add_(turn.view(-1, 1, 1) * 6.0)
    for plane, start in zip((red, green, blue), (5.0, 3.0, 1.0), strict=True):
        place = hue + start
        place.sub_((place / 6.0).floor_().mul_(6.0))  # in [0, 6)
        # 0 from 4 on, 1 from 1 to 3, in between straight lines
        share = place.sub_(2.0).abs_().neg_().add_(2.0).clamp_(0.0, 1.0)
        torch.sub(value, share.mul_(chroma), out=plane)
    return images


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the upper `bits` (B, 1, 1, 1) of eight."""
    step = torch.exp2(8.0 - bits).round_()
    return images.round_().div_(step).floor_().mul_(step)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert what is not below `threshold`, (B, 1, 1, 1)."""
    return torch.where(images < threshold, images, 255.0 - images)


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch each colour of each picture to 0 to 255; a flat one stays."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = high == low
    scale = torch.where(flat, 1.0, 255.0 / torch.where(flat, 1.0, high - low))
    return images.sub_(low).mul_(scale).add_(torch.where(flat, low, 0.0)).clamp_(0.0, 255.0)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Make the grey levels of each colour equally frequent, as ImageOps.equalize does."""
    count, channels = images.shape[:2]
    levels = images.round_().view(count * channels, -1).long()
    histogram = torch.zeros((count * channels, 256), dtype=torch.int64, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones((), dtype=torch.int64, device=images.device).expand_as(levels))
    up_to = histogram.cumsum(1)
    # the pixels of the brightest level found do not count
    everywhere = torch.arange(256, device=images.device).expand_as(histogram)
    brightest = torch.where(histogram > 0, everywhere, 0).amax(dim=1, keepdim=True)
    step = (up_to[:, -1:] - histogram.gather(1, brightest)) // 255
    table = (step // 2 + up_to - histogram) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), everywhere)
    return table.to(images.dtype).gather(1, levels).view_as(images)


def to_grey(colours: torch.Tensor) -> torch.Tensor:
    """(B, 3, ...) to (B, 1, ...)."""
    grey = colours[:, 0:1] * LUMA[0]
    grey += colours[:, 1:2] * LUMA[1]
    grey += colours[:, 2:3] * LUMA[2]
    return grey


def _blend(base: torch.Tensor, images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """`base` at factor 0, `images` at 1, beyond them above 1; as Pillow's ImageEnhance."""
    return images.mul_(factor).add_(base * (1.0 - factor)).clamp_(0.0, 255.0)
