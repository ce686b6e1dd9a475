"""Prefect runs, schedules, watches and shows what DVC decides. Nothing here is needed to run the pipeline.

pipeline   every stage of dvc.yaml as a task, independent ones side by side; an artifact for each
retrain    the same on a schedule, then the new metrics against the committed ones
bridge     DVC's stages and how one is run; guard ends it when the run ends
artifacts  what a stage left behind, as Markdown for the Prefect UI
compare    better, worse or unclear, on the test pictures that both runs have
settings   how Prefect is set up here: at home in .prefect/, telling nobody
serve      `python -m flows.serve`: server, schedule and address
"""
