"""Fit to chip: the sparsity and bits of each layer that lose least within a budget."""

from osbc_deploy.fitting.run import FitBudget, FitResult, fit
from osbc_deploy.fitting.search import Candidate, Plan

__all__ = ["Candidate", "FitBudget", "FitResult", "Plan", "fit"]
