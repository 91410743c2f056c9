"""Programs that show a run besides penstock: TensorBoard, Weights & Biases, MLflow."""
