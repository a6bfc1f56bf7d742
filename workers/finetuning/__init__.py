"""A claimed finetune: its data, its subprocesses, its judgement and what it leaves behind."""
