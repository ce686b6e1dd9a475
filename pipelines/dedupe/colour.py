"""The last question about a near pair: are the colours those of one picture?

Thumbnails are grey, so two guitars of one model in two finishes, photographed by the same studio, look like copies of
each other. Their colours, laid on each other as the grey thumbnails fitted best, say that they are not. But a copy with
another background looks no different, so such a pair is `alike`: nothing is dropped, and no split ever parts it. Only
pictures of near pairs are decoded for this.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.core.images import Pixels
from pipelines.dedupe.hashes import SIDE
from pipelines.dedupe.near import NearPairs
from pipelines.dedupe.verify import sample

Colours = npt.NDArray[np.float32]

# mean |difference| of Cb and Cr that copies of one picture show: a share of the colourfulness of the duller one ...
_OF_COLOURFULNESS = 0.3
# ... and levels that JPEG's coarse colours (blocks of 16 pixels) cost: this at 32 pixels, less in larger pictures
_LEVELS_AT_32 = 2.5
_LEVELS = 0.4
# grey thumbnails that agree so well are those of one picture, brightened or saved at low quality, unless the colours
# are far apart: look-alikes in another finish reached 0.996, copies of one size begin at 0.999
_SURE_SCORE, _SURE_FACTOR = 0.998, 3.0
# largest |Cb|, |Cr| in a grey picture: rounding
_GREY = 1.5
# two pictures of which one has no colour are copies from this score on
_GREY_SCORE = 0.99


def colours(pixels: Pixels) -> Colours:
    """(2, 32, 32) float32: Cb and Cr (ITU-R 601) of a picture, 0 for grey.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """
    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX).convert("YCbCr")
    levels: Colours = np.asarray(small, dtype=np.float32)[:, :, 1:].transpose(2, 0, 1) - 128.0
    return levels


def same_colours(pairs: NearPairs, pair: int, moving: Colours, fixed: Colours, shorter_side: int) -> bool:
    """Whether the colours of a near pair may be those of one picture.

    A picture without any colour says nothing: a grey copy of a coloured one is a copy, if it is very like it.

    Args:
        pair: row of `pairs`.
        moving, fixed: (2, 32, 32) of `colours`, of the rows that `pairs` names so.
        shorter_side: of the smaller picture, pixels.
    """
    if min(np.abs(moving).max(), np.abs(fixed).max()) <= _GREY:
        return bool(pairs.score[pair] >= _GREY_SCORE)
    if pairs.mirrored[pair]:
        fixed = fixed[:, :, ::-1]
    still = np.tile(np.array([1, 0, 1, 0], np.float32), (2, 1))
    one = sample(moving, np.tile(pairs.warp[pair], (2, 1)))
    other = sample(fixed, still)
    apart = float(np.abs(one - other).mean())
    colourful = min(float(np.abs(one).mean()), float(np.abs(other).mean()))
    levels = max(_LEVELS, _LEVELS_AT_32 * SIDE / shorter_side)
    allowed = levels + _OF_COLOURFULNESS * colourful
    return apart <= (allowed * _SURE_FACTOR if pairs.score[pair] >= _SURE_SCORE else allowed)
