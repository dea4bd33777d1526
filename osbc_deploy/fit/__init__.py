"""Fit to chip: the sparsity and bits of each layer that lose least within a budget."""

from osbc_deploy.fit.run import FitBudget, FitResult, fit
from osbc_deploy.fit.search import Candidate, Plan

__all__ = ["Candidate", "FitBudget", "FitResult", "Plan", "fit"]
