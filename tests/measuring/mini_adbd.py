"""A small adb daemon on loopback TCP that plays a phone for the real adb client: shell (v2), push, pull, reverse.

The transport protocol is Android's public one: messages of six little-endian words (command, two arguments, length of
the data, its checksum, the command inverted) and data. There is no authentication and no TLS. Paths that Android has
and this machine has not are below `root`. Run as a program: mini_adbd.py ROOT [BIN], prints its port.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
from pathlib import Path

SYNC, CNXN, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(word, "little") for word in (b"SYNC", b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MOST_DATA = 0x01000001, 256 * 1024  # from this version on checksums may be left out
BANNER = b"device::ro.product.name=mini;ro.product.model=Mini;ro.product.device=mini;features=shell_v2,cmd"
ANDROID = ("/data/local/tmp", "/data/data")


class Stream:
    """One opened service. Writes wait for the other side's OKAY, as the protocol has it."""

    def __init__(self, phone: Connection, local: int, remote: int) -> None:
        self.phone, self.local, self.remote = phone, local, remote
        self.arrived: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.taken = asyncio.Event()
        self.rest = b""
        self.closed = False

    async def write(self, data: bytes) -> None:
        for start in range(0, len(data), self.phone.most):
            if self.closed:
                return
            self.taken.clear()
            await self.phone.send(WRTE, self.local, self.remote, data[start : start + self.phone.most])
            await self.taken.wait()

    async def read(self, count: int) -> bytes:
        while len(self.rest) < count:
            data = await self.arrived.get()
            if data is None:
                raise EOFError
            self.rest += data
        found, self.rest = self.rest[:count], self.rest[count:]
        return found

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.phone.send(CLSE, self.local, self.remote)


