"""One HTML page that says what was learnt, how well, and what to fix; with a summary and a picture for other places."""

from pipelines.report.stage import ReportArtifact, report

__all__ = ["ReportArtifact", "report"]
