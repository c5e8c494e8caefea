#!/usr/bin/env python3
"""Writes the golden log of format version 1: `log/` and `expected.tsv`, beside this file.

Written from docs/FORMAT.md alone. No line of it comes from the crate, so that a mistake in the
crate's encoder cannot hide behind the same mistake in its decoder. It is a second, slower
implementation of the page: if the two disagree, the page decides.

The log was closed cleanly. It has a sealed segment that compaction left, of which the manifest says
when that was and how many tombstones it has, and an active one. Between them they have every part a
record can have. Running this again writes the same bytes.

expected.tsv has a line for each record, with six fields between tabs:

    offset, append time in us, caller's time in us or "-", key or "-", value or "tombstone",
    headers as "name=value,name=value" or "-"

Keys, values, header names and header values are "0x" and their bytes in hexadecimal, so that "0x"
is empty and "-" is absent. A line that begins with "#" is a comment.
"""

import struct
import zlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
LOG_ID = 0x00112233445566778899AABBCCDDEEFF
T0 = 1_700_000_000_000_000  # 2023-11-14 22:13:20 UTC


def crc(init, data):
    return zlib.crc32(data, init)


def varint(value):
    out = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def prefixed(data):
    return varint(len(data)) + data


class Record:
    """A record; `value=None` is a tombstone, `step` and `delta` are 0 if absent."""

    def __init__(self, value, key=None, headers=(), timestamp=None, delta=0, step=0):
        self.value, self.key, self.headers = value, key, headers
        self.timestamp, self.delta, self.step = timestamp, delta, step

    def encode(self):
        flags, parts = 0, b""
        if self.step:
            flags |= 1 << 5
            parts += varint(self.step)
        if self.delta:
            flags |= 1 << 4
            parts += varint(self.delta)
        if self.timestamp is not None:
            flags |= 1 << 3
            parts += struct.pack("<q", self.timestamp)
        if self.key is not None:
            flags |= 1 << 0
            parts += prefixed(self.key)
        if self.value is None:
            flags |= 1 << 1
        else:
            parts += prefixed(self.value)
        if self.headers:
            flags |= 1 << 2
            pairs = b"".join(prefixed(n.encode()) + prefixed(v) for n, v in self.headers)
            parts += prefixed(pairs)
        return bytes([flags]) + parts


class Frame:
    """Records written together; `count` offsets from `base` on, `durable` is the durable mark."""

    def __init__(self, base, time, count, durable, records):
        self.base, self.time, self.count = base, time, count
        self.durable, self.records = durable, records

    def encode(self, seed):
        body = b"".join(record.encode() for record in self.records)
        covered = struct.pack(
            "<IQqIIIBBH",
            len(body),
            self.base,
            self.time,
            self.count,
            self.base - self.durable,
            crc(0, body),
            1,  # kind: data
            0,  # codec: none
            0,  # flags
        )
        frame = struct.pack("<I", crc(seed, covered)) + covered + body
        return frame + bytes(-len(frame) % 8)

    def entries(self):
        """Each record with its offset and its append time."""
        offset = self.base
        for record in self.records:
            offset += record.step
            yield offset, self.time + record.delta, record
            offset += 1
        assert offset <= self.base + self.count


class Segment:
    """A segment; `previous` is the one before or None, `compacted` when it was, or 0."""

    def __init__(self, id, seed, state, frames, previous=None, compacted=0):
        self.id, self.seed, self.state, self.frames = id, seed, state, frames
        self.previous, self.compacted = previous, compacted
        self.base = frames[0].base
        self.end = self.base
        for frame in frames:
            assert frame.base == self.end
            self.end += frame.count
        self.name = f"{self.base:020}-{self.id:08}"
        self.encode()

    def encode(self):
        covered = struct.pack(
            "<8sHHI16sQQQQI",
            b"STRATSEG",
            1,  # version
            0,  # reserved
            self.seed,
            LOG_ID.to_bytes(16, "little"),
            self.id,
            self.base,
            self.previous.id if self.previous else 0,
            self.previous.end if self.previous else self.base,
            0,  # reserved
        )
        self.log = covered + struct.pack("<I", crc(0, covered))
        assert len(self.log) == 72

        entries, last = [], None
        for frame in self.frames:
            if last is None or len(self.log) - last >= 4096:
                last = len(self.log)
                entries.append(struct.pack("<IIq", frame.base - self.base, last, frame.time))
            self.log += frame.encode(self.seed)

        covered = struct.pack("<QQQII", self.id, self.base, len(self.log), self.seed, len(entries))
        covered += b"".join(entries)
        self.index = struct.pack("<8sHHI", b"STRATIDX", 1, 0, crc(0, covered)) + covered

    def entries(self):
        return [entry for frame in self.frames for entry in frame.entries()]

    def row(self):
        entries = self.entries()
        tombstones = sum(record.value is None for _, _, record in entries)
        return struct.pack(
            "<QQQQqqQIIqQ16s",
            self.id,
            self.base,
            self.end,
            len(self.log),
            entries[0][1],
            entries[-1][1],
            len(entries),
            self.state,
            0,  # reserved
            self.compacted,
            tombstones if self.compacted else 0,
            b"",  # reserved, filled up with zeros
        )


