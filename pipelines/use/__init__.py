"""What people do with a project and its trained models, on top of the stages.

project        a folder of one's own for `miwake run`: `miwake new`
running        `dvc repro` with a line a stage, and what the run says: `miwake run`
model_folder   the model of a run, in a project or in a folder that works without it
pictures       what paths on the command line name: files, folders, archives, URLs
classifier     the networks of a model, combined as evaluate combines them
predict        pictures to answers: `miwake predict`; `answers` writes them, `explain` their maps
audit          somebody's labels checked: `miwake audit`; `labelled` reads them, `audit_files` writes what was found
gate           whether a new model takes the champion's place
registry       versions, champion and challenger as git tags: `miwake champion`
"""
