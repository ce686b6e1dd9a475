"""python -m pipelines.dedupe"""

import sys
from collections import Counter

from pipelines.core.layout import Layout
from pipelines.core.tables import DEDUPED, read_table
from pipelines.dedupe import DedupeArtifact, dedupe
from pipelines.dedupe.output import shared_photographs
from pipelines.params import Params
from pipelines.params.command import run_stage


def _run(params: Params, layout: Layout) -> DedupeArtifact:
    if not params.dedupe.mirror and params.mirroring:
        print(
            "dedupe: warning: dedupe.mirror is false, so mirror images are different pictures, but training mirrors "
            f"pictures. Where left and right tell classes apart, set {', '.join(params.mirroring)}",
            file=sys.stderr,
        )
    found = dedupe(
        params.dedupe,
        root=layout.root,
        cache=layout.cache,
        ingest_dir=layout.stage("ingest"),
        decisions_dir=layout.decisions,
        out_dir=layout.stage("dedupe"),
        unlabelled=params.split.unlabelled,
    )
    labels = read_table(found.manifest, DEDUPED, columns=["label"])["label"].to_pylist()
    for warning in shared_photographs(found.duplicates, Counter(labels)):
        print(f"dedupe: warning: {warning}", file=sys.stderr)
    return found


if __name__ == "__main__":
    run_stage("dedupe", _run)
