"""Optimal Spiking Brain Compression: prune and quantize for the membrane potential.

:func:`.network.compress` walks the layers. For the weights into each population it

1. poses the problem (:mod:`.problem`) from the Hessian of the membrane loss (:mod:`.hessian`,
   :mod:`.moments`, :mod:`.damping`) on spikes as the membrane sees them (:mod:`.traces`), of all
   rows of the calibration samples (:mod:`.calibration`, moved copies of few: :mod:`.augmentation`)
   or of some of them (:mod:`.sampling`, :mod:`.shards`; in torch :mod:`.on_device`);
2. ranks the weights (:mod:`.ranking`): by elimination or forward selection, the cheaper one
   (:mod:`.selection`, :mod:`.elimination`, :mod:`.forward`, :mod:`.paths`), or in groups
   (:mod:`.patterns`);
3. solves for the values of those that stay (:mod:`.support`) and rounds them to codes
   (:mod:`.quantize`, :mod:`.feedback`): :mod:`.layer` does both for any sparsity and width;
4. tries variants of that (:mod:`.tuning`, :mod:`.matching`) in the network they are for
   (:mod:`.scene`), held out samples deciding (:mod:`.guard`, :mod:`.last_word`).

How many weights and bits each layer gets is a plan (:mod:`.plan`, :mod:`.allocation`,
:mod:`.shares`), whole neurons are removed before (:mod:`.thinning`, :mod:`.cutting`), and the
baselines are :mod:`.magnitude` and :mod:`.paper`. What is asked is :mod:`.options`, what comes out
:mod:`.result`; finished layers are kept by :mod:`.state`.

Bytes are the same on every machine, since sums and loops have one order (:mod:`.exact`,
:mod:`.kernels` on :mod:`.tiles`); rows and samples are spread over cores and workers
(:mod:`.rows`, :mod:`.activity`), and what several compressions need is computed once
(:mod:`.shared`); memory and time are known before (:mod:`.solver_memory`,
:mod:`.effort`, :mod:`.pace`, :mod:`.work`). See docs/compression.md.
"""

from osbc_deploy.compress.network import compress
from osbc_deploy.compress.options import CompressionOptions
from osbc_deploy.compress.result import CompressedNetwork, CompressedProjection

__all__ = ["CompressedNetwork", "CompressedProjection", "CompressionOptions", "compress"]
