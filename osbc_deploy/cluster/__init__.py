"""Work spread over processes: of this machine, or of a cluster that dask manages."""

from osbc_deploy.cluster.spread import spread

__all__ = ["spread"]
