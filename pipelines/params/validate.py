"""The rules that pictures and labels must keep. a limit itself is allowed.

A rule is its limit alone, `limit` and `severity`, or off (`limit: null`, `allowed: null`).
"""

from typing import Annotated, Literal

from pydantic import Field

from pipelines.params.base import Fraction, PathText, PositiveFloat, PositiveInt, Section

Severity = Literal["error", "warn"]
Switch = Annotated[Literal["error", "warn", "off"], Field()]


class CountRule(Section):
    limit: PositiveInt | None
    severity: Severity


class FractionRule(Section):
    limit: Fraction | None
    severity: Severity


class RatioRule(Section):
    limit: PositiveFloat | None
    severity: Severity


class FormatRule(Section):
    allowed: (
        Annotated[
            tuple[Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF"], ...],
            Field(min_length=1),
        ]
        | None
    )
    """by content, not by suffix; null: not looked at"""
    severity: Severity


class LicenseRule(Section):
    allowed: Annotated[tuple[Annotated[str, Field(max_length=300)], ...], Field(min_length=1)] | None
    """names such as `CC BY 4.0` in any spelling, or patterns: `CC0*`, `CC-BY-[0-9]*` (of any version), `CC-BY-*` (with
    NC, ND and SA too), `*` (any that is known); "" allows pictures whose licence is not known; null: not looked at"""
    severity: Severity


AnyRule = CountRule | FractionRule | RatioRule | FormatRule | LicenseRule


class ValidateParams(Section):
    min_classes: CountRule = CountRule(limit=2, severity="error")
    """classes with at least one picture kept"""
    min_images_per_class: CountRule = CountRule(limit=5, severity="error")
    """a class of whose files ingest accepted none, or whose folder is empty, counts: 0 pictures"""
    max_imbalance: RatioRule = RatioRule(limit=10.0, severity="warn")
    """pictures of the largest class for one of the smallest"""
    label_look_alikes: Switch = "warn"
    """labels that differ in case, spaces or punctuation alone, such as `Les Paul` and `lespaul`"""

    # of every picture kept
    formats: FormatRule = FormatRule(allowed=None, severity="warn")
    min_side: CountRule = CountRule(limit=32, severity="warn")
    """shorter side, pixels"""
    max_aspect: RatioRule = RatioRule(limit=4.0, severity="warn")
    """longer side over shorter side"""
    min_bytes_per_pixel: RatioRule = RatioRule(limit=0.03, severity="warn")
    """of the file; a photograph as JPEG has 0.1 to 1, below 0.03 little but artefacts is left"""
    min_contrast: RatioRule = RatioRule(limit=2.0, severity="warn")
    """standard deviation of the thumbnail, grey levels: below it the picture is blank"""
    min_sharpness: RatioRule = RatioRule(limit=20.0, severity="warn")
    """variance of the Laplacian; photographs in focus have some hundreds, blurred ones less than a tenth of that, and
    smooth drawings too"""
    min_brightness: RatioRule = RatioRule(limit=10.0, severity="warn")
    """mean of the thumbnail, grey levels, 0 to 255"""
    max_brightness: RatioRule = RatioRule(limit=250.0, severity="warn")
    """mean of the thumbnail, grey levels, 0 to 255"""
    min_entropy: RatioRule = RatioRule(limit=0.5, severity="warn")
    """of the thumbnail's grey levels, bits, 0 to 8; low: a few flat areas"""
    max_greyscale_fraction: FractionRule = FractionRule(limit=0.2, severity="warn")
    """pictures without colour, of the pictures kept"""
    max_transparent_fraction: FractionRule = FractionRule(limit=0.2, severity="warn")
    """pictures that are transparent somewhere, of the pictures kept"""

    max_reject_fraction: FractionRule = FractionRule(limit=0.1, severity="warn")
    """files refused by ingest, of all files seen"""
    max_class_reject_fraction: FractionRule = FractionRule(limit=0.3, severity="warn")
    """the same within one class, the worst one"""
    max_source_reject_fraction: FractionRule = FractionRule(limit=0.3, severity="warn")
    """the same within one source, the worst one"""
    max_duplicate_fraction: FractionRule = FractionRule(limit=0.2, severity="warn")
    """copies and near copies, of all files"""
    max_near_duplicate_fraction: FractionRule = FractionRule(limit=0.1, severity="warn")
    """near copies (other bytes than the picture that they are copies of), of all files"""
    max_conflict_fraction: FractionRule = FractionRule(limit=0.02, severity="warn")
    """pictures under two labels, of all files"""

    # where the pictures kept come from
    licenses: LicenseRule = LicenseRule(allowed=None, severity="error")
    provenance: Switch = "off"
    """whether every picture kept must have a url or a page_url"""
    max_unassigned_fraction: FractionRule = FractionRule(limit=None, severity="error")
    """pictures whose source names no subset (train, val, test), of the pictures kept; for split.method: predefined"""
    max_source_association: FractionRule = FractionRule(limit=0.5, severity="warn")
    """how far the source gives the label away: Cramér's V, corrected for chance; 0: not at all, 1: wholly. A model may
    then learn the source's looks in the place of the class"""
    max_host_association: FractionRule = FractionRule(limit=0.5, severity="warn")
    """the same of the host of url (or of page_url); pictures without one do not count"""

    drift_from: PathText | None = None
    """what the data are compared with: an earlier ingest.snapshot whose run is still in .miwake/snapshots, or a
    manifest.parquet or the folder that holds one (of ingest: all files are compared; of dedupe: the pictures kept);
    null: not compared. DVC does not watch it: after a change run `dvc repro --force validate`"""
    max_label_drift: FractionRule = FractionRule(limit=0.2, severity="warn")
    """total variation distance of the classes' shares: the part of the pictures that would have to change class"""
    max_quality_drift: FractionRule = FractionRule(limit=0.2, severity="warn")
    """largest distance of the two distribution functions (Kolmogorov-Smirnov) of brightness, contrast, sharpness,
    entropy, aspect and bytes_per_pixel; 0.2 is chance alone for a hundred pictures against a hundred"""
