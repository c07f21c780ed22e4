-- Roles, the schema `app`, and the settings that every policy reads.
--
-- Runs as a superuser or as a role that has only CREATEROLE and owns the database (Supabase's
-- `postgres`). Nothing here needs an extension. Ownership is given with ALTER .. OWNER instead of
-- SET ROLE: resetting a role at the end of a file would drop the role that a migration tool itself
-- assumed after it connected.

-- Roles belong to the whole cluster, so they may exist already, or be created at this moment by the
-- migration of a neighbouring database. No password is set here: whoever runs the migrations does.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            -- Owns every object. Nobody logs in as it.
            ('switchboard_owner', 'NOLOGIN NOINHERIT'),
            -- One login per worker pool. They own nothing and are never exempt from policies.
            ('switchboard_session', 'LOGIN NOINHERIT NOBYPASSRLS'),
            ('switchboard_token', 'LOGIN NOINHERIT NOBYPASSRLS'),
            ('switchboard_tool', 'LOGIN NOINHERIT NOBYPASSRLS'),
            ('switchboard_audit', 'LOGIN NOINHERIT NOBYPASSRLS'),
            ('switchboard_controller', 'LOGIN NOINHERIT NOBYPASSRLS'),
            -- Supabase's API roles. Plain PostgreSQL gets them so that the same REVOKEs run on both.
            ('anon', 'NOLOGIN NOINHERIT'),
            ('authenticated', 'NOLOGIN NOINHERIT'),
            ('service_role', 'NOLOGIN NOINHERIT')
        ) AS roles (name, attributes)
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = wanted.name) THEN
            BEGIN
                EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted.name, wanted.attributes);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;

-- A role of ours that somebody made a superuser, exempted from policies, or put into another role
-- would turn every policy below into decoration: refuse to go on.
DO $$
DECLARE
    unsafe text;
BEGIN
    SELECT pg_catalog.string_agg(r.rolname, ', ' ORDER BY r.rolname) INTO unsafe
    FROM pg_catalog.pg_roles r
    WHERE r.rolname IN ('switchboard_owner', 'switchboard_session', 'switchboard_token', 'switchboard_tool',
            'switchboard_audit', 'switchboard_controller')
        AND (r.rolsuper OR r.rolbypassrls
            OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid));
    IF unsafe IS NOT NULL THEN
        RAISE EXCEPTION 'these roles must be no superusers, bypass no row-level security and be members of no role: %', unsafe
            USING ERRCODE = 'invalid_role_specification';
    END IF;
END
$$;

-- A migrator that is no superuser must be able to give objects to the owner (SET) and to alter them
-- in later migrations (INHERIT). PostgreSQL 16 made both an option of the grant; 15 has no such words.
DO $$
BEGIN
    IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN
        RETURN;
    END IF;
    IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
        EXECUTE pg_catalog.format('GRANT switchboard_owner TO %I WITH INHERIT TRUE, SET TRUE', current_user);
    ELSE
        EXECUTE pg_catalog.format('GRANT switchboard_owner TO %I', current_user);
    END IF;
EXCEPTION
    WHEN unique_violation THEN
        NULL; -- granted at this moment by the migration of a neighbouring database
    WHEN insufficient_privilege THEN
        -- Somebody else created the roles on this cluster; their grant is as good as ours.
        IF NOT pg_catalog.pg_has_role(current_user, 'switchboard_owner', 'USAGE') THEN
            RAISE EXCEPTION 'role % may not act for switchboard_owner', current_user
                USING ERRCODE = 'insufficient_privilege',
                    HINT = 'Have whoever created the role run: GRANT switchboard_owner TO ' || pg_catalog.quote_ident(current_user);
        END IF;
END
$$;

-- Tables live in `public`, where only the owner may create (the audit log grows new partitions).
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO switchboard_owner;
GRANT USAGE ON SCHEMA public
    TO switchboard_session, switchboard_token, switchboard_tool, switchboard_audit, switchboard_controller;

-- Functions live in `app`, which a data API (PostgREST) does not expose.
CREATE SCHEMA app AUTHORIZATION switchboard_owner;
REVOKE ALL ON SCHEMA app FROM PUBLIC;
GRANT USAGE ON SCHEMA app
    TO switchboard_session, switchboard_token, switchboard_tool, switchboard_audit, switchboard_controller;

-- The transaction-local settings. A pooled connection that carried one before reads '' rather than
-- NULL afterwards: NULLIF makes both mean "nobody", and NULL equals no row. A malformed uuid is an
-- error, which refuses the statement. Policies call them as `(SELECT app.org_id())`, once per statement.
CREATE FUNCTION app.org_id() RETURNS uuid LANGUAGE sql STABLE
    RETURN NULLIF(pg_catalog.current_setting('app.org_id', true), '')::uuid;
CREATE FUNCTION app.subject() RETURNS text LANGUAGE sql STABLE
    RETURN NULLIF(pg_catalog.current_setting('app.subject', true), '');
CREATE FUNCTION app.role() RETURNS text LANGUAGE sql STABLE
    RETURN NULLIF(pg_catalog.current_setting('app.role', true), '');

-- For functions that cross organizations on behalf of a platform operator. Like every setting it is
-- trusted because only our code sets it; it is no defence against SQL injection.
CREATE FUNCTION app.require_operator() RETURNS void LANGUAGE plpgsql STABLE SET search_path = ''
AS $$
BEGIN
    IF pg_catalog.current_setting('app.platform_role', true) IS DISTINCT FROM 'operator' THEN
        RAISE EXCEPTION 'only a platform operator may do this' USING ERRCODE = 'insufficient_privilege';
    END IF;
END
$$;

-- Row generations invalidate caches, so no statement may forget to raise them. Every UPDATE counts.
CREATE FUNCTION app.raise_generation() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    NEW.generation := OLD.generation + 1;
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END
$$;

ALTER FUNCTION app.org_id() OWNER TO switchboard_owner;
ALTER FUNCTION app.subject() OWNER TO switchboard_owner;
ALTER FUNCTION app.role() OWNER TO switchboard_owner;
ALTER FUNCTION app.require_operator() OWNER TO switchboard_owner;
ALTER FUNCTION app.raise_generation() OWNER TO switchboard_owner;

-- A policy calls its functions with the rights of whoever queries; the rest is for the owner alone.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.org_id(), app.subject(), app.role()
    TO switchboard_session, switchboard_token, switchboard_tool, switchboard_audit, switchboard_controller;

-- Supabase's claim helpers, so that policies written in its style work on plain PostgreSQL too. Where
-- auth.jwt() exists the schema is not ours and is left alone.
DO $$
BEGIN
    IF pg_catalog.to_regprocedure('auth.jwt()') IS NOT NULL THEN
        RETURN;
    END IF;
    CREATE SCHEMA IF NOT EXISTS auth;
    CREATE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE
        RETURN NULLIF(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb;
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
        RETURN NULLIF(auth.jwt() ->> 'sub', '')::uuid;
    CREATE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE
        RETURN auth.jwt() ->> 'role';
    GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
END
$$;

-- Where sqlx keeps its history in `public`, a data API must not show it or let it be emptied. Not
-- FORCEd: the migrator, its owner, reads it at every start.
DO $$
BEGIN
    IF pg_catalog.to_regclass('public._sqlx_migrations') IS NOT NULL THEN
        REVOKE ALL ON public._sqlx_migrations FROM PUBLIC, anon, authenticated, service_role;
        ALTER TABLE public._sqlx_migrations ENABLE ROW LEVEL SECURITY;
    END IF;
END
$$;
