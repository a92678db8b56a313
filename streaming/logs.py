"""Logs: pretty for people, JSON lines for machines; a session's lines carry its id."""

import logging
import sys
from typing import Any

import structlog

from streaming.config import Log

_QUIET = ("aioice", "aiortc", "libav", "uvicorn", "httpx", "PIL")
# without the values of variables, some of which are secrets
_TRACEBACKS = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))


def configure_logging(settings: Log) -> None:
    """Send everything, that of libraries too, to standard error."""
    pretty = settings.style == "pretty" or (settings.style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if pretty else "iso", utc=not pretty),
    ]
    renderer: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    handler.addFilter(_is_news)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_news(record: logging.LogRecord) -> bool:
    """Not how uvicorn ends: a port that is taken has a sentence of ours, and a second Ctrl-C needs none."""
    if record.name != "uvicorn.error" or not isinstance(record.msg, str | OSError):
        return True
    return isinstance(record.msg, str) and not record.msg.rstrip().endswith(("CancelledError", "KeyboardInterrupt"))
