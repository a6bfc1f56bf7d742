"""Videos and texts -> scores, answers and evidence, for one video or many requests at once."""
