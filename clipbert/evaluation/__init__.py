"""How good a model is on a data set, by the measures that the paper uses."""
