"""The float network: what was trained, with one neuron step defined exactly."""
