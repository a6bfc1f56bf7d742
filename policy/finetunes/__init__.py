"""Whether a finetune may begin, and whether what it made may serve."""