def manifest(segments, start):
    compacted = [segment.end for segment in segments if segment.compacted]
    covered = struct.pack(
        "<8sHHI16sQQqQQ8s",
        b"STRATMAN",
        1,  # version
        1,  # flags: closed cleanly
        len(segments),
        LOG_ID.to_bytes(16, "little"),
        start,
        max(segment.id for segment in segments) + 1,
        segments[-1].entries()[-1][1],
        1,  # truncation epoch: the end was cut back once
        max(compacted, default=0),  # compacted to
        b"",  # reserved, filled up with zeros
    )
    covered += b"".join(segment.row() for segment in segments)
    return covered + struct.pack("<I", crc(0, covered))


def hexadecimal(data):
    return "0x" + data.hex()


def line(offset, time, record):
    headers = ",".join(f"{hexadecimal(n.encode())}={hexadecimal(v)}" for n, v in record.headers)
    return "\t".join([
        str(offset),
        str(time),
        "-" if record.timestamp is None else str(record.timestamp),
        "-" if record.key is None else hexadecimal(record.key),
        "tombstone" if record.value is None else hexadecimal(record.value),
        headers or "-",
    ])


SEALED, ACTIVE = 1, 3

FIRST = Segment(1, 0x5EED0001, SEALED, [
    Frame(0, T0, 1, 0, [
        Record(b"hello"),
    ]),
    # Seven records of one write, closed when the record before was not durable yet.
    Frame(1, T0 + 1_000, 7, 0, [
        Record(b""),
        Record(b"v", key=b"j"),
        Record(b"no name", key=b""),
        Record(None, key=b"k", delta=5),
        Record(b"41.2", key=b"sensor-7", delta=5,
               headers=[("unit", b"C"), ("unit", b"F"), ("", b""), ("größe", b"\x00\xff")]),
        Record(b"before 1970", timestamp=-1, delta=300),
        Record(b"", timestamp=1_537_727_414_000_000, delta=300),
    ]),
    # What compaction left of 400 records. The last of them is gone, too.
    Frame(8, T0 + 2_000, 400, 3, [
        Record(b"survivor", key=b"a", step=2),
        Record(b"next to it", key=b"b"),
        Record(b"everything", key=b"c", step=300, delta=20_000, timestamp=-2**63,
               headers=[("h", b"1")]),
        Record(None, key=b"d", step=1, delta=20_000, headers=[("why", b"deleted")]),
    ]),
    Frame(408, T0 + 50_000, 1, 408, [
        Record(bytes(i % 251 for i in range(300))),
    ]),
], compacted=T0 + 90_000)

SECOND = Segment(2, 0xFEED0002, ACTIVE, [
    # Long enough for the next frame to have an entry in the index.
    Frame(409, T0 + 60_000, 1, 409, [
        Record(b"\xa5" * 4_200, key=b"large"),
    ]),
    Frame(410, T0 + 70_000, 2, 409, [
        Record(b"one"),
        Record(b"two", delta=1),
    ]),
    Frame(412, T0 + 70_001, 1, 412, [
        Record(b"last", timestamp=2**63 - 1),
    ]),
], previous=FIRST)


def main():
    segments = [FIRST, SECOND]
    log = HERE / "log"
    log.mkdir(exist_ok=True)
    (log / "MANIFEST").write_bytes(manifest(segments, start=0))
    for segment in segments:
        (log / f"{segment.name}.log").write_bytes(segment.log)
        (log / f"{segment.name}.index").write_bytes(segment.index)
    lines = ["# offset, append time, timestamp, key, value, headers: see write.py"]
    lines += [line(*entry) for segment in segments for entry in segment.entries()]
    (HERE / "expected.tsv").write_bytes(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
