"""`command`: a program writes the draft; JSON goes in, JSON comes out.

The program is an argv from settings and never passes a shell. It leads a process group of its own, so that
whatever it starts ends with the attempt: on success, failure, time limit and cancellation alike.
"""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from loguru import logger
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import to_json

from app.core.config import Settings
from app.executors.generators import Brief, Draft, GenerationFailed

OUTPUT_LIMIT_BYTES = 4 * 1024 * 1024
STDERR_LINE_BYTES = 4096
STDERR_LINES = 1000
TERM_GRACE_SECONDS = 2.0
KILL_GRACE_SECONDS = 5.0
LAST_WORDS_SECONDS = 1.0
_CHUNK_BYTES = 64 * 1024


class CommandDraft(BaseModel):
    """What the program writes to stdout; further keys are ignored."""

    title: str = Field(min_length=1)
    body: str = Field(min_length=1)


class CommandGenerator:
    """Runs the configured program once for a brief."""

    def __init__(self, settings: Settings) -> None:
        self._argv = settings.generator_command

    async def generate(self, brief: Brief) -> Draft:
        if not self._argv:
            raise GenerationFailed("no command is configured; set GENERATOR_COMMAND to a JSON list of arguments")
        name = PurePath(self._argv[0]).name
        draft = _read_draft(name, await run_command(self._argv, to_json(brief.as_dict())))
        return Draft(title=draft.title, body=draft.body, source=f"command: {name}")


async def run_command(argv: list[str], request: bytes) -> bytes:
    """Run `argv` with `request` on stdin and return its stdout. Its stderr goes to the attempt's log.

    Raises:
        GenerationFailed: it cannot be started, exits with another code than 0, or says too much.
    """
    name = PurePath(argv[0]).name
    try:
        process = await _start(argv)
    except (OSError, ValueError) as error:  # ValueError: a NUL in an argument
        raise GenerationFailed(f"{name} cannot be started: {error}") from error
    sending = asyncio.create_task(_send(process, request))
    logging = asyncio.create_task(_log_stderr(process, name))
    try:
        output = await _read_at_most(process, OUTPUT_LIMIT_BYTES + 1)
        if len(output) > OUTPUT_LIMIT_BYTES:
            raise GenerationFailed(f"{name} wrote more than {OUTPUT_LIMIT_BYTES} bytes to stdout")
        await sending
        last_line = await logging
        code = await process.wait()
    finally:
        await _end_group(process, sending, logging)
    if code != 0:
        raise GenerationFailed(f"{name} exited with {_exit_words(code)}" + (f": {last_line}" if last_line else ""))
    return output


def _read_draft(name: str, output: bytes) -> CommandDraft:
    try:
        return CommandDraft.model_validate_json(output)
    except ValidationError as error:
        faults = "; ".join(
            ".".join(["stdout", *map(str, fault["loc"])]) + f": {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise GenerationFailed(f'{name} did not write {{"title": …, "body": …}} as JSON: {faults}') from error


async def _start(argv: list[str]) -> Process:
    """Start `argv` as the leader of a process group of its own.

    Cancelled half-way, asyncio would kill the leader only, and what that had started would live on.
    """
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_kill_started)
        await asyncio.wait([starting])
        if starting.exception() is None:
            await _end_group(starting.result())
        raise


def _kill_started(starting: asyncio.Task[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _signal_group(starting.result(), signal.SIGKILL)


async def _send(process: Process, request: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - it was started with PIPE
    with suppress(BrokenPipeError, ConnectionResetError):  # a program need not read what it is told
        process.stdin.write(request)
        await process.stdin.drain()
        process.stdin.close()
        await process.stdin.wait_closed()


async def _read_at_most(process: Process, limit: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - it was started with PIPE
    output = bytearray()
    while len(output) < limit and (chunk := await process.stdout.read(_CHUNK_BYTES)):
        output += chunk
    return bytes(output[:limit])


async def _log_stderr(process: Process, name: str) -> str:
    """Log what the program says, up to a number of lines, and return the last one."""
    last, count = "", 0
    async for line in _stderr_lines(process):
        last, count = line, count + 1
        if count <= STDERR_LINES:
            logger.info("{}: {}", name, line)
    if count > STDERR_LINES:
        logger.warning("{}: {} further lines of stderr were not kept", name, count - STDERR_LINES)
    return last


async def _stderr_lines(process: Process) -> AsyncIterator[str]:
    # Not `readline()`: that gives up on a line longer than its buffer.
    assert process.stderr is not None  # noqa: S101 - it was started with PIPE
    pending = b""
    while chunk := await process.stderr.read(_CHUNK_BYTES):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in filter(bytes.strip, lines):
            yield _readable(line)
        pending = pending[:STDERR_LINE_BYTES]
    if pending.strip():
        yield _readable(pending)


def _readable(line: bytes) -> str:
    return line[:STDERR_LINE_BYTES].decode("utf-8", "replace").strip()


async def _end_group(process: Process, *streams: asyncio.Task[Any]) -> None:
    """End what is left of the process group: SIGTERM, a moment to tidy up, SIGKILL. Reap its leader, let
    `streams` take what is still in the pipes, close these."""
    try:
        if process.returncode is None:
            _signal_group(process, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), TERM_GRACE_SECONDS)
    finally:
        # Also when the leader is gone already (its children may not be) and when this wait was cancelled.
        _signal_group(process, signal.SIGKILL)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), KILL_GRACE_SECONDS)
        if streams:
            await asyncio.wait(streams, timeout=LAST_WORDS_SECONDS)
        # The only way to close the pipes now; a program that left the group may hold their other ends for ever.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _signal_group(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, number)


def _exit_words(code: int) -> str:
    return f"code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"
