"""Work spread over processes: of this machine, or of a cluster that dask manages."""

from osbc_deploy.cluster.spread import Crew, Part, crew_of, spread

__all__ = ["Crew", "Part", "crew_of", "spread"]
