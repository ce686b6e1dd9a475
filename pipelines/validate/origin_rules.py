"""The rules on where pictures come from: licences, traces, subsets, and whether the origin gives the label away."""

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.licenses import canonical_license, license_regex
from pipelines.core.tables import hosts
from pipelines.validate.rule import (
    DROP,
    Arguments,
    AtMost,
    CheckResult,
    FewOf,
    Observed,
    Rows,
    Rule,
    expectation,
    mask,
    numbered,
    tally,
)

if TYPE_CHECKING:
    import pandas as pd


@expectation("ExpectLicensesToBeAllowed", "license", "verdict")
def licenses(files: "pd.DataFrame", *, allowed: list[str]) -> CheckResult:
    """Every picture kept has an allowed licence; observed: the other ones, the most frequent first.

    Args:
        allowed: names and patterns as in params: see `pipelines.core.licenses`.
    """
    kept = np.flatnonzero(mask(files["verdict"] == "keep"))
    codes, written = numbered(files["license"].iloc[kept])
    if not written:
        return CheckResult(True, 0)
    names = np.array([canonical_license(text) for text in written], dtype=object)
    regex = re.compile(license_regex(tuple(allowed)))
    unknown_too = any(canonical_license(name) == "" for name in allowed)
    good = np.array([bool(regex.search(name)) and (name != "" or unknown_too) for name in names])
    guilty = ~good[codes]
    found = tally(list(names[codes[guilty]])) if guilty.any() else 0
    return CheckResult(not guilty.any(), found, kept[guilty])


class Licenses(Rule):
    name = "licenses"
    description = "every picture kept has an allowed licence"
    fault = "{n} [picture has a licence that is|pictures have licences that are] not allowed"
    cure = (
        "ask the source for these licences alone, or add them to validate.licenses.allowed "
        f'("" allows unknown ones); {DROP}'
    )
    kind = "ExpectLicensesToBeAllowed"
    observe = "value"
    drop = "its licence"

    def limit_of(self, section: Any) -> Observed:
        return None if section.allowed is None else ", ".join(name or "unknown" for name in section.allowed)

    def arguments(self) -> Arguments:
        return {"allowed": list(self.section.allowed)}


@expectation("ExpectPicturesToBeTraceable", "url", "page_url", "source", "verdict")
def traceable(files: "pd.DataFrame") -> CheckResult:
    """Every picture kept has a url or a page_url; observed: the sources of those without."""
    nowhere = mask(files["verdict"] == "keep")
    for name in ("url", "page_url"):
        nowhere &= mask(files[name].fillna("") == "")
    rows = np.flatnonzero(nowhere)
    return CheckResult(not len(rows), tally(files["source"].iloc[rows]) if len(rows) else 0, rows)


class Provenance(Rule):
    name = "provenance"
    description = "every picture kept has a url or a page_url"
    fault = "{n} [picture has|pictures have] neither a url nor a page_url"
    cure = (
        "take pictures from a source that says where they come from (a table with a URL or page_url_column, urls, "
        f"crawl), or set validate.provenance: off; {DROP}"
    )
    kind = "ExpectPicturesToBeTraceable"
    observe = "value"
    drop = "from nowhere"


class MaxUnassignedFraction(FewOf):
    name = "max_unassigned_fraction"
    description = "of all pictures kept, few are in no subset that their source gives"
    fault = "{n} [picture is|pictures are] in no subset that the source gives"
    cure = (
        "name the column that says train, val or test (subset_column of a table), or divide the pictures by another "
        f"split.method and set validate.max_unassigned_fraction.limit: null; {DROP}"
    )
    frame = "pictures"
    of_classes = True
    kind = "ExpectColumnValuesToNotBeInSet"
    given: ClassVar[Arguments] = {"column": "given_subset", "value_set": [""]}
    drop = "in no subset"


