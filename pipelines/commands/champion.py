"""Which model is in use, and the way back: `miwake champion show`, `promote`, `rollback`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.core.errors import InputError

Why = Annotated[str, typer.Option("--message", "-m", help="Why, for the tag.")]


def show() -> None:
    """The champion and the challenger, why they are it, and all versions."""
    from pipelines.use import registry

    root = Path.cwd()
    found = registry.versions(root)
    if not found:
        raise InputError("no model is registered yet: commit a run, then `miwake champion promote`")
    roles = {registry.champion(root): "champion", registry.challenger(root): "challenger"}
    for version in reversed(found):
        is_here = (registry.model_folder(root, version) / "model.json").is_file()
        first = version.message.splitlines()[0] if version.message else ""
        place = "here" if is_here else "not here"
        print(f"{version.name:<8} {version.commit[:8]}  {roles.get(version, ''):<10}  {place:<8}  {first}".rstrip())


def promote(
    version: Annotated[
        str, typer.Argument(help="A version such as v2, or a commit; the last commit without it.")
    ] = "HEAD",
    message: Why = "",
    force: Annotated[bool, typer.Option("--force", help="Though the gate does not promote it.")] = False,
) -> None:
    """Make a version, or a commit with a finished run, the champion, if it is surely better than the one there is."""
    from pipelines.commands.project import print_table
    from pipelines.core.files import write_json
    from pipelines.params import load_params
    from pipelines.use import registry
    from pipelines.use.gate import decide, decision_table

    root = Path.cwd()
    known = {name for one in registry.versions(root) for name in (one.name, one.name.partition(".")[0], one.tag)}
    found = registry.find(root, version) if version in known else registry.register(root, version, message)
    before = registry.champion(root)
    runs = [registry.read_run(root, one) if one is not None else None for one in (found, before)]
    assert runs[0] is not None
    params = load_params(root / "params.yaml").retrain.gate
    decision = decide(params, runs[0], runs[1], version=before.name if before else "", commit=found.commit)
    if before is not None:
        print_table(*decision_table(decision))
    if decision.outcome != "promote" and not force:
        raise InputError(
            f"{found.name} stays what it is: {decision.reason}; --force makes it the champion all the same"
        )
    folder = registry.promote(root, found, message or decision.reason)
    write_json(folder / "decision.json", decision.model_dump(mode="json"))
    print(f"{found.name} ({found.commit[:8]}) is the champion; its model: {folder.relative_to(root)}")


def rollback(message: Why = "rolled back by hand") -> None:
    """Make the version champion again that was it before, its bytes restored and verified; again goes one further."""
    from pipelines.use import registry

    before, now = registry.rollback(Path.cwd(), message)
    print(f"{now.name} ({now.commit[:8]}) is the champion again; it was {before.name}")
