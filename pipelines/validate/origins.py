"""The rules on where pictures come from: licences, traces, subsets, and whether the origin gives the label away."""

import re
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.licenses import canonical_license, license_regex
from pipelines.params.validate import ValidateParams
from pipelines.validate.checks import NO_ROWS, CheckResult, mask, numbered, tally
from pipelines.validate.rule import DROP, Rule
from pipelines.validate.shares import few

if TYPE_CHECKING:
    import pandas as pd


Codes = npt.NDArray[np.intp]


def licenses(files: "pd.DataFrame", *, allowed: list[str]) -> CheckResult:
    """Every picture kept has an allowed licence; observed: the other ones, the most frequent first.

    Args:
        allowed: names and patterns as in params: see `pipelines.core.licenses`.
    """
    kept = np.flatnonzero(mask(files["verdict"] == "keep"))
    codes, written = numbered(files["license"].iloc[kept])
    if not written:
        return CheckResult(True, 0, NO_ROWS)
    names = np.array([canonical_license(text) for text in written], dtype=object)
    regex = re.compile(license_regex(tuple(allowed)))
    unknown_too = any(canonical_license(name) == "" for name in allowed)
    good = np.array([bool(regex.search(name)) and (name != "" or unknown_too) for name in names])
    guilty = ~good[codes]
    found = tally(list(names[codes[guilty]])) if guilty.any() else 0
    return CheckResult(not guilty.any(), found, kept[guilty])


def traceable(files: "pd.DataFrame") -> CheckResult:
    """Every picture kept has a url or a page_url; observed: the sources of those without."""
    nowhere = mask(files["verdict"] == "keep")
    for name in ("url", "page_url"):
        nowhere &= mask(files[name].fillna("") == "")
    rows = np.flatnonzero(nowhere)
    return CheckResult(not len(rows), tally(files["source"].iloc[rows]) if len(rows) else 0, rows)


def association(files: "pd.DataFrame", *, by: Literal["source", "host"], max_value: float) -> CheckResult:
    """The label of the pictures kept hardly follows their source or host.

    Observed is Cramér's V with Bergsma's correction for chance (Journal of the Korean Statistical Society 42, 2013), 0
    to 1; None with fewer than two labels or origins. Offenders are the classes whose origins are the least like those
    of all other pictures (total variation distance), within a tenth of the most unlike one, which is first.
    """
    kept = files[mask(files["verdict"] == "keep")]
    origin = kept["source"] if by == "source" else hosts(kept)
    known = mask(origin.fillna("") != "")
    label_of, labels = numbered(kept["label"][known])
    origin_of, origins = numbered(origin[known])
    if len(labels) < 2 or len(origins) < 2:
        return CheckResult(True, None, NO_ROWS)
    strength = cramers_v(label_of, origin_of, len(labels), len(origins))
    if strength <= max_value:
        return CheckResult(True, round(strength, 6), NO_ROWS)
    distance = _unlike_the_rest(label_of, origin_of, len(labels), len(origins))
    order = np.lexsort((np.arange(len(labels)), -distance))
    bound = 0.9 * float(distance.max())
    return CheckResult(False, round(strength, 6), NO_ROWS, tuple(labels[k] for k in order if distance[k] >= bound))


def hosts(files: "pd.DataFrame") -> "pd.Series[str]":
    """The host of each url, or of its page_url, in small letters without port and `www.`; "" for none."""
    import pandas as pd

    found = pa.array([""] * len(files), pa.string())
    for name in ("url", "page_url"):
        text = pa.array(files[name].fillna("").astype("str"), pa.string(), from_pandas=True)
        # scheme://user@host:port/…; what does not look so has no host
        host = pc.struct_field(
            pc.extract_regex(text, r"^[A-Za-z][A-Za-z0-9+.-]*://(?:[^/?#@]*@)?(?:[wW]{3}\.)?(?P<host>[^/?#:@]+)"),
            "host",
        )
        host = pc.fill_null(pc.utf8_lower(host), "")
        found = pc.if_else(pc.equal(found, ""), host, found)
    return pd.Series(found.to_pandas(), dtype="str").set_axis(files.index)


