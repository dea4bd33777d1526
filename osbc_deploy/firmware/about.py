"""``network.json``: what a blob leaves out, and what its parts stand for in the user's model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from osbc_deploy.errors import ArtefactError
from osbc_deploy.firmware.read import read_blob
from osbc_deploy.fixedpoint.network import FixedPointNetwork
from osbc_deploy.limits import PARSED, read_text
from osbc_deploy.parsing import parse_json

__all__ = ["About", "AboutPopulation", "about", "read_about"]

FILE = "network.json"
SCHEMA = "osbc-deploy/network/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AboutInput(_Part):
    """What the input carries; see :class:`osbc_deploy.fixedpoint.coding.InputFormat`."""

    shape: list[int]
    kind: str
    bits: int
    signed: bool
    scale: float


class AboutPopulation(_Part):
    """A population, and the layer it is in the user's model."""

    name: str
    layer: str
    shape: list[int]
    neurons: int = Field(ge=1)
    spiking: bool
    count_unit: int = Field(ge=0, le=31)


class About(_Part):
    """What describes a network beside its blob."""

    schema_: str = Field(alias="schema", pattern=f"^{SCHEMA}$")
    identity: str = Field(pattern="^[0-9a-f]{32}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    blob_bytes: int
    state_bytes: int
    input: AboutInput
    readout: str
    classes: int = Field(ge=1)
    depth: int
    margin_unit: int = Field(ge=0, le=31)
    populations: list[AboutPopulation] = Field(min_length=1)


def about(network: FixedPointNetwork, data: bytes) -> About:
    """Return what describes a network beside its blob `data`."""
    blob, given = read_blob(data), network.input
    layers = network.layers
    return About(
        schema=SCHEMA,
        identity=blob.identity.hex(),
        sha256=hashlib.sha256(data).hexdigest(),
        blob_bytes=len(data),
        state_bytes=blob.state_bytes,
        input=AboutInput(
            shape=list(network.input_shape), kind=given.kind, bits=given.bits,
            signed=given.signed, scale=given.scale,
        ),
        readout=network.readout,
        classes=blob.classes,
        depth=int(blob.facts["depth"]),
        margin_unit=int(blob.facts["margin_unit"]),
        populations=[
            AboutPopulation(
                name=p.name, layer=layers[p.name], shape=list(p.shape), neurons=p.size,
                spiking=p.spiking, count_unit=part.fields["count_unit"],
            )
            for p, part in zip(network.populations, blob.populations, strict=True)
        ],
    )  # fmt: skip


def read_about(path: Path) -> About:
    """Read the description of a network.

    Parameters
    ----------
    path : Path
        The file, or the folder that an export wrote it to.

    Raises
    ------
    ArtefactError
        When there is none, or it is another kind of file.
    """
    path = path / FILE if path.is_dir() else path
    remedy = "Name the folder that 'export --format runtime' wrote, or its network.json."
    try:
        return About.model_validate(parse_json(read_text(path, each=PARSED)))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']}"
            for fault in error.errors()[:3]
        )
        raise ArtefactError(f"{path}: does not describe a network ({faults}). {remedy}") from error
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path}: cannot be read ({error}). {remedy}") from error
