-- MCP tools: the definition of each tool as it was when it was pinned, so that a server that changes a
-- tool after it was trusted is noticed.

CREATE TABLE public.mcp_tools (
    organization_id uuid NOT NULL,
    configuration_id uuid NOT NULL,
    name text NOT NULL,
    -- The exact JSON bytes that the server sent: jsonb would drop what it does not keep.
    definition bytea NOT NULL,
    -- SHA-256.
    definition_hash bytea NOT NULL,
    -- The server's own hints (readOnlyHint, idempotentHint). They come from whom we do not trust.
    read_only boolean NOT NULL DEFAULT false,
    idempotent boolean NOT NULL DEFAULT false,
    -- An administrator's word on whether a call may be repeated; NULL leaves it to the hints.
    override_repeatable boolean,
    state text NOT NULL DEFAULT 'pinned',
    pinned_at timestamptz NOT NULL DEFAULT now(),
    pinned_by text NOT NULL,
    -- What the server says now, where it differs from the pinned definition.
    changed_definition bytea,
    CONSTRAINT mcp_tools_pkey PRIMARY KEY (organization_id, configuration_id, name),
    -- Composite, so that a tool cannot belong to another organization's configuration.
    CONSTRAINT mcp_tools_configuration_fkey FOREIGN KEY (organization_id, configuration_id)
        REFERENCES public.mcp_configurations (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT mcp_tools_name_check CHECK (char_length(name) BETWEEN 1 AND 256),
    CONSTRAINT mcp_tools_definition_hash_check CHECK (octet_length(definition_hash) = 32),
    CONSTRAINT mcp_tools_state_check CHECK (state IN ('pinned', 'changed')),
    CONSTRAINT mcp_tools_changed_definition_check CHECK ((state = 'changed') = (changed_definition IS NOT NULL))
);

ALTER TABLE public.mcp_tools OWNER TO switchboard_owner;
ALTER TABLE public.mcp_tools ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.mcp_tools FORCE ROW LEVEL SECURITY;

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.mcp_tools FROM PUBLIC, anon, authenticated, service_role;

-- The tool pool meets the servers, so it pins what they say. Rows go only with their configuration.
GRANT SELECT, INSERT ON public.mcp_tools TO switchboard_tool;
GRANT UPDATE (definition, definition_hash, read_only, idempotent, override_repeatable, state, pinned_at,
        pinned_by, changed_definition)
    ON public.mcp_tools TO switchboard_tool;
CREATE POLICY tenant ON public.mcp_tools TO switchboard_tool
    USING (organization_id = (SELECT app.org_id()))
    WITH CHECK (organization_id = (SELECT app.org_id()));
