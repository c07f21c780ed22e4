-- MCP configurations: transport 'stdio', which names a program of the operator's catalogue in place of
-- an endpoint.

ALTER TABLE public.mcp_configurations
    -- The program's name. What it is (path, arguments, environment) is in the operator's file alone.
    ADD COLUMN catalogue text,
    ALTER COLUMN endpoint DROP NOT NULL,
    DROP CONSTRAINT mcp_configurations_transport_check,
    ADD CONSTRAINT mcp_configurations_transport_check CHECK (transport IN ('http', 'sse', 'stdio')),
    ADD CONSTRAINT mcp_configurations_catalogue_check CHECK (char_length(catalogue) BETWEEN 1 AND 64),
    ADD CONSTRAINT mcp_configurations_target_check
        CHECK ((transport = 'stdio') = (catalogue IS NOT NULL) AND (catalogue IS NULL) = (endpoint IS NOT NULL)),
    -- Programs are given no credentials.
    ADD CONSTRAINT mcp_configurations_program_check CHECK (catalogue IS NULL OR auth_type = 'none');

GRANT UPDATE (catalogue) ON public.mcp_configurations TO switchboard_token;
