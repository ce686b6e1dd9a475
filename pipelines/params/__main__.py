"""`python -m pipelines.params`: write params.schema.json, which editors read, from the models."""

from pathlib import Path

from pipelines.core.files import write_json
from pipelines.params.schema import params_schema

if __name__ == "__main__":
    write_json(Path("params.schema.json"), params_schema())
    print("params.schema.json written")
