"""What a trained model says of pictures and of labels: `miwake predict`, `audit`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.core.errors import InputError, count

if TYPE_CHECKING:
    from pipelines.use.answers import Write
    from pipelines.use.classifier import Classifier
    from pipelines.use.model_folder import Model
    from pipelines.use.predict import Prediction

INTERRUPTED = 130


def predict(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="NamedPictures, folders, patterns, archives, URLs; - for standard input: a path a line, or a picture."
        ),
    ],
    model: Annotated[
        Path | None, typer.Option(help="A model folder, or another project; the champion or last run here when absent.")
    ] = None,
    member: Annotated[str | None, typer.Option(help="This member alone, in place of all of them together.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write .csv, .parquet, .jsonl, or .html, a page of pictures.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line, for a program.")] = False,
    explain: Annotated[
        Path | None, typer.Option(help="Write each picture with its activation map into this folder.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Name the class of pictures; none where the model is not sure enough, or the picture is of no known class."""
    import contextlib
    import os
    import sys
    from collections import Counter

    from pipelines.use.answers import check_out, open_answers
    from pipelines.use.model_folder import download_rules, find_model
    from pipelines.use.pictures import NamedPictures

    if out is not None:
        check_out(out)
        if as_json:
            raise InputError("--json prints and --out writes a file: choose one of them")
    load = _loader(device)
    found = find_model(Path.cwd(), model)
    with NamedPictures(
        paths, limits=found.info.limits, download=download_rules(Path.cwd()), stdin=sys.stdin.buffer
    ) as pictures:
        from pipelines.use.predict import Tally
        from pipelines.use.predict import predict as classify

        classifier = load(found, member)
        tally = Tally(Counter())
        stopped = False
        with contextlib.ExitStack() as stack:
            write: Write = (
                stack.enter_context(open_answers(out, classifier))
                if out is not None
                else _printer(classifier, as_json=as_json)
            )
            try:
                for answers in classify(classifier, pictures):
                    write(answers)
                    if explain is not None:
                        from pipelines.use.explain import write_maps

                        write_maps(classifier, answers, explain, first=tally.num + 1)
                    tally.add(answers)
            except KeyboardInterrupt:
                stopped = True
            except OSError as error:  # the file of --out says itself what is wrong with it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                if isinstance(error, BrokenPipeError):  # `miwake predict … | head` has read enough
                    return
                raise InputError(
                    f"{error.filename or 'standard output'} cannot be written ({error.strerror}) after "
                    f"{count(tally.num, 'picture')}: free some space, or write elsewhere"
                ) from error
    written = f" → {out}" if out is not None else ""
    print(f"predict: {'stopped after ' * stopped}{tally.sentence(classifier)}{written}", file=sys.stderr)
    if stopped:
        raise SystemExit(INTERRUPTED)
    if tally.first_problem is not None and tally.num_unreadable == tally.num:
        one = tally.first_problem
        raise InputError(f"none of these could be used; the first, {one.path}: {one.status} {one.detail}".rstrip())


def _loader(device: str) -> "Callable[[Model, str | None], Classifier]":
    """A function that loads a model, or one member of it, onto `device`; a wrong name is refused now."""
    import os

    from pipelines.params.command import FEWER_THREADS

    if device not in ("auto", "cpu", "cuda", "mps"):
        raise InputError(f"--device is {device!r}: choose auto, cpu, cuda or mps")
    for variable in FEWER_THREADS:
        os.environ.pop(variable, None)

    def load(model: "Model", member: str | None) -> "Classifier":
        from pipelines.use.classifier import load_classifier

        return load_classifier(model, member=member, device=device)  # type: ignore[arg-type]  # checked above

    return load


def _printer(classifier: "Classifier", *, as_json: bool) -> "Write":
    """Prints answers as they come: a table on a terminal, CSV to a pipe."""
    import sys

    from pipelines.use.answers import as_json as json_line
    from pipelines.use.answers import csv_writer

    if as_json:

        def write(answers: "Sequence[Prediction]") -> None:
            for one in answers:
                print(json_line(one))
            sys.stdout.flush()

        return write
    if sys.stdout.isatty():
        return _table(classifier)
    factors = classifier.info.factors if len(classifier.members) > 1 else None
    return csv_writer(lambda text: print(text, end="", flush=True), factors.names if factors else ())


def _table(classifier: "Classifier") -> "Write":
    """A table a batch, the first with the names of its columns."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipelines.use.answers import NONE
    from pipelines.use.predict import STRANGER, TOP, UNSURE

    console = Console()
    why = {STRANGER: "a stranger", UNSURE: f"below {classifier.threshold:.0%}" if classifier.threshold else ""}
    began = False

    def write(answers: "Sequence[Prediction]") -> None:
        nonlocal began
        table = Table(box=None, show_header=not began, expand=True, padding=(0, 1))
        table.add_column("picture", ratio=4, overflow="fold")
        table.add_column("answer", ratio=2, overflow="fold")
        table.add_column("", width=6, justify="right")
        table.add_column("next", ratio=3, overflow="fold")
        for one in answers:
            if not one.is_read:
                detail = f"{one.status}: {one.detail}" if one.detail else one.status
                table.add_row(Text(one.path), Text("not used", "red"), "", Text(detail, "dim"))
                continue
            answer = Text(one.label, "bold") if one.label else Text(f"{NONE} ({why[one.status]})", "yellow")
            first = 1 if one.label else 0
            others = ", ".join(f"{label} {probability:.0%}" for label, probability in one.top[first:TOP])
            table.add_row(Text(one.path), answer, f"{one.probability:.0%}" if one.label else "", Text(others, "dim"))
        console.print(table)
        began = True

    return write


def audit(
    source: Annotated[
        Path,
        typer.Argument(help="A folder of class folders, an archive, a table (.csv, .parquet, .jsonl), URLs (.txt)."),
    ],
    model: Annotated[
        Path | None, typer.Option(help="A model folder, or another project; the champion or last run here when absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder for index.html, findings.csv, drop.csv, relabel.csv.")] = Path(
        "audit"
    ),
    image_column: Annotated[str | None, typer.Option(help="Of a table: paths or URLs.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Of a table.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Counts and expected precision, for a program.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Check somebody's labels: disputed, conflicting, copied, strange, unknown or unreadable; write a page and CSV."""
    import json
    import sys

    from pipelines.params.dedupe import DedupeParams
    from pipelines.use.audit import audit as check
    from pipelines.use.audit_files import summary, write_audit
    from pipelines.use.known import known_predictions
    from pipelines.use.labelled import labelled_pictures
    from pipelines.use.model_folder import download_rules, find_model

    load = _loader(device)
    found = find_model(Path.cwd(), model)
    try:
        with labelled_pictures(
            source,
            found.info,
            download=download_rules(Path.cwd()),
            image_column=image_column,
            label_column=label_column,
        ) as listing:
            classifier = load(found, None)
            known = known_predictions(found.where)
            told = check(classifier, listing, known=known, dedupe=DedupeParams())
            files = write_audit(told, classifier, out, name=source.name, read=listing.read)
    except KeyboardInterrupt:
        print("audit: stopped; nothing was written", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    if as_json:
        numbers = {problem: len(some) for problem, some in told.findings.items()}
        print(json.dumps({"num_pictures": told.num_pictures, "num": numbers, "precision": told.precision}, indent=2))
        return
    for line in summary(told):
        print(f"audit: {line}")
    print(f"audit: {files[0]} shows them; {', '.join(file.name for file in files[1:])} beside it")
