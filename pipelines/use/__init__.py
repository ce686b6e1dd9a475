"""What people do with a project and its trained models, on top of the stages.

model_folder   the model of a run, in a project or in a folder that works without it
"""
