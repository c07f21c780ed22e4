-- MCP configurations: secrets in headers of other names, retries, tool filters, a prefix for aggregated
-- lists, and what became of the secret when it was used.

ALTER TABLE public.mcp_configurations
    -- The header that carries a secret of type 'header'.
    ADD COLUMN auth_header text,
    -- How often a call that failed is sent again, where that is safe.
    ADD COLUMN retries int NOT NULL DEFAULT 0,
    -- Patterns of tool names; an empty list of allowed ones allows all.
    ADD COLUMN tools_allow text[] NOT NULL DEFAULT '{}',
    ADD COLUMN tools_deny text[] NOT NULL DEFAULT '{}',
    -- Before the tools' names in aggregated lists. NULL: the configuration's name.
    ADD COLUMN name_prefix text,
    -- What the server said to the secret when it was last used.
    ADD COLUMN secret_state text NOT NULL DEFAULT 'unused',
    ADD COLUMN secret_state_at timestamptz,
    DROP CONSTRAINT mcp_configurations_auth_type_check,
    ADD CONSTRAINT mcp_configurations_auth_type_check CHECK (auth_type IN ('none', 'bearer', 'header')),
    DROP CONSTRAINT mcp_configurations_secret_check,
    ADD CONSTRAINT mcp_configurations_secret_check CHECK (secret IS NULL OR auth_type IN ('bearer', 'header')),
    ADD CONSTRAINT mcp_configurations_auth_header_check
        CHECK ((auth_type = 'header') = (auth_header IS NOT NULL) AND char_length(auth_header) BETWEEN 1 AND 64),
    ADD CONSTRAINT mcp_configurations_retries_check CHECK (retries BETWEEN 0 AND 5),
    ADD CONSTRAINT mcp_configurations_tools_check
        CHECK (cardinality(tools_allow) <= 100 AND cardinality(tools_deny) <= 100
            AND array_position(tools_allow, NULL) IS NULL AND array_position(tools_deny, NULL) IS NULL),
    ADD CONSTRAINT mcp_configurations_name_prefix_check CHECK (char_length(name_prefix) <= 32),
    ADD CONSTRAINT mcp_configurations_secret_state_check
        CHECK (secret_state IN ('unused', 'valid', 'refused', 'expired')
            AND (secret_state = 'unused') = (secret_state_at IS NULL));

GRANT UPDATE (auth_header, retries, tools_allow, tools_deny, name_prefix, secret_state, secret_state_at)
    ON public.mcp_configurations TO switchboard_token;

-- The tool pool notes what became of a secret, and may change nothing else. That is no change of the
-- configuration: its generation, by which caches and editors tell versions apart, stays.
GRANT UPDATE (secret_state, secret_state_at) ON public.mcp_configurations TO switchboard_tool;
DROP TRIGGER raise_generation ON public.mcp_configurations;
CREATE TRIGGER raise_generation BEFORE UPDATE ON public.mcp_configurations
    FOR EACH ROW WHEN (CURRENT_USER <> 'switchboard_tool') EXECUTE FUNCTION app.raise_generation();
