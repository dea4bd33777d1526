"""Pack an sdist anew so that its bytes depend on its contents alone: names, order, times, owners.

``python .ci/repack.py FILE.tar.gz EPOCH``
"""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path


def repacked(packed: bytes, epoch: int) -> bytes:
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(packed)) as old,
        gzip.GzipFile(fileobj=out, mode="wb", mtime=epoch, filename="") as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda m: m.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            file = old.extractfile(member) if member.isfile() else None
            if file is not None and member.name.endswith(".egg-info/SOURCES.txt"):
                # Setuptools writes setup.cfg into an sdist, and lists it where it was there before.
                text = file.read().replace(b"\nsetup.cfg\n", b"\n")
                member.size, file = len(text), io.BytesIO(text)
            new.addfile(member, file)
    return out.getvalue()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_bytes(repacked(place.read_bytes(), int(sys.argv[2])))
