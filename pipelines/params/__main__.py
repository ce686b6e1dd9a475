"""`python -m pipelines.params`: the first stage. Checks params.yaml and writes data/params.yaml for all others."""

from pipelines.params.command import run_command
from pipelines.params.resolve import resolve

if __name__ == "__main__":
    run_command("params", resolve)
