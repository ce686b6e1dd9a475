"""data/params.yaml: every value that a run uses. The stage `params` writes it, all other stages read it alone.

params.yaml says what differs from the defaults; this file says the rest too. DVC compares its values, so that a comment
in params.yaml reruns nothing, and a changed default reruns the stages that use it.
"""

import io

from ruamel.yaml import YAML

from pipelines.core.errors import ParamsError
from pipelines.core.files import write_text
from pipelines.core.layout import Layout
from pipelines.params.inputs import refuse_input_in_outputs
from pipelines.params.load import Params, load_params

REMEDY = "run `dvc repro`, or `python -m pipelines.params` before a stage by hand"


def resolve(layout: Layout) -> str:
    """The stage: check params.yaml, then write data/params.yaml whole; what it says of itself.

    Every other stage reads that file, so DVC runs this one first, before it deletes the output of any.

    Raises:
        ParamsError: params.yaml breaks a rule.
        InputError: params name a source, weights or a reference in a folder that stages write.
    """
    params = load_params(layout.params)
    refuse_input_in_outputs(params, layout)
    text = resolved_text(params)
    write_text(layout.resolved, text)
    line = f"data/params.yaml, {len(text.splitlines())} lines: every value of this run, defaults too"
    return "; ".join(
        [line, *(f"{name} is of no member that params name: delete it" for name in left_over(params, layout))]
    )


def left_over(params: Params, layout: Layout) -> list[str]:
    """Folders of members of earlier runs, which evaluate's dependency data/train would still count."""
    used = set(layout.members(params.train).values())
    found = (path for name in ("train", "students") for path in layout.stage(name).glob("*/"))
    return sorted(path.relative_to(layout.root).as_posix() for path in found if path not in used)


def resolved_text(params: Params) -> str:
    """All of `params` as YAML: keys sorted, one value a line, no comments."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.width = 10_000  # a long text stays on its line
    stream = io.StringIO()
    yaml.dump(params.model_dump(mode="json", by_alias=True), stream)
    return stream.getvalue()


def load_resolved(layout: Layout, *, by_dvc: bool) -> Params:
    """The params of a stage.

    Args:
        by_dvc: whether DVC runs the stage, after the stage `params`; params.yaml may be edited meanwhile, for the next
            run. By hand, nothing but the comparison shows that data/params.yaml is out of date.

    Raises:
        ParamsError: data/params.yaml is missing, is not as this version writes it, or params.yaml has other values.
    """
    path = layout.resolved
    if not path.exists():
        raise ParamsError(f"{path} does not exist: {REMEDY}")
    try:
        params = load_params(path)
    except ParamsError as error:
        first = str(error).splitlines()[0]
        raise ParamsError(f"{path} is not what this version of the pipeline writes ({first}): {REMEDY}") from error
    if not by_dvc and params != load_params(layout.params):
        raise ParamsError(f"params.yaml has other values than {path}, which stages read: {REMEDY}")
    return params
