"""Frontends: turn a trained model of another framework into a float network, or refuse."""
