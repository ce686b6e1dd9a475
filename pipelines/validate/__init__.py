"""The rules that the pictures and labels must keep; a broken one stops the run and names the offenders."""

from pipelines.validate.stage import ValidateArtifact, validate

__all__ = ["ValidateArtifact", "validate"]
