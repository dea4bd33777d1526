"""What happened in a fleet, as one self-contained page: no script, no file but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from fleet import Device, Version

from osbc_deploy.report.monitoring.page import channel_picture

_WIDTH, _ROW, _LEFT = 1000, 26, 36
_NOTICED = ("drift", "unhealthy", "reverted")
_SHOWN = ("confirmed", "drift", "unhealthy", "reverted", "rollback")


def fleet_page(
    name: str,
    devices: Sequence[Device],
    versions: Mapping[int, Version],
    *,
    records: int,
    window: int,
    each: int,
) -> str:
    """Return the page. Everything in it is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = Path(__file__).with_name("page.html.j2").read_text("utf-8")
    incidents = [i for device in devices for i in incidents_of(device, versions)]
    events = [event for device in devices for event in device.events]
    return environment.from_string(source).render(
        name=name,
        devices=devices,
        versions=list(versions.values()),
        records=records,
        window=window,
        each=each,
        incidents=incidents,
        false_alarms=sum(len(false_alarms(device, versions)) for device in devices),
        count=lambda kind: sum(event["kind"] == kind for event in events),
        rows=[_row(device, place, records) for place, device in enumerate(devices)],
        ticks=[(_x(record, records), record) for record in range(0, records + 1, 10)],
        width=_WIDTH,
        height=_ROW * len(devices) + 24,
        left=_LEFT,
        pictures=[
            _picture(d.number, d.judgement)
            for d in devices
            if d.judgement is not None and d.judgement["verdict"] != "ok"
        ],
    )


def incidents_of(device: Device, versions: Mapping[int, Version]) -> list[dict[str, Any]]:
    """Return what was done to a device, and what came of it."""
    done = []
    plan = device.plan
    if plan.trouble is not None:
        done.append((plan.trouble.record, plan.trouble.what, False))
    done += [(record, f"version {number}: {versions[number].what}", True)
             for record, number in plan.updates.items() if number > 2]  # fmt: skip
    found = []
    for record, what, update in done:
        later = [e for e in device.events if e["record"] >= record]
        seen = next((e for e in later if e["kind"] in _NOTICED), None)
        back = next((e for e in later if e["kind"] in ("reverted", "rollback")), None)
        found.append(
            {
                "device": device.number, "what": what, "record": record, "update": update,
                "noticed": None if seen is None else seen["record"],
                "after": None if seen is None else seen["record"] - record,
                "how": "not noticed" if seen is None else seen["how"],
                "done": "" if seen is None else "reported" if back is None else back["text"],
            }
        )  # fmt: skip
    return found


def false_alarms(device: Device, versions: Mapping[int, Version]) -> list[dict[str, Any]]:
    """Return what was said of a device before anything was done to it."""
    first = min((i["record"] for i in incidents_of(device, versions)), default=None)
    return [e for e in device.events
            if e["kind"] in _NOTICED and (first is None or e["record"] < first)]  # fmt: skip


def _x(record: float, records: int) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - 10) * record / records, 1)


def _row(device: Device, place: int, records: int) -> dict[str, Any]:
    """Return where the parts of a device's line lie."""
    ends = [record for record, _ in device.versions[1:]] + [records]
    bars = [
        {"x": _x(start, records), "width": max(_x(end, records) - _x(start, records), 0.5),
         "version": version}
        for (start, version), end in zip(device.versions, ends, strict=True)
        if version
    ]  # fmt: skip
    trouble = device.plan.trouble
    return {
        "y": _ROW * place + 22,
        "number": device.number,
        "bars": bars,
        "trouble": None if trouble is None else _x(trouble.record, records),
        "end": _x(records, records),
        "marks": [{"x": _x(e["record"], records), **e}
                  for e in device.events if e["kind"] in _SHOWN],
    }  # fmt: skip


def _picture(device: int, judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the channel of a device's last judgement that moved most."""
    chart = max(judgement["channels"], key=lambda c: (c["alarm"], c["peak"]))
    name = f"{chart['layer']}: {chart['what']}" if chart["layer"] else chart["what"]
    picture = channel_picture(chart, judgement["records"])
    return {"device": device, "name": name, "chart": chart, "picture": picture}
