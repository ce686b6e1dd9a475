"""One rule: what it says, which Great Expectations expectations hold it, and which decisions cure it."""

import re
from dataclasses import dataclass
from typing import Literal

from pipelines.params.validate import Severity

FrameName = Literal["files", "pictures", "labelled_files", "labelled_pictures", "classes", "columns", "seen"]
Observed = int | float | str | None
Arguments = dict[str, object]
Expectation = tuple[str, Arguments]
"""Class and arguments: a name of great_expectations.expectations, or of pipelines.validate.expectations."""

Observe = Literal["count", "value", "fraction", "min", "max", "tally"]

DROP = "take a picture out with a line in data/decisions/drop.csv: `{image_id},{reason},{file}`"
SETTLE = (
    "say which label is right with a line in data/decisions/relabel.csv, `{image_id},<label>,<reason>,{file}` (its "
    "copies follow); or take it out with data/decisions/drop.csv; or, if two pictures are different, say so in "
    "data/decisions/keep.csv, `<image_id>,<other_id>,<reason>`"
)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Args:
        name: its key in params.yaml, where it stands there.
        description: what must hold, in a few words.
        severity: error stops the run, warn does not.
        limit: as params say; None for a rule without a number.
        frame: the table that is looked at, see `pipelines.validate.frames`.
        expectations: the rule holds when all of them do.
        cure: what a person can do; may name {image_id}, {file} and {label} of the first offender, and on `seen`
            {reasons}.
        observe: what is reported. count: the number of offenders; value: what the expectation itself observed (with
            several, the worst); fraction: the offenders' share of the frame; min, max: the lowest or highest value of
            the columns that are looked at; tally: the offenders' most frequent values of the column `tally`.
        drop: the reason with which drop.csv would take the offenders out; "" where that cures nothing.
        exported: what stands for `expectations` in a suite over the whole manifest; None: the same.
    """

    name: str
    description: str
    severity: Severity
    limit: Observed
    frame: FrameName
    expectations: tuple[Expectation, ...]
    cure: str
    observe: Observe = "count"
    tally: str = ""
    drop: str = ""
    exported: tuple[Expectation, ...] | None = None
    no_data: str = "there is nothing to look at"
    """what is said where nothing could be observed"""

    def fault(self, number: int) -> str:
        """What is wrong where `number` offenders break the rule, or where `number` was observed and nobody is named."""
        text = re.sub(r"\[(.*?)\|(.*?)\]", r"\1" if number == 1 else r"\2", FAULTS[self.name])
        limit = f"{self.limit:g}" if isinstance(self.limit, int | float) else str(self.limit)
        return text.replace("{n}", f"{number:,}").replace("{limit}", limit)


FAULTS = {
    "column_types": "{n} [column of the manifest has|columns of the manifest have] another type",
    "no_missing_values": "{n} [file lacks|files lack] an id, label, path, group, verdict, size or figure of quality",
    "image_ids": "{n} [file has an image_id that is|files have image_ids that are] no sha256 of 64 hex digits",
    "unique_files": "{n} [file is|files are] listed more than once (source, source_path)",
    "verdicts": "{n} [file has a verdict|files have verdicts] other than keep, copy, conflict or drop",
    "given_subsets": "{n} [file has a given_subset|files have given_subsets] other than train, val, test or empty",
    "factors": "{n} [file has|files have] factors that are no JSON object of texts",
    "label_text": "{n} [label is|labels are] empty, not in Unicode's NFC form, or with a space at an end",
    "label_look_alikes": "{n} [label differs|labels differ] from another in case, width, spaces or punctuation alone",
    "min_classes": "{n} [class has|classes have] a picture kept, fewer than {limit}",
    "min_images_per_class": "{n} [class has|classes have] fewer than {limit} pictures",
    "max_imbalance": "{n} [class is|classes are] more than {limit} times smaller than the largest one",
    "formats": "{n} [picture has a format that is|pictures have formats that are] not allowed",
    "min_side": "{n} [picture has|pictures have] a side of less than {limit} pixels",
    "max_aspect": "{n} [picture is|pictures are] long and narrow: longer over shorter side above {limit}",
    "min_bytes_per_pixel": "{n} [picture is|pictures are] compressed to less than {limit} bytes a pixel",
    "min_contrast": "{n} [picture is|pictures are] blank: standard deviation of grey levels below {limit}",
    "min_sharpness": "{n} [picture is|pictures are] blurred: variance of the Laplacian below {limit}",
    "min_brightness": "{n} [picture is|pictures are] too dark: mean grey level below {limit}",
    "max_brightness": "{n} [picture is|pictures are] too bright: mean grey level above {limit}",
    "min_entropy": "{n} [picture is|pictures are] a few flat areas: entropy below {limit} bits",
    "max_greyscale_fraction": "{n} [picture is|pictures are] without colour",
    "max_transparent_fraction": "{n} [picture is|pictures are] transparent somewhere",
    "max_reject_fraction": "{n} [file was|files were] refused by ingest",
    "max_class_reject_fraction": "{n} [file was|files were] refused by ingest, too many of one class",
    "max_source_reject_fraction": "{n} [file was|files were] refused by ingest, too many of one source",
    "max_duplicate_fraction": "{n} [file is a copy or near copy|files are copies or near copies] of another",
    "max_near_duplicate_fraction": "{n} [file is a near copy|files are near copies] of another",
    "max_conflict_fraction": "{n} [file is of a picture that stands|files are of pictures that stand] under two labels",
    "licenses": "{n} [picture has a licence that is|pictures have licences that are] not allowed",
    "provenance": "{n} [picture has|pictures have] neither a url nor a page_url",
    "max_unassigned_fraction": "{n} [picture is|pictures are] in no subset that the source gives",
    "max_source_association": "the source of a picture gives its label away (Cramér's V)",
    "max_host_association": "the host of a picture gives its label away (Cramér's V)",
    "max_label_drift": "the classes' shares have changed since validate.drift_from (total variation distance)",
    "max_quality_drift": "the pictures' quality has changed since validate.drift_from (Kolmogorov-Smirnov distance)",
}
"""What is wrong where a rule is broken, by its name: [for one|for several] offenders, {n} of them."""


def between(column: str, *, minimum: Observed = None, maximum: Observed = None) -> tuple[Expectation, ...]:
    """Every value of `column` lies between two limits, themselves allowed."""
    return (("ExpectColumnValuesToBeBetween", {"column": column, "min_value": minimum, "max_value": maximum}),)
