"""Fine-tuning on the server: MONAI Label's task, progress that survives restarts, routes."""
