"""Labels, the data sets frozen from them, and their vocabularies."""
