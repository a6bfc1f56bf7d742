"""Pixels and token ids -> logits: the network and its parts, in torch alone."""
