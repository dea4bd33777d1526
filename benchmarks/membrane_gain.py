"""What the membrane Hessian gains over the current Hessian at 98 % sparsity, on two splits.

    python benchmarks/membrane_gain.py [--data FOLDER]

The splits are the even and the odd calibration samples; both methods get the same ones.
"""

from __future__ import annotations

import numpy as np
from _accuracy import Meter, parser, saccade, table, write

from osbc_deploy.compress import CompressionOptions, compress


def main() -> None:
    given = parser(__doc__ or "").parse_args()
    task = saccade(given.data)
    meter = Meter(task)
    rows, results = [], {}
    for tune in (False, True):
        gains = []
        for split in (0, 1):
            accuracy = {}
            for method in ("osbc", "obc"):
                options = CompressionOptions(sparsity=0.98, bits=8, method=method, tune=tune)
                done = compress(task.network, task.calibration[split::2], options)
                accuracy[method] = meter.measure(done.network)["accuracy"]
            gains.append(100 * (accuracy["osbc"] - accuracy["obc"]))
            name = f"{'tuned' if tune else 'plain'}, split {split}"
            results[name] = accuracy
            rows.append([name, *(f"{a:.2%}" for a in accuracy.values()), f"{gains[-1]:+.2f}"])
        rows.append(["mean", "", "", f"{np.mean(gains):+.2f}"])
    table(["98 %", "osbc", "obc", "points gained"], rows)
    write("membrane_gain", {"float": meter.accuracy, "splits": results})


if __name__ == "__main__":
    main()
