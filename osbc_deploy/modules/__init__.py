"""Compress the weights of any torch SNN in its own framework, also of one that no chip holds."""

from osbc_deploy.modules.result import CompressedModel
from osbc_deploy.modules.run import compress_model

__all__ = ["CompressedModel", "compress_model"]
