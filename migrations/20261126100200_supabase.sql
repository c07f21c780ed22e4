-- Supabase: the custom-access-token hook, which says in each token whose member its bearer is.
--
-- Supabase Auth calls it as supabase_auth_admin before it signs a token, with
-- {"user_id": .., "claims": {..}, "authentication_method": ..}, and signs the claims of the answer. The
-- gateway reads app_metadata.org_id and app_metadata.org_role by default, so they are what is written;
-- the operator's claim (app_metadata.platform_role) is passed on as it is and never made here.

-- The organization that app_metadata.org_id already names, where the person is an active member of it;
-- else the one they joined first; else none. An organization that has never known the person is left
-- in the claims: that is how its first admin comes in, and the gateway makes the member on first use.
CREATE FUNCTION app.custom_access_token(event jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    person text := event ->> 'user_id';
    metadata jsonb := event #> '{claims,app_metadata}';
    wanted text;
    membership record;
BEGIN
    IF pg_catalog.jsonb_typeof(metadata) IS DISTINCT FROM 'object' THEN
        metadata := '{}';
    END IF;
    wanted := pg_catalog.lower(metadata ->> 'org_id');
    IF wanted IS NOT NULL AND NOT EXISTS (
        SELECT FROM public.users u WHERE u.subject = person AND u.organization_id::text = wanted
    ) THEN
        RETURN event;
    END IF;
    SELECT u.organization_id, u.role INTO membership
    FROM public.users u
    JOIN public.organizations o ON o.id = u.organization_id
    WHERE u.subject = person AND u.state = 'active' AND o.deleted_at IS NULL AND NOT o.is_platform
    ORDER BY (u.organization_id::text = wanted) DESC NULLS LAST, u.created_at, u.organization_id
    LIMIT 1;
    metadata := metadata - 'org_id' - 'org_role';
    IF FOUND THEN
        metadata := metadata || pg_catalog.jsonb_build_object(
            'org_id', membership.organization_id, 'org_role', membership.role);
    END IF;
    RETURN pg_catalog.jsonb_set(event, '{claims,app_metadata}', metadata);
END
$$;

ALTER FUNCTION app.custom_access_token(jsonb) OWNER TO switchboard_owner;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;

-- Only Supabase has this role; plain PostgreSQL keeps the function to itself.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'supabase_auth_admin') THEN
        GRANT USAGE ON SCHEMA app TO supabase_auth_admin;
        GRANT EXECUTE ON FUNCTION app.custom_access_token(jsonb) TO supabase_auth_admin;
    END IF;
END
$$;
