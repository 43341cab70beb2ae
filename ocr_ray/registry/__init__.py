"""The detector that is in use: logged to MLflow as a model that can be served, registered, and promoted past a gate."""
