"""What several stages share. Nothing here knows a stage, Prefect or DVC."""