def cramers_v(label_of: Codes, origin_of: Codes, num_labels: int, num_origins: int) -> float:
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


def _unlike_the_rest(label_of: Codes, origin_of: Codes, num_labels: int, num_origins: int) -> npt.NDArray[np.float64]:
    """(num_labels,) total variation distance of a class's origins from those of all other pictures."""
    of_label, of_origin = np.bincount(label_of), np.bincount(origin_of)
    cells, counts = np.unique(label_of * num_origins + origin_of, return_counts=True)
    label, origin = cells // num_origins, cells % num_origins
    rest = np.maximum(len(label_of) - of_label, 1)
    inside = counts / of_label[label]
    outside = (of_origin[origin] - counts) / rest[label]
    # sum of max(0, inside - outside) is the distance, and only cells with counts can add to it
    return np.bincount(label, np.maximum(inside - outside, 0.0), minlength=num_labels).astype(np.float64)


def origin_rules(params: ValidateParams) -> list[Rule]:
    """Those that are switched on."""
    return [*_rights(params), *_given(params), *_associations(params)]


def _rights(params: ValidateParams) -> list[Rule]:
    rules = []
    allowed = params.licenses.allowed
    if allowed is not None:
        rules.append(
            Rule(
                "licenses",
                "every picture kept has an allowed licence",
                params.licenses.severity,
                ", ".join(name or "unknown" for name in allowed),
                "files",
                (("ExpectLicensesToBeAllowed", {"allowed": list(allowed)}),),
                "ask the source for these licences alone, or add them to validate.licenses.allowed "
                '("" allows unknown ones); ' + DROP.replace("{reason}", "its licence"),
                observe="value",
                drop="its licence",
            )
        )
    if params.provenance != "off":
        rules.append(
            Rule(
                "provenance",
                "every picture kept has a url or a page_url",
                params.provenance,
                None,
                "files",
                (("ExpectPicturesToBeTraceable", {}),),
                "take pictures from a source that says where they come from (a table with a URL or page_url_column, "
                "urls, crawl), or set validate.provenance: off; " + DROP.replace("{reason}", "from nowhere"),
                observe="value",
                drop="from nowhere",
            )
        )
    return rules


def _given(params: ValidateParams) -> list[Rule]:
    rule = params.max_unassigned_fraction
    if rule.limit is None:
        return []
    return [
        Rule(
            "max_unassigned_fraction",
            "of all pictures kept, few are in no subset that their source gives",
            rule.severity,
            rule.limit,
            "pictures",
            (few("ExpectColumnValuesToNotBeInSet", "given_subset", [""], rule.limit),),
            "name the column that says train, val or test (subset_column of a table), or divide the pictures by "
            "another split.method and set validate.max_unassigned_fraction.limit: null; "
            + DROP.replace("{reason}", "in no subset"),
            observe="fraction",
            drop="in no subset",
        )
    ]


def _associations(params: ValidateParams) -> list[Rule]:
    rules = []
    for by in ("source", "host"):
        rule = getattr(params, f"max_{by}_association")
        if rule.limit is not None:
            rules.append(
                Rule(
                    f"max_{by}_association",
                    f"the {by} of a picture kept does not give its label away (Cramér's V)",
                    rule.severity,
                    rule.limit,
                    "files",
                    (("ExpectLabelsNotToFollowOrigins", {"by": by, "max_value": rule.limit}),),
                    f"take pictures of {{label}} from the {by}s of the other classes too, or theirs from its own: else "
                    f"a model may learn what the {by} looks like",
                    observe="value",
                    no_data=f"fewer than two {by}s are known",
                )
            )
    return rules
