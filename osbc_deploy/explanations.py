"""What every error code means, why it usually comes, and what to do.

``osbc-deploy explain CODE`` and the reference of the documentation show this table. A code is kept
once it is given: its first digit is the exit code. One that is no longer raised stays here.
"""

from __future__ import annotations

from dataclasses import dataclass

from osbc_deploy import errors

__all__ = ["COMMAND_LINE", "EXPLANATIONS", "MEMORY", "SYSTEM", "Explanation"]

COMMAND_LINE, SYSTEM, MEMORY = "E240", "E241", "E242"
"""Codes of what is no class of ours: the command line itself, the system, its memory."""


@dataclass(frozen=True)
class Explanation:
    """What a code means.

    Attributes
    ----------
    title : str
        What is wrong, in a few words.
    meaning : str
        When it is raised.
    causes : tuple of str
        What it usually comes from and what to do about it, a sentence or two each.
    """

    title: str
    meaning: str
    causes: tuple[str, ...] = ()


EXPLANATIONS: dict[str, Explanation] = {
    errors.OsbcError.code: Explanation(
        "a bug in osbc-deploy",
        "An error that none of the others describes. Please report it with the command and the "
        "traceback.",
    ),
    errors.UsageError.code: Explanation(
        "an option or argument that is not valid",
        "A value is out of its range, two options contradict each other, or something that is "
        "required is missing. Nothing was computed.",
        (
            "The message names the option, what was given and what is allowed.",
            "osbc-deploy COMMAND --help lists all options; in a --config file they are in the "
            "table [COMMAND].",
        ),
    ),
    errors.NotFoundError.code: Explanation(
        "something that was named is not there",
        "A file, a folder, a package, or a name in one. It is looked for before anything heavy is "
        "imported.",
        (
            "A model is package.module:factory or path/to/file.py:factory, searched from the "
            "current folder, or a .nir or .net file.",
            "A framework that is not installed is an extra: the message has the command.",
        ),
    ),
    errors.WritingError.code: Explanation(
        "output that cannot be written",
        "The place does not exist, holds something else, is read-only or full. What was there "
        "before is untouched: files and folders appear whole or not at all.",
        (
            "A folder is replaced only if it holds what osbc-deploy wrote; choose another name.",
            "If stdout was closed or is full, everything that was to be saved has been saved.",
        ),
    ),
    errors.TargetError.code: Explanation(
        "a target that cannot be used",
        "No target of this name or file, or a description with unknown keys, numbers without a "
        "source, or limits that contradict each other.",
        (
            "osbc-deploy targets list shows the names; osbc-deploy targets validate FILE.toml "
            "checks your own file and lists everything that is wrong.",
        ),
    ),
    errors.ClusterError.code: Explanation(
        "workers that cannot be used",
        "Processes of a sweep do not start, do not answer, die, or run another version of "
        "osbc-deploy, Python or a library than this one.",
        ("Finished points are in the ledger: the same command resumes from there.",),
    ),
    errors.PluginError.code: Explanation(
        "a plugin that cannot be used",
        "A framework, a file format or a memory model from another package cannot be loaded, "
        "fails, or breaks the contract of its kind.",
        ("osbc-deploy doctor lists plugins with the package each comes from.",),
    ),
    errors.BackendError.code: Explanation(
        "a backend that cannot be used",
        "A simulator is not installed, failed, or exceeded its time limit.",
        (
            "osbc-deploy backends shows what is missing. --backend engine needs nothing.",
            "--backend-samples and --time-limit bound the work of a slow one.",
        ),
    ),
    COMMAND_LINE: Explanation(
        "a command line that cannot be read",
        "No such command or option, or an option without its value.",
        ("osbc-deploy --help lists the commands, osbc-deploy COMMAND --help its options.",),
    ),
    SYSTEM: Explanation(
        "the system refused",
        "The system did not provide a temporary file, a process or a socket.",
        ("Free space in the folder for temporary files (TMPDIR), or raise the limit named.",),
    ),
    MEMORY: Explanation(
        "not enough memory",
        "An allocation failed.",
        (
            "Give fewer calibration samples, or bound the solver with --solver-memory.",
            "OSBC_DEPLOY_MEMORY bounds what one input may take, not what the machine has.",
        ),
    ),
    errors.UnsupportedModelError.code: Explanation(
        "a model that cannot be represented",
        "A part of the network has no exact counterpart in the integer network. Every offender is "
        "listed with its place; nothing is approximated without being asked for.",
        (
            "osbc-deploy inspect MODEL shows how the model was interpreted.",
            "--substitute, --host-prefix and --repeat name ways around the usual ones: max "
            "pooling of currents, LayerNorm, images without a time axis.",
            "A forward() that gives other spikes than what was read from it is refused at the "
            "first layer that differs: often the time axis, or a state that is not reset.",
            "osbc-deploy compress takes any torch network, and returns weights for it.",
        ),
    ),
    errors.ChipLimitError.code: Explanation(
        "a network that needs what the target does not have",
        "The network was read correctly, but a feature, a delay or a number is beyond what the "
        "target declares: register widths, exponents, delays, encodings.",
        (
            "osbc-deploy targets show NAME prints the limits with their sources.",
            "Fewer bits, smaller weights or another target; numbers that are multiples of a step "
            "are rounded by deploying on the target that has that step.",
        ),
    ),
    errors.FitError.code: Explanation(
        "it does not fit",
        "More cores or memory than the target has, or than a budget allows. The report says what "
        "is over, where, and by how much.",
        (
            "osbc-deploy fit finds the sparsity and width of each layer that stay within a "
            "budget, and says what would help where none do.",
            "A core holds neurons of one layer, so a network takes at least one core per layer.",
        ),
    ),
    errors.FidelityError.code: Explanation(
        "two computations that must agree do not",
        "A backend differs from the engine, or the input drives a register beyond its range.",
        ("A difference between backend and engine is a bug: please report it with the folder.",),
    ),
    errors.GateError.code: Explanation(
        "a gate is broken",
        "A quality limit is not met: --gate of verify, accuracy limits of fit, or a "
        "budget's floor.",
        (
            "Keep more weights or bits, or calibrate on more samples.",
            "osbc-deploy verify --html shows which layer and which step costs most.",
        ),
    ),
    errors.ArtefactError.code: Explanation(
        "a file that is broken or contradicts itself",
        "A network, report, image, blob or graph is damaged, was edited, has an unknown "
        "version, or asks for more memory than one input may take.",
        (
            "Write it again with the command that wrote it; none of it was used.",
            "OSBC_DEPLOY_MEMORY raises what one input may take.",
        ),
    ),
    errors.DataError.code: Explanation(
        "samples that cannot be used",
        "Samples or labels of the wrong kind, shape or range.",
        (
            "Samples are (n, T, ...): batch first, then time. For images without a time axis give "
            "--repeat T.",
            "Values are spikes (0 and 1), counts, or real values with --input-bits.",
            "Labels are 0 to classes - 1. Several outputs per class are read with --readout "
            "vote:N.",
        ),
    ),
    errors.WeightsError.code: Explanation(
        "weights that cannot be used",
        "A file holds no tensors, not those of the model, or values that are not finite.",
        (
            "safetensors and checkpoints of torch.save (.pth, .pt) are read; of the latter only "
            "tensors, and nothing is run.",
            "The message lists every name that is missing, left over or of another shape.",
        ),
    ),
    errors.UntrustedError.code: Explanation(
        "something that is not proven",
        "A signature, a key or a digest does not prove what it should. Nothing was installed.",
        ("Check which key signed it, and which key the device trusts.",),
    ),
}
"""By code, in their order in the reference."""
