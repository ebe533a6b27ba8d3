"""A way to a machine that can be cut, made silent, or made long: a TCP proxy on loopback."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

CHUNK = 256 * 1024


class Proxy:
    """`delay_s` is one way. Cutting resets every connection; a silent one forwards nothing more."""

    def __init__(self, host: str, port: int, *, delay_s: float = 0.0) -> None:
        self.passed = 0
        """Bytes from here to the machine."""
        self.cut_at = 0
        """Once so many have passed, every connection is cut; then no more."""
        self._to = (host, port)
        self._delay_s = delay_s
        self._silent = False
        self._shut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0)).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Every connection that there is; the next one is served."""
        self._do(self._cut()).result(10)

    def be_silent(self) -> None:
        """What is connected hears nothing more, and is not told so; the next one is served."""
        self._do(self._hush()).result(10)

    def shut(self, shut: bool) -> None:
        """Whether nobody new comes through."""
        self._shut = shut

    def _do(self, what: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._shut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            await asyncio.gather(
                self._pass(reader, far_writer, self._count), self._pass(far_reader, writer, len)
            )
        except asyncio.CancelledError:
            pass  # the proxy ends, and asyncio would tell of it
        finally:
            for one in pair:
                one.transport.abort()
            self._writers -= pair

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, see: Callable[[bytes], Any]
    ) -> None:
        """What was read goes on after the delay, and meanwhile more is read."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

        async def write() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(due - self._loop.time(), 0))
                if not data:
                    with suppress(OSError):
                        sink.write_eof()
                    return
                if sink not in self._writers:
                    continue
                sink.write(data)
                with suppress(OSError):
                    await sink.drain()

        writing = asyncio.create_task(write())
        data = b"more"
        while data:
            try:
                data = await source.read(CHUNK)
            except OSError:
                data = b""
            see(data)
            await waiting.put((self._loop.time() + self._delay_s, data))
        await writing

    def _count(self, data: bytes) -> None:
        self.passed += len(data)
        if 0 < self.cut_at <= self.passed:
            self.cut_at = 0
            for writer in self._writers:
                writer.transport.abort()

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _hush(self) -> None:
        self._writers.clear()

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        # Each closes what is its own, also what is silent and no longer among the writers.
        await asyncio.gather(*others, return_exceptions=True)
