"""What people do with a project and its trained models, on top of the stages.

project   a folder of one's own for `miwake run`: `miwake new`
running   `dvc repro` with a line a stage, and what the run says: `miwake run`
"""
