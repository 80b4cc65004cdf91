"""The ground: which EPyMARL is underneath, files, artifacts, costs and metrics that every floor above uses."""
