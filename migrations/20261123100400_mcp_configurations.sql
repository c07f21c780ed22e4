-- MCP configurations: the servers an organization, or one of its members alone, has registered.

CREATE TABLE public.mcp_configurations (
    organization_id uuid NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    scope text NOT NULL,
    -- The one member who sees a configuration of scope 'user'.
    user_subject text,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    endpoint text NOT NULL,
    transport text NOT NULL,
    -- Which client speaks to the server: our own, or the FastMCP service.
    via text NOT NULL,
    auth_type text NOT NULL,
    -- Sealed with the organization's data key; never plain text.
    secret bytea,
    -- What a person may see of it, to tell one secret from another.
    secret_hint text,
    secret_set_at timestamptz,
    -- Raised by the code that seals, since the seal is bound to it: an older ciphertext does not open.
    secret_generation bigint NOT NULL DEFAULT 0,
    timeout_ms int NOT NULL DEFAULT 30000,
    enabled boolean NOT NULL DEFAULT true,
    generation bigint NOT NULL DEFAULT 1,
    created_by text NOT NULL,
    updated_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT mcp_configurations_pkey PRIMARY KEY (organization_id, id),
    -- One name per scope: the organization's (user_subject NULL) and each member's own.
    CONSTRAINT mcp_configurations_name_key UNIQUE NULLS NOT DISTINCT (organization_id, user_subject, name),
    CONSTRAINT mcp_configurations_organization_fkey
        FOREIGN KEY (organization_id) REFERENCES public.organizations (id),
    CONSTRAINT mcp_configurations_scope_check CHECK (scope IN ('organization', 'user')),
    CONSTRAINT mcp_configurations_user_subject_check CHECK ((scope = 'user') = (user_subject IS NOT NULL)),
    CONSTRAINT mcp_configurations_user_subject_length_check CHECK (char_length(user_subject) BETWEEN 1 AND 255),
    CONSTRAINT mcp_configurations_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT mcp_configurations_description_check CHECK (char_length(description) <= 4000),
    CONSTRAINT mcp_configurations_endpoint_check CHECK (char_length(endpoint) BETWEEN 1 AND 2048),
    CONSTRAINT mcp_configurations_transport_check CHECK (transport IN ('http', 'sse')),
    CONSTRAINT mcp_configurations_via_check CHECK (via IN ('native', 'fastmcp')),
    CONSTRAINT mcp_configurations_auth_type_check CHECK (auth_type IN ('none', 'bearer')),
    CONSTRAINT mcp_configurations_secret_check CHECK (secret IS NULL OR auth_type = 'bearer'),
    CONSTRAINT mcp_configurations_secret_set_at_check CHECK ((secret IS NULL) = (secret_set_at IS NULL)),
    CONSTRAINT mcp_configurations_secret_hint_check
        CHECK (secret_hint IS NULL OR (secret IS NOT NULL AND char_length(secret_hint) <= 16)),
    CONSTRAINT mcp_configurations_timeout_ms_check CHECK (timeout_ms BETWEEN 1000 AND 300000)
);

ALTER TABLE public.mcp_configurations OWNER TO switchboard_owner;
ALTER TABLE public.mcp_configurations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.mcp_configurations FORCE ROW LEVEL SECURITY;

CREATE TRIGGER raise_generation BEFORE UPDATE ON public.mcp_configurations
    FOR EACH ROW EXECUTE FUNCTION app.raise_generation();

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.mcp_configurations FROM PUBLIC, anon, authenticated, service_role;

-- The token pool keeps configurations, because they hold secrets. A row never changes hands: its id,
-- scope and member are not among the columns that change.
GRANT SELECT, INSERT, DELETE ON public.mcp_configurations TO switchboard_token;
GRANT UPDATE (name, description, endpoint, transport, via, auth_type, secret, secret_hint, secret_set_at,
        secret_generation, timeout_ms, enabled, generation, updated_by, updated_at)
    ON public.mcp_configurations TO switchboard_token;
-- The tool pool reads the row, and opens its secret, at the moment of a call.
GRANT SELECT ON public.mcp_configurations TO switchboard_tool;
-- A member's own configuration is hidden from the rest of the organization here, whatever a query asks.
CREATE POLICY tenant ON public.mcp_configurations TO switchboard_token, switchboard_tool
    USING (organization_id = (SELECT app.org_id())
        AND (scope = 'organization' OR user_subject = (SELECT app.subject())))
    WITH CHECK (organization_id = (SELECT app.org_id())
        AND (scope = 'organization' OR user_subject = (SELECT app.subject())));
