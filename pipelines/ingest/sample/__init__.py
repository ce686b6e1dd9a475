"""The sample source: drawn electric guitars of 13 models, with planted flaws whose truth is known.

Nothing is stored: reading a path draws its picture, in any process and in any order, from (seed, class, index) and
the params alone. So a million pictures cost a list of names, and `images_per_class` grows without changing what was
there.

The same bytes on any machine rest on: `random.Random`, whose two methods used here keep their sequence; Pillow's
integer drawing, box filters and point tables; numpy arithmetic element by element, without sums or transcendental
functions; `math.sin` and `cos` of scalars, rounded; the accurate integer DCT of libjpeg-turbo; no font. The versions
of Pillow and simplejpeg that requirements.lock pins are part of it: another version may draw another pixel.
Pillow computes slopes of edges in floating point, so processors other than x86-64 may differ in single pixels.

    dice      chance that falls the same everywhere        outlines  body, pickguard and headstock curves, in mm
    models    the 13 models, palettes, look-alikes         shapes    splines, and shapes between two models
    strokes   a drawing in mm, and the camera              hardware  pickups, bridges, controls
    guitar    one instrument: its parts, painted           scene     view, background, shadow, light, lens
    picture   (seed, class, index) → JPEG                  names     index ↔ file name
    flaws     what is planted, its truth and its bytes     source    the listing and its reader
"""

from pipelines.ingest.sample.flaws import Planted, planted, write_truth
from pipelines.ingest.sample.models import CLASSES, LOOK_ALIKES
from pipelines.ingest.sample.source import list_sample

__all__ = ["CLASSES", "LOOK_ALIKES", "Planted", "list_sample", "planted", "write_truth"]
