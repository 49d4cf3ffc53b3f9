"""A TCP server that a test leads by the hand: it says these bytes, now, and then does that.

    async with ScriptedServer() as server:
        asking = group.create_task(transport.post(...))
        peer = await server.accept()
        request = await peer.request()
        peer.say(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\nhi")

Nothing happens by itself, so tests need no waiting by the clock.
"""

import asyncio
import socket
from types import TracebackType
from typing import Self


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.has_ended = False  # By us.

    async def request(self) -> bytes:
        """The next request as it was sent, head and body."""
        head = await self.head()
        _, found, rest = head.lower().partition(b"\r\ncontent-length:")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        return head + await self._reader.readexactly(length)

    async def head(self) -> bytes:
        """The head of the next request; its body stays unread."""
        return await self._reader.readuntil(b"\r\n\r\n")

    def say(self, data: bytes) -> None:
        """Send `data` as it is."""
        self._writer.write(data)

    async def say_bytewise(self, data: bytes) -> None:
        """Send `data` a byte at a time, each in its own turn of the event loop."""
        for position in range(len(data)):
            self._writer.write(data[position : position + 1])
            await asyncio.sleep(0)

    def unsent_bytes(self) -> int:
        """How much of what was said the network has not taken, because the client does not read it."""
        return self._writer.transport.get_write_buffer_size()

    def end(self) -> None:
        """Send what was said, then close."""
        self.has_ended = True
        self._writer.close()

    def reset(self) -> None:
        """Break the connection: the client sees ECONNRESET."""
        self.has_ended = True
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._writer.transport.abort()

    async def is_closed(self) -> bool:
        """Wait until the client closes the connection. False if it sends something first."""
        try:
            return not await self._reader.read(1)
        except ConnectionError:
            return True


class ScriptedServer:
    """See the module. Listens on a free port of 127.0.0.1, or of `host`."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._host = host
        self.peers: list[Peer] = []  # All connections ever made.
        self._waiting: asyncio.Queue[Peer] = asyncio.Queue()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://[{self._host}]:{self.port}" if ":" in self._host else f"http://{self._host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return len(self.peers)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, self._host, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self.peers:
            peer._writer.transport.abort()
        await self._server.wait_closed()

    def stop_listening(self) -> None:
        """No new connections; those that were made stay."""
        self._server.close()

    async def accept(self) -> Peer:
        """The next connection, in the order they were made."""
        return await self._waiting.get()

    def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        self._waiting.put_nowait(peer)
