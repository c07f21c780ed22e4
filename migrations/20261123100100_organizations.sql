-- Organizations: the tenants. The row's own id is what every other table calls organization_id.

CREATE TABLE public.organizations (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- Unique on the whole platform: the one key that does not lead with the organization. Only an
    -- operator's function inserts or chooses it, so that a duplicate tells nothing to a tenant.
    slug text NOT NULL,
    name text NOT NULL,
    -- Calls that run at one moment.
    concurrency_limit int NOT NULL DEFAULT 8,
    -- Calls wait and none starts.
    paused boolean NOT NULL DEFAULT false,
    calls_per_minute int NOT NULL DEFAULT 600,
    -- Waiting and running calls together. NULL: the deployment's bound alone applies.
    queue_limit int,
    -- Sessions open at one moment.
    session_limit int NOT NULL DEFAULT 100,
    -- How long the result of a durable call can be collected.
    result_retention interval NOT NULL DEFAULT interval '24 hours',
    -- Browser origins that may call with this organization's tokens, as sent in the Origin header.
    allowed_origins text[] NOT NULL DEFAULT '{}',
    -- What happens to a call of a tool whose definition changed after it was pinned.
    tool_policy text NOT NULL DEFAULT 'block',
    -- The platform itself is the row with the nil uuid, and no other row can claim to be.
    is_platform boolean NOT NULL GENERATED ALWAYS AS (id = '00000000-0000-0000-0000-000000000000'::uuid) STORED,
    generation bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    CONSTRAINT organizations_pkey PRIMARY KEY (id),
    CONSTRAINT organizations_slug_key UNIQUE (slug),
    CONSTRAINT organizations_slug_check CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    CONSTRAINT organizations_name_check CHECK (char_length(name) BETWEEN 1 AND 200),
    CONSTRAINT organizations_concurrency_limit_check CHECK (concurrency_limit BETWEEN 1 AND 256),
    CONSTRAINT organizations_calls_per_minute_check CHECK (calls_per_minute BETWEEN 1 AND 1000000),
    CONSTRAINT organizations_queue_limit_check CHECK (queue_limit BETWEEN 1 AND 1000000),
    CONSTRAINT organizations_session_limit_check CHECK (session_limit BETWEEN 1 AND 100000),
    CONSTRAINT organizations_result_retention_check
        CHECK (result_retention BETWEEN interval '1 minute' AND interval '90 days'),
    CONSTRAINT organizations_allowed_origins_check
        CHECK (cardinality(allowed_origins) <= 100 AND array_position(allowed_origins, NULL) IS NULL),
    CONSTRAINT organizations_tool_policy_check CHECK (tool_policy IN ('block', 'warn')),
    -- The platform's row carries the audit chain of everything that has no tenant: it stays.
    CONSTRAINT organizations_platform_stays_check CHECK (NOT is_platform OR deleted_at IS NULL)
);

ALTER TABLE public.organizations OWNER TO switchboard_owner;
ALTER TABLE public.organizations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.organizations FORCE ROW LEVEL SECURITY;

CREATE TRIGGER raise_generation BEFORE UPDATE ON public.organizations
    FOR EACH ROW EXECUTE FUNCTION app.raise_generation();

-- The second wall behind row-level security: nobody has anything that is not granted below. Supabase
-- grants everything in `public` to its API roles by default; service_role even bypasses policies.
REVOKE ALL ON public.organizations FROM PUBLIC, anon, authenticated, service_role;

-- The session pool reads and configures the organization it acts for. Its id, slug and creation are
-- not its to change, and a new organization comes from app.create_organization alone.
GRANT SELECT ON public.organizations TO switchboard_session;
GRANT UPDATE (name, concurrency_limit, paused, calls_per_minute, queue_limit, session_limit, result_retention,
        allowed_origins, tool_policy, generation, updated_at, deleted_at)
    ON public.organizations TO switchboard_session;
-- The tool pool reads what it must obey while it runs a call: tool policy, retention, deletion.
GRANT SELECT ON public.organizations TO switchboard_tool;
CREATE POLICY tenant ON public.organizations TO switchboard_session, switchboard_tool
    USING (id = (SELECT app.org_id()))
    WITH CHECK (id = (SELECT app.org_id()));

