-- Tenant keys: the data-encryption keys of each organization, wrapped by a key-encryption key that the
-- database never sees. What is stored here opens nothing without it.

CREATE TABLE public.tenant_keys (
    organization_id uuid NOT NULL,
    -- The data key's id, as written into every sealed value.
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Which key-encryption key wrapped it.
    kek_id text NOT NULL,
    wrapped bytea NOT NULL,
    -- The cipher the data key is for.
    algorithm text NOT NULL,
    -- New values are sealed with the active key; a retired one still opens what it sealed.
    state text NOT NULL DEFAULT 'active',
    -- Values sealed so far: random nonces bound how many one key may seal.
    writes bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tenant_keys_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT tenant_keys_organization_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations (id),
    CONSTRAINT tenant_keys_kek_id_check CHECK (char_length(kek_id) BETWEEN 1 AND 64),
    CONSTRAINT tenant_keys_wrapped_check CHECK (octet_length(wrapped) BETWEEN 32 AND 1024),
    CONSTRAINT tenant_keys_algorithm_check CHECK (char_length(algorithm) BETWEEN 1 AND 32),
    CONSTRAINT tenant_keys_state_check CHECK (state IN ('active', 'retired')),
    CONSTRAINT tenant_keys_writes_check CHECK (writes >= 0)
);

-- Two workers that meet a new organization at once both try to create its key: one of them loses here.
CREATE UNIQUE INDEX tenant_keys_active_key ON public.tenant_keys (organization_id) WHERE state = 'active';

ALTER TABLE public.tenant_keys OWNER TO switchboard_owner;
ALTER TABLE public.tenant_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.tenant_keys FORCE ROW LEVEL SECURITY;

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.tenant_keys FROM PUBLIC, anon, authenticated, service_role;

-- The token pool creates, counts, retires and re-wraps keys. It deletes none: a value sealed with a
-- lost key is lost.
GRANT SELECT, INSERT ON public.tenant_keys TO switchboard_token;
GRANT UPDATE (kek_id, wrapped, state, writes) ON public.tenant_keys TO switchboard_token;
-- The tool pool opens the secret of the server it calls.
GRANT SELECT ON public.tenant_keys TO switchboard_tool;
CREATE POLICY tenant ON public.tenant_keys TO switchboard_token, switchboard_tool
    USING (organization_id = (SELECT app.org_id()))
    WITH CHECK (organization_id = (SELECT app.org_id()));
