"""What an audit writes: a page, a table of all findings, and decisions in the form that data/decisions holds them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipelines.core.decision_files import FILE
from pipelines.core.decisions import HEADERS
from pipelines.core.errors import ImageError, InputError, count
from pipelines.core.files import write_csv, write_text
from pipelines.report.page import render_page
from pipelines.use.answers import DIGITS, TEMPLATES, thumbnail
from pipelines.use.audit import PROBLEMS, Audit, Flaw
from pipelines.use.classifier import Classifier, prepare

HEADER = (
    *("problem", "path", "label", "suggested", "probability_label", "probability_suggested", "other"),
    *("detail", "image_id"),
)
MAX_SHOWN = 200
"""pictures of each problem on the page; all are in findings.csv"""
LEAST_PRECISION = 0.5
"""of a list whose pictures are proposed to be dropped"""
EXPLAINED = {
    "disputed": "The model prefers another class to the label.",
    "conflicting": "One picture under two labels: at least one of them is wrong.",
    "duplicated": "One picture twice under the same label.",
    "strange": "Like no class that the model knows.",
    "unknown class": "The label is no class of the model, so nothing is said of it.",
    "unreadable": "Not used, by the rules of ingest.",
}


def write_audit(
    found: Audit, classifier: Classifier, folder: Path, *, name: str, read: Callable[[str], bytes]
) -> list[Path]:
    """Write index.html, findings.csv, drop.csv and relabel.csv; each whole or not at all.

    Args:
        name: of what was audited.
        read: gives the bytes of a path, for the pictures on the page.

    Returns:
        The files.

    Raises:
        InputError: the folder cannot be written.
    """
    findings = [one for problem in PROBLEMS for one in found.findings[problem]]
    drops, relabels = decisions(found)
    files = [folder / file for file in ("index.html", "findings.csv", "drop.csv", "relabel.csv")]
    try:
        write_csv(files[1], HEADER, map(_row, findings))
        write_csv(files[2], (*HEADERS["drop"], FILE), drops)
        write_csv(files[3], (*HEADERS["relabel"], FILE), relabels)
        write_text(files[0], _page(found, classifier, name, read))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}): free some space or name another folder with "
            "--out; no file is half-written"
        ) from error
    return files


def _row(one: Flaw) -> tuple[object, ...]:
    likely = ("" if p is None else f"{p:.{DIGITS}f}" for p in (one.probability_label, one.probability_suggested))
    return (one.problem, one.path, one.label, one.suggested, *likely, one.other, one.detail, one.image_id)


def decisions(found: Audit) -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str, str]]]:
    """Rows of drop.csv and of relabel.csv, sorted, each picture once: proposals, for a person to look through.

    Strangers and near copies are dropped, unless most of the list is expected to be false; disputed labels, and of
    conflicting ones that which the model believes less, become what the model says. Copies of equal bytes need no
    decision: dedupe keeps one.
    """
    drops: dict[str, tuple[str, str, str]] = {}
    relabels: dict[str, tuple[str, str, str, str]] = {}
    for problem in ("strange", "duplicated"):
        if (share := found.precision[problem]) is not None and share < LEAST_PRECISION:
            continue
        of_list = _share(found, problem)
        for one in found.findings[problem]:
            if one.detail != "the same bytes":
                copy_of = f": copy of {one.other}" if one.other else ""
                drops.setdefault(one.image_id, (one.image_id, f"{problem}{of_list}{copy_of}", one.path))
    for problem in ("conflicting", "disputed"):
        of_list = _share(found, problem)
        for one in found.findings[problem]:
            if one.image_id not in drops and one.suggested and one.probability_suggested is not None:
                likely = f"{one.label} {one.probability_label:.2f}, {one.suggested} {one.probability_suggested:.2f}"
                relabels.setdefault(
                    one.image_id, (one.image_id, one.suggested, f"{problem}{of_list}: {likely}", one.path)
                )
    return sorted(drops.values()), sorted(relabels.values())


def summary(found: Audit) -> list[str]:
    """A line a problem, and one for each unknown label."""
    lines = [f"{count(found.num_pictures, 'picture')} read, {found.num_unreadable:,} not"]
    for problem in PROBLEMS:
        if not (num := len(found.findings[problem])):
            continue
        lines.append(f"{num:,} {problem}{_share(found, problem)}")
    for label, (num, near) in found.unknown.items():
        meant = f"; did you mean {near!r}?" if near else ""
        lines.append(f"label {label!r} ({count(num, 'picture')}) is no class of the model{meant}")
    return lines


def _share(found: Audit, problem: str) -> str:
    """What is expected of a list; "" where all of it is certain."""
    share = found.precision[problem]
    if share is None:
        return " (how many of them really is not known)"
    return f" (about {share:.0%} of them really)" if share < 1.0 else ""


def _page(found: Audit, classifier: Classifier, name: str, read: Callable[[str], bytes]) -> str:
    def picture(path: str, image_id: str) -> str | None:
        try:
            data = read(path)
            # another file has taken its place since it was judged
            return thumbnail(prepare(data, classifier.info)) if hashlib.sha256(data).hexdigest() == image_id else None
        except ImageError:
            return None

    sections = []
    for problem in PROBLEMS:
        of_problem = found.findings[problem]
        shown = [(one, picture(one.path, one.image_id) if one.image_id else None) for one in of_problem[:MAX_SHOWN]]
        sections.append((problem, EXPLAINED[problem], len(of_problem), found.precision[problem], shown))
    context = {
        "language": "en",
        "title": f"Audit of {name}",
        "info": classifier.info,
        "lines": summary(found),
        "sections": sections,
    }
    return render_page(context, "audit.html.j2", folder=TEMPLATES)