-- The functions below run as the owner, which FORCE holds to policies too: it may see and add rows of
-- any organization, change what app.limit_organization names, and delete none.
CREATE POLICY owner_reads ON public.organizations FOR SELECT TO switchboard_owner USING (true);
CREATE POLICY owner_inserts ON public.organizations FOR INSERT TO switchboard_owner WITH CHECK (true);
-- An operator changes limits (app.limit_organization); its columns are named there.
CREATE POLICY owner_updates ON public.organizations FOR UPDATE TO switchboard_owner
    USING (true) WITH CHECK (true);

INSERT INTO public.organizations (id, slug, name)
VALUES ('00000000-0000-0000-0000-000000000000', 'platform', 'Platform');

-- Creates an organization for a platform operator (setting app.platform_role = 'operator').
-- `organization_id` NULL draws a new id; a given one serves deployments whose identity provider already
-- names organizations. A NULL limit takes the column's default. A duplicate is unique_violation (23505)
-- on organizations_slug_key or organizations_pkey.
CREATE FUNCTION app.create_organization(
    slug text,
    name text,
    organization_id uuid DEFAULT NULL,
    concurrency_limit int DEFAULT NULL,
    calls_per_minute int DEFAULT NULL
) RETURNS TABLE (id uuid, generation bigint, created_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        INSERT INTO public.organizations AS o (id, slug, name, concurrency_limit, calls_per_minute)
        VALUES (
            COALESCE(create_organization.organization_id, pg_catalog.gen_random_uuid()),
            create_organization.slug,
            create_organization.name,
            COALESCE(create_organization.concurrency_limit, 8),
            COALESCE(create_organization.calls_per_minute, 600)
        )
        RETURNING o.id, o.generation, o.created_at;
END
$$;

-- Changes an organization's limits for a platform operator; NULL leaves one as it is. No row: there is
-- no such organization.
CREATE FUNCTION app.limit_organization(organization_id uuid, new_concurrency_limit int, new_paused boolean)
RETURNS TABLE (
    id uuid, slug text, name text, concurrency_limit int, paused boolean, generation bigint, created_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
#variable_conflict use_column
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        UPDATE public.organizations AS o
        SET concurrency_limit = COALESCE(new_concurrency_limit, o.concurrency_limit),
            paused = COALESCE(new_paused, o.paused)
        WHERE o.id = organization_id AND o.deleted_at IS NULL
        RETURNING o.id, o.slug, o.name, o.concurrency_limit, o.paused, o.generation, o.created_at;
END
$$;

-- Pages through all organizations by slug for a platform operator. Pass the last slug seen, or NULL.
-- Deleted ones are listed with their time of deletion. A page has 1 to 200 rows.
CREATE FUNCTION app.list_organizations(after_slug text, n int)
RETURNS TABLE (
    id uuid, slug text, name text, concurrency_limit int, paused boolean, calls_per_minute int, is_platform boolean,
    generation bigint, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        SELECT o.id, o.slug, o.name, o.concurrency_limit, o.paused, o.calls_per_minute, o.is_platform,
            o.generation, o.created_at, o.updated_at, o.deleted_at
        FROM public.organizations o
        WHERE after_slug IS NULL OR o.slug > after_slug
        ORDER BY o.slug
        LIMIT LEAST(GREATEST(COALESCE(n, 50), 1), 200);
END
$$;

-- Pages through the ids of all organizations, the deleted and the platform's included, so that a
-- reconciler can open one tenant transaction for each. Nothing but ids crosses tenants here.
CREATE FUNCTION app.organization_ids(after uuid, n int) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT o.id
    FROM public.organizations o
    WHERE after IS NULL OR o.id > after
    ORDER BY o.id
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000);
$$;

ALTER FUNCTION app.create_organization(text, text, uuid, int, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.limit_organization(uuid, int, boolean) OWNER TO switchboard_owner;
ALTER FUNCTION app.list_organizations(text, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.organization_ids(uuid, int) OWNER TO switchboard_owner;

-- Crossing tenants is the session pool's alone; every new function is executable by PUBLIC until revoked.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
        app.create_organization(text, text, uuid, int, int),
        app.limit_organization(uuid, int, boolean),
        app.list_organizations(text, int),
        app.organization_ids(uuid, int)
    TO switchboard_session;
