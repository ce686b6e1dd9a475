"""The sample source: drawn electric guitars of 13 models, with planted flaws whose truth is known.

Nothing is stored: reading a path draws its picture, in any process and in any order, from (seed, class, index) and
the params alone. So a million pictures cost a list of names, and `images_per_class` grows without changing what was
there.

The same bytes on any machine rest on: `random.Random`, whose two methods used here keep their sequence; Pillow's
integer drawing, box filters and point tables; numpy arithmetic element by element, without sums or transcendental
functions; `math.sin` and `cos` of scalars, rounded; the accurate integer DCT of libjpeg-turbo; no font. The versions
of Pillow and simplejpeg that requirements.lock pins are part of it: another version may draw another pixel.
Pillow computes slopes of edges in floating point, so processors other than x86-64 may differ in single pixels.

    models    the 13 models, their parts and colours: outlines.json
    dice      random draws that are the same everywhere; index ↔ file name
    drawing   splines, shapes between two models, a drawing in mm, the camera
    guitar    one instrument: its parts, painted
    scene     view, background, shadow, light, lens
    files     (seed, class, index) → JPEG; planted flaws and their truth; list and reader
"""

from pipelines.ingest.sample.files import PlantedFlaw, list_sample, planted, write_truth
from pipelines.ingest.sample.models import CLASSES

__all__ = ["CLASSES", "PlantedFlaw", "list_sample", "planted", "write_truth"]
