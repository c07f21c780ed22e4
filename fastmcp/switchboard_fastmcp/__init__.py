"""Switchboard's FastMCP service: MCP clients kept open for the tool workers.

The workers speak MCP themselves to ordinary servers. This service exists for the rest (legacy
HTTP+SSE, servers only FastMCP gets along with, and, in a mode of its own, stdio), behind a small
authenticated HTTP interface that README.md beside this package describes.
"""

import os

# The FastMCP library reads settings of its own from FASTMCP_* and from a `.env` in the working
# directory. Ours share the prefix; a stray file must configure neither, and its log handlers
# would print payloads. This has to happen before the library is first imported.
os.environ["FASTMCP_ENV_FILE"] = os.devnull
os.environ["FASTMCP_LOG_ENABLED"] = "false"
