"""What is seen and measured in a trained model: one module a question."""

from gatewise.insight.sensitivity import Sensitivity, sensitivity, untrained

__all__ = ["Sensitivity", "sensitivity", "untrained"]
