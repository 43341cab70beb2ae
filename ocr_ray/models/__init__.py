"""Backbones, necks, the head, and the models that distillation trains together."""
