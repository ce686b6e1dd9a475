"""miwake's pipeline: eight stages, each a function, a package, a section of params.yaml and a folder of data/.

ingest    pictures from anywhere, packed by content: shards, a manifest, thumbnails, and a reason for every reject
dedupe    copies and near copies grouped, pictures with two labels held back, human decisions applied
validate  the rules that the pictures and labels must keep; a broken one stops the run and names the offenders
split     train, validation and test: stratified by label, copies that dedupe found on one side
augment   the pictures at training size in one memory-mapped pack, and a sheet that shows the augmentation
train     a folder per member and fold: weights, history, predictions
evaluate  what the members know together: metrics with intervals, confusion counts, suspects
report    one HTML page that says what was learnt, how well, and what to fix

Before all of them, `params` checks params.yaml and writes data/params.yaml, which the others read.
"""
