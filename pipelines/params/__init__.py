"""params.yaml, typed: the one way in for every number that the pipeline depends on."""

from pipelines.params.load import Params, load_params

__all__ = ["Params", "load_params"]
