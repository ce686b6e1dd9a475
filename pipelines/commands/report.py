"""What a person asks of the evaluation: `miwake report diff`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.errors import InputError
from pipelines.core.git import git
from pipelines.core.layout import Layout


def report_open() -> None:
    """Open the last run's report in a browser, and say where it lies."""
    import webbrowser

    page = Layout(Path.cwd()).stage("report") / "index.html"
    if not page.is_file():
        raise InputError(f"{page} does not exist: `miwake run` makes it, `dvc checkout` brings back one that was made")
    print(page)
    webbrowser.open(page.as_uri())


def report_diff(
    before: Annotated[str, typer.Argument(help="A commit or an experiment.")],
    after: Annotated[str, typer.Argument(help="Likewise, the later one.")] = "HEAD",
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path(".miwake/report_diff.html"),
) -> None:
    """Write the page of two commits: metrics, both matrices, the pictures that changed sides."""
    from pipelines.core.files import write_text
    from pipelines.evaluate.change import Answer, change
    from pipelines.params import load_params
    from pipelines.report import compare
    from pipelines.use.experiments import revision

    layout = Layout(Path.cwd())
    params = load_params(layout.params)
    files = [f"data/evaluate/{name}" for name in ("metrics.json", "compared.csv")]
    old, new = (
        compare.read_run(one, *(git("show", f"{revision(layout.root, one)}:./{file}") for file in files))
        for one in (before, after)
    )
    answers = [Answer(i, *answer, old.answers[i][1]) for i, answer in new.answers.items() if i in old.answers]
    known = compare.known_pictures(
        compare.changed_sides(old, new),
        layout=layout,
        size=params.report.picture_size,
        max_pixels=params.ingest.max_pixels,
    )
    told = change(answers, known.groups, confidence=new.metrics["confidence"], num_before=len(old.answers))
    write_text(out, compare.compare_page(old, new, change=told, known=known, language=params.report.language))
    print(f"{out}: {len(answers)} pictures are in both")


def experiments(
    base: Annotated[str, typer.Argument(help="The commit that they are on.")] = "HEAD",
) -> None:
    """List experiments beside the commit that they began with: accuracy and paired change with intervals."""
    from pipelines.commands.project import print_table
    from pipelines.use import experiments

    root = Path.cwd()
    found = experiments.experiments(root, base=base)
    if not found:
        raise InputError(f"no experiment is on {base}: `miwake run -S key=value` makes one")
    print_table(experiments.HEADER, experiments.table(root, found, base=base))
