"""Make the notebooks from the tutorials' pages, and run them: ``make notebooks``.

    python docs/notebooks.py [--run]

A notebook has the page's code in its cells; what a page asks of the command line, the last ones ask
of Python. It is kept without outputs; --run executes each from top to bottom and keeps nothing.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from execute import DOCS, read
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NAMES = {"snntorch": "snnTorch", "spikingjelly": "SpikingJelly", "norse": "norse"}
_ENDING = (
    (
        "## Deploy\n\nThe network as it is, its data, a target. The result shows itself; "
        "`deployment.report()` is all of it as plain data.",
        """import osbc_deploy

calibration, held_out = (np.load(f"{name}.npz") for name in ("calibration", "test"))
known, unseen = ((part["spikes"], part["labels"]) for part in (calibration, held_out))
options = osbc_deploy.DeployOptions(target="loihi2", sparsity=0.7, bits=8)
deployment = osbc_deploy.deploy(model, known, test=unseen, options=options)
deployment
""",
    ),
    (
        "## Verify\n\nWhat pruning, quantization and integers each change, layer by layer.",
        """verification = osbc_deploy.verify(model, known, test=unseen, options=options)
verification
""",
    ),
    (
        "## Save and export\n\nThe folder is what `osbc-deploy check`, `report` and `export` take; "
        "`verify.html` in it is the page to keep.",
        """verification.save("image")
osbc_deploy.export("image", "fw", format="c")
""",
    ),
)
"""What follows the training, as text and code."""


def notebook(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a tutorial, without outputs."""
    intro = (
        f"# {NAMES[name]}: from training to the report\n\nThe same as the tutorial "
        f"[{NAMES[name]} to firmware](../tutorials/{name}.md), in Python alone. Digits of 8 x 8 "
        "pixels become spikes, a small network learns them, and is compressed for a chip."
    )
    titles = {"data.py": "## Data", "mymodel.py": "## The network", "train.py": "## Training"}
    cells = [new_markdown_cell(intro)]
    for block in read(DOCS / "tutorials" / f"{name}.md").blocks:
        file = block.fate.removeprefix("file ")
        if file in titles:
            lines = [
                line
                for line in block.text.splitlines()[1:]
                if line
                not in (
                    "from mymodel import net",
                    'save_file(model.state_dict(), "net.safetensors")',
                )
                and "safetensors" not in line
            ]
            cells += [new_markdown_cell(titles[file]), new_code_cell("\n".join(lines).strip())]
    for text, code in _ENDING:
        cells += [new_markdown_cell(text), new_code_cell(code.strip())]
    for number, cell in enumerate(cells):
        # The same notebook is the same bytes.
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def notebooks() -> Iterator[tuple[Path, str]]:
    """Return each file and its text."""
    for name in NAMES:
        yield DOCS / "notebooks" / f"{name}.ipynb", nbformat.writes(notebook(name)) + "\n"


def run() -> None:
    """Execute every notebook in a folder of its own."""
    from nbclient import NotebookClient

    for path, text in notebooks():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = nbformat.reads(text, as_version=4)
            NotebookClient(found, timeout=1800, resources={"metadata": {"path": folder}}).execute()
        printed = sum(
            len(out.get("text", "").splitlines())
            for c in found.cells
            for out in c.get("outputs", ())
        )
        print(
            f"{path.name}: {len(found.cells)} cells, {printed} lines printed, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    if "--run" in sys.argv[1:]:
        run()
    else:
        for place, written in notebooks():
            place.write_text(written, "utf-8")
