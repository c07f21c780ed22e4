-- MCP tools: a changed definition is accepted by people, in the token pool, which keeps what people
-- decide. The tool pool meets the servers: it pins what is new and notes what changed, and cannot put
-- another definition in the place of a pinned one.

GRANT SELECT ON public.mcp_tools TO switchboard_token;
GRANT UPDATE (definition, definition_hash, read_only, idempotent, override_repeatable, state, pinned_at,
        pinned_by, changed_definition)
    ON public.mcp_tools TO switchboard_token;
REVOKE UPDATE (definition, definition_hash, read_only, idempotent, override_repeatable, pinned_at, pinned_by)
    ON public.mcp_tools FROM switchboard_tool;
ALTER POLICY tenant ON public.mcp_tools TO switchboard_tool, switchboard_token;
