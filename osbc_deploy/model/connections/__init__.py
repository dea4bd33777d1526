"""The kinds of connection of the float network, a module each.

What a kind can do by itself is a method of its class (:class:`.base.Connection` lists them); what a
room makes of it (torch, integers, memory, C, a file) is a function of that room with a variant
for each kind, registered with :func:`functools.singledispatch`. CONTRIBUTING.md says what a new
kind needs.
"""

from osbc_deploy.model.connections.base import Connection
from osbc_deploy.model.connections.conv import Conv, Convolution
from osbc_deploy.model.connections.dense import Dense

__all__ = ["Connection", "Conv", "Convolution", "Dense"]