class Connection:
    """One adb server that is connected to the phone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, root: Path, programs: str) -> None:
        self.reader, self.writer, self.root, self.programs = reader, writer, root, programs
        self.streams: dict[int, Stream] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.reversed: dict[str, asyncio.Server] = {}
        self.last, self.most = 0, 4096
        self.sending = asyncio.Lock()

    async def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        head = struct.pack("<6I", command, first, second, len(data), 0, command ^ 0xFFFFFFFF)
        async with self.sending:
            self.writer.write(head + data)
            await self.writer.drain()

    def stream(self, remote: int) -> Stream:
        self.last += 1
        made = self.streams[self.last] = Stream(self, self.last, remote)
        return made

    async def run(self) -> None:
        try:
            while True:
                command, first, second, length, _, inverted = struct.unpack("<6I", await self.reader.readexactly(24))
                if command ^ 0xFFFFFFFF != inverted:
                    return
                data = await self.reader.readexactly(length)
                await self.take(command, first, second, data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for task in self.tasks:
                task.cancel()
            for server in self.reversed.values():
                server.close()
            self.writer.close()

    async def take(self, command: int, first: int, second: int, data: bytes) -> None:
        stream = self.streams.get(second)
        if command == CNXN:
            self.most = min(second, MOST_DATA)
            await self.send(CNXN, VERSION, self.most, BANNER)
        elif command == OPEN:
            opened = self.stream(first)
            task = asyncio.create_task(self.serve(opened, data.rstrip(b"\0").decode()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        elif command == WRTE and stream:
            await self.send(OKAY, stream.local, stream.remote)
            stream.arrived.put_nowait(data)
        elif command == OKAY and stream:
            stream.remote = first
            stream.taken.set()
        elif command == CLSE and stream:
            del self.streams[second]
            stream.closed = True
            stream.taken.set()
            stream.arrived.put_nowait(None)

    async def serve(self, stream: Stream, service: str) -> None:
        kind, _, rest = service.partition(":")
        known = {"sync": self.files, "reverse": self.reverse}
        name = kind.split(",")[0]
        if name not in (*known, "shell", "exec"):
            await self.send(CLSE, 0, stream.remote)
            return
        await self.send(OKAY, stream.local, stream.remote)
        try:
            if name in known:
                await known[name](stream, rest)
            else:
                await self.shell(stream, rest, framed="v2" in kind.split(","))
        except EOFError:
            pass
        await stream.close()

    def here(self, path: str) -> Path:
        return self.root / path.lstrip("/") if path.startswith(ANDROID) else Path(path)

    async def shell(self, stream: Stream, command: str, *, framed: bool) -> None:
        for folder in ANDROID:
            command = command.replace(folder, str(self.root) + folder)
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=self.root,
            start_new_session=True,
            env={**os.environ, "PATH": f"{self.programs}:/usr/bin:/bin"},
        )

        async def copy(pipe: asyncio.StreamReader | None, number: int) -> None:
            assert pipe is not None
            while data := await pipe.read(32768):
                data = data.replace(str(self.root).encode(), b"")
                await stream.write((struct.pack("<BI", number, len(data)) if framed else b"") + data)

        try:
            await asyncio.gather(copy(process.stdout, 1), copy(process.stderr, 2))
            code = await process.wait()
        except asyncio.CancelledError:
            os.killpg(process.pid, signal.SIGHUP)  # as a phone whose cable is pulled
            raise
        if framed:
            await stream.write(struct.pack("<BIB", 3, 1, code & 0xFF if code >= 0 else 128 - code))

    async def reverse(self, stream: Stream, request: str) -> None:
        """The device listens, and each of its connections goes through adb to the host's port."""
        verb, _, rest = request.partition(":")
        if verb == "forward":
            device, host = rest.removeprefix("norebind:").split(";")

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self.carry(host, reader, writer)

            self.reversed[device] = await asyncio.start_server(connected, "127.0.0.1", int(device.split(":")[1]))
        elif verb == "killforward" and rest in self.reversed:
            self.reversed.pop(rest).close()
        else:
            await stream.write(b"FAIL" + b"%04x" % len(request) + request.encode())
            return
        await stream.write(b"OKAYOKAY")

    async def carry(self, host: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = self.stream(0)
        await self.send(OPEN, stream.local, 0, host.encode() + b"\0")
        await stream.taken.wait()

        async def up() -> None:
            while data := await reader.read(65536):
                await stream.write(data)
            await stream.close()

        task = asyncio.create_task(up())
        while (data := await stream.arrived.get()) is not None:
            writer.write(data)
            await writer.drain()
        writer.close()
        task.cancel()

    async def files(self, stream: Stream, _: str) -> None:
        """adb's sync service: STAT, SEND and RECV of version 1."""
        while True:
            what, length = struct.unpack("<4sI", await stream.read(8))
            if what == b"QUIT":
                return
            argument = (await stream.read(length)).decode()
            if what in (b"STAT", b"LSTA"):
                await stream.write(self.stat(what, self.here(argument)))
            elif what == b"SEND":
                await self.receive(stream, *argument.rsplit(",", 1))
            elif what == b"RECV":
                await self.deliver(stream, self.here(argument))
            else:
                await stream.write(struct.pack("<4sI", b"FAIL", 7) + b"unknown")
                return

    def stat(self, what: bytes, path: Path) -> bytes:
        try:
            found = path.lstat()
        except OSError:
            return struct.pack("<4s3I", what, 0, 0, 0)
        return struct.pack("<4s3I", what, found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))

    async def receive(self, stream: Stream, path: str, mode: str) -> None:
        data = bytearray()
        while True:
            what, length = struct.unpack("<4sI", await stream.read(8))
            if what == b"DONE":
                break
            data += await stream.read(length)
        try:
            self.here(path).write_bytes(bytes(data))
            self.here(path).chmod(int(mode) & 0o777)
            await stream.write(struct.pack("<4sI", b"OKAY", 0))
        except OSError as error:
            reason = (error.strerror or "?").encode()
            await stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)

    async def deliver(self, stream: Stream, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = (error.strerror or "?").encode()
            await stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            await stream.write(struct.pack("<4sI", b"DATA", len(piece)) + piece)
        await stream.write(struct.pack("<4sI", b"DONE", 0))


async def main(root: Path, programs: str) -> None:
    for folder in ANDROID:
        (root / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(reader, writer, root, programs).run()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).resolve(), sys.argv[2] if len(sys.argv) > 2 else "/nowhere"))
