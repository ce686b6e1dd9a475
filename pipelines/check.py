"""`python -m pipelines.check`: the first stage. Refuses input that lies in an output before DVC deletes it.

DVC deletes the outputs of a stage before it runs its command, so that only a stage before all others can still save
what lies there. `run_stage` checks, here as in every stage; this one only writes the file that ingest depends on.
"""

from pipelines.core.files import write_json
from pipelines.core.layout import OUTPUTS, Layout
from pipelines.params import Params
from pipelines.params.command import run_stage


def check(_params: Params, layout: Layout) -> str:
    write_json(layout.checked, {"no_input_in": [f"data/{name}" for name in OUTPUTS]})
    return f"no source, weights or reference lies in one of the {len(OUTPUTS)} output folders"


if __name__ == "__main__":
    run_stage("check", check)
