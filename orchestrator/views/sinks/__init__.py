"""Programs that show a run besides penstock: TensorBoard, wandb, MLflow."""
