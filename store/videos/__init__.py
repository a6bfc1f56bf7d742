"""Videos, their clips and files, and the batches that brought them."""
