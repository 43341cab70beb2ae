"""What MLflow runs to make the model again, instead of unpickling it. Copied into each model that is logged."""

from mlflow.models import set_model

from ocr_ray.registry.served import TextDetector

set_model(TextDetector())
