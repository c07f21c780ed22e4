-- Organizations: all their limits, who changes which of them, and their end.

ALTER TABLE public.organizations
    -- Sessions that one member may have open at one moment.
    ADD COLUMN user_session_limit int NOT NULL DEFAULT 10,
    ADD CONSTRAINT organizations_user_session_limit_check CHECK (user_session_limit BETWEEN 1 AND 100000);

-- What was announced of an organization so far says nothing of rates and origins: a new generation is
-- announced anew.
UPDATE public.organizations SET name = name;

-- What costs the platform is an operator's to decide, and so is an organization's end: both go through
-- the functions below. An admin's transaction chooses the rest.
REVOKE UPDATE (concurrency_limit, paused, calls_per_minute, queue_limit, session_limit, deleted_at)
    ON public.organizations FROM switchboard_session;

DROP FUNCTION app.create_organization(text, text, uuid, int, int);
DROP FUNCTION app.limit_organization(uuid, int, boolean);
DROP FUNCTION app.list_organizations(text, int);

-- Creates an organization for a platform operator (setting app.platform_role = 'operator').
-- `organization_id` NULL draws a new id; a given one serves deployments whose identity provider already
-- names organizations. What `settings` leaves out takes the column's default. A duplicate is
-- unique_violation (23505) on organizations_slug_key or organizations_pkey.
CREATE FUNCTION app.create_organization(slug text, name text, settings jsonb, organization_id uuid DEFAULT NULL)
RETURNS SETOF public.organizations
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        INSERT INTO public.organizations AS o (id, slug, name, concurrency_limit, paused, calls_per_minute,
            queue_limit, session_limit, user_session_limit, result_retention, allowed_origins, tool_policy)
        VALUES (
            COALESCE(create_organization.organization_id, pg_catalog.gen_random_uuid()),
            create_organization.slug,
            create_organization.name,
            COALESCE((settings ->> 'concurrency_limit')::int, 8),
            COALESCE((settings ->> 'paused')::boolean, false),
            COALESCE((settings ->> 'calls_per_minute')::int, 600),
            (settings ->> 'queue_limit')::int,
            COALESCE((settings ->> 'session_limit')::int, 100),
            COALESCE((settings ->> 'user_session_limit')::int, 10),
            COALESCE(pg_catalog.make_interval(secs => (settings ->> 'result_retention_seconds')::double precision),
                interval '24 hours'),
            ARRAY(SELECT pg_catalog.jsonb_array_elements_text(settings -> 'allowed_origins')),
            COALESCE(settings ->> 'tool_policy', 'block')
        )
        RETURNING o.*;
END
$$;

-- One organization for a platform operator. No row: there is none, or it was deleted.
CREATE FUNCTION app.find_organization(organization_id uuid) RETURNS SETOF public.organizations
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY SELECT o.* FROM public.organizations o WHERE o.id = organization_id AND o.deleted_at IS NULL;
END
$$;

-- The generation of an organization that is about to be changed, its row locked until the end of the
-- transaction. Members may still be added meanwhile: their foreign key asks for less.
CREATE FUNCTION app.lock_organization(organization_id uuid) RETURNS SETOF bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        SELECT o.generation FROM public.organizations o
        WHERE o.id = organization_id AND o.deleted_at IS NULL
        FOR NO KEY UPDATE;
END
$$;

-- Changes an organization for a platform operator. What `changes` leaves out stays as it is; a queue_limit
-- of null lifts it. No row: there is no such organization.
CREATE FUNCTION app.change_organization(organization_id uuid, changes jsonb) RETURNS SETOF public.organizations
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        UPDATE public.organizations AS o
        SET name = COALESCE(changes ->> 'name', o.name),
            concurrency_limit = COALESCE((changes ->> 'concurrency_limit')::int, o.concurrency_limit),
            paused = COALESCE((changes ->> 'paused')::boolean, o.paused),
            calls_per_minute = COALESCE((changes ->> 'calls_per_minute')::int, o.calls_per_minute),
            queue_limit = CASE WHEN changes ? 'queue_limit' THEN (changes ->> 'queue_limit')::int
                ELSE o.queue_limit END,
            session_limit = COALESCE((changes ->> 'session_limit')::int, o.session_limit),
            user_session_limit = COALESCE((changes ->> 'user_session_limit')::int, o.user_session_limit),
            result_retention = COALESCE(
                pg_catalog.make_interval(secs => (changes ->> 'result_retention_seconds')::double precision),
                o.result_retention),
            allowed_origins = CASE WHEN changes ? 'allowed_origins'
                THEN ARRAY(SELECT pg_catalog.jsonb_array_elements_text(changes -> 'allowed_origins'))
                ELSE o.allowed_origins END,
            tool_policy = COALESCE(changes ->> 'tool_policy', o.tool_policy)
        WHERE o.id = organization_id AND o.deleted_at IS NULL
        RETURNING o.*;
END
$$;

-- Ends an organization for a platform operator. Its rows stay, and so does its slug: neither the name nor
-- the id may ever mean somebody else. The platform's own row is check_violation (23514) on
-- organizations_platform_stays_check. No row: there is no such organization.
CREATE FUNCTION app.remove_organization(organization_id uuid) RETURNS SETOF public.organizations
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        UPDATE public.organizations AS o SET deleted_at = pg_catalog.now()
        WHERE o.id = organization_id AND o.deleted_at IS NULL
        RETURNING o.*;
END
$$;

-- Pages through all organizations by slug for a platform operator, the deleted ones left out. Pass the
-- last slug seen, or NULL. A page has 1 to 200 rows.
CREATE FUNCTION app.list_organizations(after_slug text, n int) RETURNS SETOF public.organizations
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ''
AS $$
BEGIN
    PERFORM app.require_operator();
    RETURN QUERY
        SELECT o.* FROM public.organizations o
        WHERE o.deleted_at IS NULL AND (after_slug IS NULL OR o.slug > after_slug)
        ORDER BY o.slug
        LIMIT LEAST(GREATEST(COALESCE(n, 50), 1), 200);
END
$$;

ALTER FUNCTION app.create_organization(text, text, jsonb, uuid) OWNER TO switchboard_owner;
ALTER FUNCTION app.find_organization(uuid) OWNER TO switchboard_owner;
ALTER FUNCTION app.lock_organization(uuid) OWNER TO switchboard_owner;
ALTER FUNCTION app.change_organization(uuid, jsonb) OWNER TO switchboard_owner;
ALTER FUNCTION app.remove_organization(uuid) OWNER TO switchboard_owner;
ALTER FUNCTION app.list_organizations(text, int) OWNER TO switchboard_owner;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
        app.create_organization(text, text, jsonb, uuid),
        app.find_organization(uuid),
        app.lock_organization(uuid),
        app.change_organization(uuid, jsonb),
        app.remove_organization(uuid),
        app.list_organizations(text, int)
    TO switchboard_session;
