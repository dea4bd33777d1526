"""The binary chip image, core by core: its layout, writing and reading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from osbc_deploy.errors import UsageError
from osbc_deploy.formats.format import Export, Exported, Format

if TYPE_CHECKING:
    from osbc_deploy.fixedpoint.formats import NumberFormats
    from osbc_deploy.fixedpoint.network import FixedPointNetwork

__all__ = ["FORMAT"]


def _read(path: Path, formats: NumberFormats | None) -> FixedPointNetwork:
    from osbc_deploy.formats.image.read import read_image

    del formats  # an image holds its own
    return read_image(path)


def _export(network: FixedPointNetwork, path: Path, asked: Export) -> Exported:
    from osbc_deploy.chip.mapping import map_network
    from osbc_deploy.formats.image.write import write_image

    if asked.target is None:
        raise UsageError(
            "--target: is missing, and no report names one that comes with the tool as it was "
            "deployed on. Give it, or the file that describes it."
        )
    if path.suffix != FORMAT.suffix:
        raise UsageError(f"{path}: image files must end in .img. Name it {path.name}.img.")
    about = write_image(network, map_network(network, asked.target), path).as_dict()
    lines = [
        f"core {section['core']}: {part['layer']}[{part['slice']}] at {part['offset']}, "
        f"{part['length']:,} B in the image, {part['memory_bytes']:,} B on the core"
        for section in about["sections"]
        for part in section.get("slices", ())
    ]
    lines.append(f"image: {about['image_bytes']:,} B, SHA-256 {about['sha256'][:16]}")
    return Exported(about, lines)


FORMAT = Format(
    title="chip image",
    suffix=".img",
    read_integers=_read,
    export=_export,
    help="one binary image, core by core",
)
