"""What people do with a project and its trained models, on top of the stages.

project        a folder of one's own for `miwake run`: `miwake new`
running        `dvc repro` with a line a stage, and what the run says: `miwake run`
doctor         what this machine lacks: `miwake doctor`
experiments    other values tried in a worktree of its own: `miwake run -S`
decisions      data/decisions, one decision at a time; `review` is the page that takes them
model_folder   the model of a run, in a project or in a folder that works without it
known          its predictions of pictures whose label is known
pictures       what paths on the command line name: files, folders, archives, URLs
classifier     the networks of a model, combined as evaluate combines them
predict        pictures to answers: `miwake predict`; `answers` writes them, `explain` their maps
export         the model as a graph elsewhere, if it says the same: `miwake export`; `card` describes it
audit          somebody's labels checked: `miwake audit`; `labelled` reads them, `audit_files` writes what was found
gate           whether a new model takes the champion's place
registry       versions, champion and challenger as git tags: `miwake champion`
"""
