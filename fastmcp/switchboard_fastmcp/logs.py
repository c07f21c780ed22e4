"""JSON lines on stdout: one object per event, with the request id that came from the gateway.

Only this package writes free text. Records of libraries are reduced to their origin, because
theirs quote what they were parsing: arguments, results, URLs.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

request_id: contextvars.ContextVar[str | None] = contextvars.ContextVar("request_id", default=None)

_logger = logging.getLogger("switchboard")


class JsonLines(logging.Formatter):
    """One record as one line: timestamp (RFC 3339, UTC), level, message, request_id?, fields."""

    def format(self, record: logging.LogRecord) -> str:
        ours = record.name == "switchboard"
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "message": record.getMessage() if ours else "library event",
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        if ours:
            line.update(getattr(record, "fields", {}))
        else:
            line["source"] = f"{record.name}:{record.funcName}:{record.lineno}"
            if record.exc_info and record.exc_info[0] is not None:
                line["exception"] = record.exc_info[0].__name__
        return json.dumps(line, ensure_ascii=False)


def start() -> None:
    """Send every log of the process to stdout in this format."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    # "Broken" streams of cancelled calls are reported as errors there, and are none.
    for name in ("mcp", "client", "fastmcp", "asyncio"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _logger.setLevel(logging.INFO)


def info(message: str, **fields: Any) -> None:
    """Something an operator wants to see once."""
    _logger.info(message, extra={"fields": fields})


def warning(message: str, **fields: Any) -> None:
    """A request that failed; `fields` hold its code and cause."""
    _logger.warning(message, extra={"fields": fields})


def error(message: str, **fields: Any) -> None:
    """A bug in this service."""
    _logger.error(message, extra={"fields": fields})
