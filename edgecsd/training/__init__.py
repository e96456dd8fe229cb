"""Distillation of a query model against cached gallery features."""
