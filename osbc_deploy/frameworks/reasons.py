"""Why a layer or function has no counterpart on a chip, and what to do about it."""

from __future__ import annotations

__all__ = ["NOT_READ", "PRODUCTS", "unsupported_part"]

PRODUCTS = (
    *("matmul", "rmatmul", "bmm", "mm", "baddbmm", "einsum", "tensordot"),
    "scaled_dot_product_attention",
)
"""Functions that multiply signals by signals and add up."""


def _alike(names: str, reason: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


_REASONS = {
    **_alike(
        "DataParallel DistributedDataParallel AveragedModel",
        "it only spreads or averages a model, which is read alone: put its .module where it stands",
    ),
    "OptimizedModule": "torch.compile hides what it calls: compile nothing inside of a model",
    "VotingLayer": "it averages several neurons; only the last layer may, and it must leave none "
    "out: end the network with the neurons, or with a vote that --readout vote:N repeats",
    **_alike(
        f"SpikingSelfAttention MultiheadAttention TransformerEncoderLayer {' '.join(PRODUCTS)}",
        "it multiplies integers that change with the input, and no fixed synapse does that; masks "
        "of spikes are gates, and 'osbc-deploy compress' compresses such weights in the "
        "framework's own module",
    ),
    **_alike(
        "LayerNorm GroupNorm InstanceNorm1d InstanceNorm2d InstanceNorm3d RMSNorm "
        "LocalResponseNorm CrossMapLRN2d layer_norm group_norm instance_norm rms_norm normalize",
        "it divides by the spread of each sample, which no fixed weight does; train with "
        "BatchNorm, or run it on the host where it comes first (--host-prefix)",
    ),
    **_alike(
        "Softmax LogSoftmax Softmin Softmax2d softmax log_softmax",
        "it divides by a sum of signals; at the very end of a network the readout needs none",
    ),
    **_alike(
        "ReLU ReLU6 LeakyReLU PReLU ELU CELU SELU GELU SiLU Mish Softplus Sigmoid Tanh Hardtanh "
        "Hardswish Hardsigmoid Threshold relu relu6 leaky_relu prelu elu selu gelu silu mish "
        "sigmoid tanh hardtanh clamp clip abs exp sqrt log",
        "it bends a current between layers, and what reaches a neuron is a sum of weighted spikes; "
        "train with neurons in its place",
    ),
    **_alike(
        "round floor ceil trunc sign fake_quantize_per_tensor_affine "
        "fake_quantize_per_channel_affine fused_moving_avg_obs_fake_quant",
        "it rounds signals, and what reaches a neuron is a sum of weighted spikes as it is; a "
        "forward may round weights",
    ),
    **_alike(
        "EIFNode QIFNode IzhikevichNode LIFEx LIFExCell LIFAdEx LIFAdExCell IzhikevichCell "
        "IzhikevichSpiking KLIFNode PSN SlidingPSN MaskedPSN GatedLIFNode CLIFNode",
        "its membrane does not follow the linear equation of the chip's neurons",
    ),
    **_alike(
        "LSNNCell LSNN LSNNRecurrentCell LSNNRecurrent ALIFNode",
        "its threshold or current moves with its own spikes, a state that the chip's neurons lack",
    ),
    **_alike(
        "LIFRefracCell LIFRefracRecurrentCell LIFRefracRecurrent LIFAdExRefracCell "
        "LIFAdExRefracRecurrentCell LIFAdExRefracRecurrent LIFMCRefracRecurrentCell",
        "it rests for some steps after a spike, a state that the neurons here lack; train with "
        "LIFCell or LIFRecurrentCell",
    ),
    "CobaLIFCell": "its conductances multiply its potential, which no linear neuron does; train "
    "with LIFCell",
    "LIFMCRecurrentCell": "its compartments hear each other's potentials, and on a chip neurons "
    "hear spikes; train with LIFRecurrentCell",
    **_alike(
        "LeakyParallel LeakyKernel LinearLeaky StateLeaky",
        "it computes all steps at once and never resets, which no neuron of a chip does; train "
        "with Leaky",
    ),
    "NeuNorm": "it takes off each channel what all of them fired, kept in a state of its own; "
    "train with BatchNorm",
    **_alike(
        "TemporalEffectiveBatchNorm1d TemporalEffectiveBatchNorm2d BatchNormThroughTime1d "
        "BatchNormThroughTime2d",
        "it scales each time step by numbers of its own, and a chip's weights are the same in all; "
        "train with BatchNorm or ThresholdDependentBatchNorm",
    ),
    **_alike(
        "bernoulli bernoulli_ poisson multinomial",
        "it draws at random, so the same samples give another answer; make spikes of samples "
        "before they are given",
    ),
    **_alike(
        "Alpha",
        "its states are not the current and the potential of the chip's neurons",
    ),
    "SynapseFilter": "its current leaks only in steps without a spike, which no linear current "
    "does; train without it, with CUBALIFNode, whose current leaks in each step, in place of the "
    "neurons behind",
    **_alike(
        "SLSTM SConv2dLSTM LSTM LSTMCell GRU GRUCell RNN RNNCell",
        "its gates multiply signals by signals; recurrent spiking neurons are read",
    ),
    **_alike(
        "AvgPool3d MaxPool3d AdaptiveAvgPool3d AdaptiveMaxPool3d avg_pool3d max_pool3d",
        "it pools over channels or time beside rows and columns; pool those alone, with a pooling "
        "of two dimensions in each step",
    ),
    **_alike(
        "Conv3d ConvTranspose3d",
        "its kernel is none of the chip's convolutions; a Conv2d of the same map is read",
    ),
    **_alike(
        "Upsample UpsamplingBilinear2d interpolate upsample",
        "it mixes places of a map with weights of its own for each; train with mode='nearest' or a "
        "ConvTranspose2d, which are read",
    ),
    "grid_sample": "it takes values from where a grid says; Upsample and flips are read",
    **_alike(
        "topk sort argmax argsort kthvalue median quantile where gt ge lt le eq",
        "it chooses among signals by comparing them, which on the chip only a neuron's "
        "threshold does",
    ),
}  # fmt: skip


NOT_READ = {
    "sinabs": (
        "sinabs",
        "its neurons fire as often in a step as their potential holds thresholds, and that is cut "
        "off at min_v_mem; a chip's neurons fire once in a step and have no such floor",
        "Train it with spike_fn=SingleSpike and min_v_mem=None, and give the same network in "
        "SpikingJelly (IFNode with v_reset=None fires as IAF does then). A NIR file of it as it is "
        "holds neurons that fire once in a step, so it is another network: deploy tells its "
        "accuracy.",
    ),
    "rockpool": (
        "Rockpool",
        "its neurons fire as often in a step as their potential holds thresholds, and its modules "
        "are called in a way of their own",
        "Train it with max_spikes_per_dt=1 and the bias of each LIFTorch kept at 0, and give the "
        "same network in SpikingJelly: for each LIFTorch a CUBALIFNode(c_decay=beta, "
        "v_decay=alpha, v_threshold=threshold, v_reset=None), for each LinearTorch a Linear whose "
        "weight is (weight * beta).T, with the beta of the neurons behind. A NIR file of it as it "
        "is (to_nir(net, torch.zeros(net.size_in))) holds neurons that fire once in a step, so it "
        "is another network: deploy tells its accuracy.",
    ),
    "lava": (
        "lava-dl",
        "its blocks compute in integers of their own",
        "Export it with export_hdf5, and give the NetX file (.net).",
    ),
}
"""Packages whose modules no framework reads: what they are called, why, and what to do."""


def unsupported_part(name: str, title: str = "") -> str:
    """Return why a layer or function called `name` is refused, with the reason where one is known.

    Parameters
    ----------
    name : str
        Of the class or function.
    title : str, optional
        What it is called in the message.
    """
    reason = _REASONS.get(name)
    return f"{title or name} is not supported" + (f": {reason}" if reason else "")