@expectation("ExpectLabelsNotToFollowOrigins", "label", "verdict")
def association(files: "pd.DataFrame", *, by: Literal["source", "host"], max_value: float) -> CheckResult:
    """The label of the pictures kept hardly follows their source or host.

    Observed is Cramér's V with Bergsma's correction for chance (Journal of the Korean Statistical Society 42, 2013), 0
    to 1; None with fewer than two labels or origins. Offenders are the classes whose origins are the least like those
    of all other pictures (total variation distance), within a tenth of the most unlike one, which is first.
    """
    kept = files[mask(files["verdict"] == "keep")]
    origin = kept["source"] if by == "source" else hosts_of(kept)
    known = mask(origin.fillna("") != "")
    label_of, labels = numbered(kept["label"][known])
    origin_of, origins = numbered(origin[known])
    if len(labels) < 2 or len(origins) < 2:
        return CheckResult(True, None)
    strength = cramers_v(label_of, origin_of, len(labels), len(origins))
    if strength <= max_value:
        return CheckResult(True, round(strength, 6))
    distance = _unlike_the_rest(label_of, origin_of, len(labels), len(origins))
    order = np.lexsort((np.arange(len(labels)), -distance))
    bound = 0.9 * float(distance.max())
    return CheckResult(False, round(strength, 6), labels=tuple(labels[k] for k in order if distance[k] >= bound))


def hosts_of(files: "pd.DataFrame") -> "pd.Series[str]":
    """The host of each url, or of its page_url, without `www.`; "" for none."""
    import pandas as pd

    of_url, of_page = (
        pc.replace_substring_regex(hosts(pa.array(files[name].fillna("").astype("str"), pa.string())), r"^www\.", "")
        for name in ("url", "page_url")
    )
    return pd.Series(pc.if_else(pc.equal(of_url, ""), of_page, of_url).to_pandas(), index=files.index, dtype="str")


def cramers_v(label_of: Rows, origin_of: Rows, num_labels: int, num_origins: int) -> float:
    """Cramér's V of two columns, corrected for chance, 0 to 1.

    Args:
        label_of, origin_of: (N,) from 0, each value taken at least once; N, num_labels and num_origins at least 2.
    """
    num_rows = len(label_of)
    cells, counts = np.unique(label_of * num_origins + origin_of, return_counts=True)  # those that are not 0
    of_label, of_origin = np.bincount(label_of), np.bincount(origin_of)
    expected = of_label[cells // num_origins] * of_origin[cells % num_origins] / num_rows
    phi2 = float((counts * (counts / expected)).sum()) / num_rows - 1.0  # chi² / N
    by_chance = (num_labels - 1) * (num_origins - 1) / (num_rows - 1)
    rows = num_labels - (num_labels - 1) ** 2 / (num_rows - 1)
    columns = num_origins - (num_origins - 1) ** 2 / (num_rows - 1)
    room = min(rows, columns) - 1
    # as many origins as pictures: nothing can be said
    return min(1.0, float(np.sqrt(max(0.0, phi2 - by_chance) / room))) if room > 0 else 0.0


def _unlike_the_rest(label_of: Rows, origin_of: Rows, num_labels: int, num_origins: int) -> npt.NDArray[np.float64]:
    """(num_labels,) total variation distance of a class's origins from those of all other pictures."""
    of_label, of_origin = np.bincount(label_of), np.bincount(origin_of)
    cells, counts = np.unique(label_of * num_origins + origin_of, return_counts=True)
    label, origin = cells // num_origins, cells % num_origins
    rest = np.maximum(len(label_of) - of_label, 1)
    inside = counts / of_label[label]
    outside = (of_origin[origin] - counts) / rest[label]
    # sum of max(0, inside - outside) is the distance, and only cells with counts can add to it
    return np.bincount(label, np.maximum(inside - outside, 0.0), minlength=num_labels).astype(np.float64)


class MaxSourceAssociation(AtMost):
    name = "max_source_association"
    description = "the source of a picture kept does not give its label away (Cramér's V)"
    fault = "the source of a picture gives its label away (Cramér's V)"
    cure = (
        "take pictures of {label} from the sources of the other classes too, or theirs from its own: else a model may "
        "learn what the source looks like"
    )
    of_classes = True
    kind = "ExpectLabelsNotToFollowOrigins"
    no_data = "fewer than two sources are known"
    given: ClassVar[Arguments] = {"by": "source"}


class MaxHostAssociation(MaxSourceAssociation):
    name = "max_host_association"
    description = "the host of a picture kept does not give its label away (Cramér's V)"
    fault = "the host of a picture gives its label away (Cramér's V)"
    cure = (
        "take pictures of {label} from the hosts of the other classes too, or theirs from its own: else a model may "
        "learn what the host looks like"
    )
    no_data = "fewer than two hosts are known"
    given: ClassVar[Arguments] = {"by": "host"}


RULES = (Licenses, Provenance, MaxUnassignedFraction, MaxSourceAssociation, MaxHostAssociation)
