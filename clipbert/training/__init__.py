"""Finetuning and pretraining: a recipe and annotated videos -> a model folder."""
