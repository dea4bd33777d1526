"""Names of what parent and worker exchange."""

__all__ = ["ANSWER", "INPUT", "LOG", "PREFIX"]

PREFIX = "osbc-xylo-"
INPUT, ANSWER, LOG = "input.npz", "answer.npz", "log.txt"
