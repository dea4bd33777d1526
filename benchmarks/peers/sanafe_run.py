"""Run a network in SANA-FE on its Loihi architecture: JSON of the network in, JSON of the run out.

Run by ``benchmarks/sanafe_crosscheck.py`` in an interpreter that has SANA-FE; knows nothing of
osbc-deploy. Usage: ``python sanafe_run.py NETWORK.json RUN.json``.
"""

import json
import sys
from importlib.resources import files

import sanafe


def built(about, arch):
    """Return the network on its cores."""
    net = sanafe.Network()
    groups = {}
    for group in about["groups"]:
        made = net.create_neuron_group(
            group["name"],
            len(group["cores"]),
            default_synapse_hw_name="loihi_dense_synapse",
            default_dendrite_hw_name="loihi_dendrites",
            log_spikes=True,
        )
        used = {}
        for number, (tile, core) in enumerate(group["cores"]):
            neuron = made[number]
            if "spikes" in group:
                unit = used[tile, core] = used.get((tile, core), -1) + 1
                neuron.set_attributes(
                    soma_hw_name=f"loihi_inputs[{unit}]",
                    model_attributes={"spikes": group["spikes"][number]},
                )
            else:
                neuron.set_attributes(
                    soma_hw_name="loihi_lif",
                    default_synapse_hw_name=f"loihi_{group['kinds'][number]}_synapse",
                    model_attributes={
                        "threshold": float(group["threshold"][number]),
                        "leak_decay": group["kept"][number] / 4096,
                        "input_decay": 0.0,
                        "reset_mode": group["reset"],
                    },
                )
            neuron.map_to_core(arch.tiles[tile].cores[core])
        groups[group["name"]] = made
    for part in about["synapses"]:
        before, after = groups[part["pre"]], groups[part["post"]]
        for pre, post, weight in part["weights"]:
            before[pre].connect_to_neuron(after[post], {"weight": float(weight)})
    return net


def main():
    network, result = sys.argv[1:]
    with open(network) as file:
        about = json.load(file)
    arch = sanafe.load_arch(str(files("sanafe.examples") / "loihi.yaml"))
    chip = sanafe.SpikingChip(arch)
    chip.load(built(about, arch))
    run = chip.sim(about["steps"], spike_trace=True, perf_trace=True, message_trace=True)
    names = ("sent", "synaptic", "columns", "rows")
    sent = {source: dict.fromkeys(names, 0) for source in ("input", "chip")}
    for step in run["message_trace"]:
        for message in step:
            if message["placeholder"]:
                continue
            counts = sent["input" if message["src_neuron_group_id"] == "input" else "chip"]
            counts["sent"] += 1
            counts["synaptic"] += message["spikes"]
            counts["columns"] += abs(message["src_x"] - message["dest_x"])
            counts["rows"] += abs(message["src_y"] - message["dest_y"])
    with open(result, "w") as file:
        json.dump(
            {
                "fired": [[str(neuron) for neuron in step] for step in run["spike_trace"]],
                "energy": run["energy"],
                "seconds": run["perf_trace"]["sim_time"],
                "messages": sent,
                "updated": sum(run["perf_trace"]["updated"]),
            },
            file,
        )


if __name__ == "__main__":
    main()
