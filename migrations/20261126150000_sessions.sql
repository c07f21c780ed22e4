-- Sessions: one agent's run on behalf of one member, with a frozen prompt and a workspace.

CREATE TABLE public.sessions (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- The member's, as in users, so that whoever uses a session is compared without a join.
    subject text NOT NULL,
    agent_type text NOT NULL,
    -- 'active' becomes 'expired' or 'ended', and nothing leads back. A row may be 'active' past its time
    -- until the sweep comes by: whether a session can be used is `usable_until` and the state together.
    state text NOT NULL DEFAULT 'active',
    end_reason text,
    -- The composed prompt with the versions it was made of, as it was when the session was opened.
    prompt jsonb NOT NULL,
    -- The opener's own.
    metadata jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The last use, to some seconds.
    touched_at timestamptz NOT NULL DEFAULT now(),
    idle_seconds int NOT NULL,
    expires_at timestamptz NOT NULL,
    -- The earlier of expires_at and touched_at + idle_seconds: kept by a trigger, so that it can be
    -- searched for.
    usable_until timestamptz NOT NULL,
    ended_at timestamptz,
    files_bytes bigint NOT NULL DEFAULT 0,
    files_quota_bytes bigint NOT NULL DEFAULT 67108864,
    -- Grows with each change of a file.
    workspace_version bigint NOT NULL DEFAULT 0,
    -- Who holds the workspace for one call of a program, and until when unless renewed.
    workspace_holder uuid,
    workspace_held_until timestamptz,
    -- What must still happen because of what has happened, as `<event>/<hook>`: written with the change
    -- it follows, removed when done.
    pending_hooks text[] NOT NULL DEFAULT '{}',
    -- Grows with each change of the state.
    generation bigint NOT NULL DEFAULT 1,
    CONSTRAINT sessions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT sessions_user_fkey FOREIGN KEY (organization_id, user_id) REFERENCES public.users (organization_id, id),
    CONSTRAINT sessions_agent_type_check CHECK (char_length(agent_type) BETWEEN 1 AND 64),
    CONSTRAINT sessions_state_check CHECK (state IN ('active', 'expired', 'ended')),
    CONSTRAINT sessions_end_check CHECK ((state = 'active') = (ended_at IS NULL)
        AND (state = 'active') = (end_reason IS NULL)),
    CONSTRAINT sessions_end_reason_check CHECK (char_length(end_reason) BETWEEN 1 AND 64),
    CONSTRAINT sessions_metadata_check CHECK (jsonb_typeof(metadata) = 'object'),
    CONSTRAINT sessions_idle_seconds_check CHECK (idle_seconds BETWEEN 1 AND 604800),
    CONSTRAINT sessions_expires_at_check CHECK (expires_at > created_at),
    CONSTRAINT sessions_files_check CHECK (files_bytes >= 0 AND files_quota_bytes >= 0),
    CONSTRAINT sessions_holder_check CHECK ((workspace_holder IS NULL) = (workspace_held_until IS NULL))
);

ALTER TABLE public.sessions OWNER TO switchboard_owner;
ALTER TABLE public.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.sessions FORCE ROW LEVEL SECURITY;

-- What counts against a member's limit and an organization's.
CREATE INDEX sessions_active ON public.sessions (organization_id, user_id) WHERE state = 'active';
-- What the sweep and the reconcilers look for in all organizations.
CREATE INDEX sessions_due ON public.sessions (usable_until) WHERE state = 'active';
CREATE INDEX sessions_pending ON public.sessions (organization_id, id) WHERE pending_hooks <> '{}';
CREATE INDEX sessions_gone ON public.sessions (ended_at) WHERE state <> 'active';
-- Lists, and how many were opened of late.
CREATE INDEX sessions_of_subject ON public.sessions (organization_id, subject, id);
CREATE INDEX sessions_of_user ON public.sessions (organization_id, user_id, id);
CREATE INDEX sessions_recent ON public.sessions (organization_id, created_at, user_id);
-- Whose sessions must end, though they are not due.
CREATE INDEX users_inactive ON public.users (updated_at) WHERE state <> 'active';
CREATE INDEX organizations_deleted ON public.organizations (deleted_at) WHERE deleted_at IS NOT NULL;

CREATE FUNCTION app.keep_session() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    NEW.usable_until := LEAST(NEW.expires_at, NEW.touched_at + pg_catalog.make_interval(secs => NEW.idle_seconds));
    IF TG_OP = 'UPDATE' AND NEW.state <> OLD.state THEN
        IF OLD.state <> 'active' THEN
            RAISE EXCEPTION 'a session that is % does not become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
        END IF;
        NEW.generation := OLD.generation + 1;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER keep_session BEFORE INSERT OR UPDATE ON public.sessions
    FOR EACH ROW EXECUTE FUNCTION app.keep_session();

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.sessions FROM PUBLIC, anon, authenticated, service_role;

-- The session pool opens, ends and forgets sessions. What a session was opened with does not change.
GRANT SELECT, INSERT, DELETE ON public.sessions TO switchboard_session;
GRANT UPDATE (state, end_reason, touched_at, ended_at, files_bytes, workspace_version, workspace_holder,
        workspace_held_until, pending_hooks)
    ON public.sessions TO switchboard_session;
-- The tool pool uses them, and has no use for what their members wrote into them.
GRANT SELECT (organization_id, id, user_id, subject, agent_type, state, end_reason, created_at, touched_at, idle_seconds,
        expires_at, usable_until, ended_at, files_bytes, files_quota_bytes, workspace_version, workspace_holder,
        workspace_held_until, pending_hooks, generation)
    ON public.sessions TO switchboard_tool, switchboard_controller;
GRANT UPDATE (touched_at, files_bytes, workspace_version, workspace_holder, workspace_held_until, pending_hooks)
    ON public.sessions TO switchboard_tool;
-- The controller's sweep ends those whose time is over.
GRANT UPDATE (state, end_reason, ended_at, pending_hooks) ON public.sessions TO switchboard_controller;
CREATE POLICY tenant ON public.sessions TO switchboard_session, switchboard_tool, switchboard_controller
    USING (organization_id = (SELECT app.org_id()))
    WITH CHECK (organization_id = (SELECT app.org_id()));

-- What is forgotten is over, and nothing of it is left to do.
CREATE POLICY only_what_is_over ON public.sessions AS RESTRICTIVE FOR DELETE TO switchboard_session
    USING (organization_id = (SELECT app.org_id()) AND state <> 'active' AND pending_hooks = '{}');

-- A worker that stands still within a transaction must not keep what it locked.
DO $$
DECLARE
    pool text;
BEGIN
    FOREACH pool IN ARRAY ARRAY['switchboard_session', 'switchboard_controller'] LOOP
        EXECUTE pg_catalog.format('ALTER ROLE %I IN DATABASE %I SET idle_in_transaction_session_timeout = %L',
            pool, pg_catalog.current_database(), '60s');
    END LOOP;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE NOTICE 'set idle_in_transaction_session_timeout for the session pool and the controller yourself';
END
$$;

-- An end that the sweep decides leaves its audit event in the same transaction.
GRANT INSERT ON public.audit_outbox TO switchboard_controller;
CREATE POLICY sweep_inserts ON public.audit_outbox FOR INSERT TO switchboard_controller
    WITH CHECK (organization_id = (SELECT app.org_id()));

-- What the functions below read as the owner, which FORCE holds to policies too. They answer ids only;
-- whoever asked opens one tenant transaction for each.
CREATE POLICY owner_reads ON public.sessions FOR SELECT TO switchboard_owner USING (true);

-- Sessions that are 'active' and should not be, and why: their time is over, or their member or
-- organization is gone. No session lives longer than 7 days: who went before has none left.
CREATE FUNCTION app.sessions_to_end(n int) RETURNS TABLE (organization_id uuid, id uuid, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    (SELECT s.organization_id, s.id, CASE WHEN s.usable_until >= s.expires_at THEN 'age' ELSE 'idle' END
    FROM public.sessions s
    WHERE s.state = 'active' AND s.usable_until <= pg_catalog.now()
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000))
    UNION ALL
    (SELECT s.organization_id, s.id, 'member_gone'
    FROM public.users u
    JOIN public.sessions s ON s.organization_id = u.organization_id AND s.user_id = u.id
    WHERE u.state <> 'active' AND u.updated_at > pg_catalog.now() - interval '8 days'
        AND s.state = 'active' AND s.usable_until > pg_catalog.now()
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000))
    UNION ALL
    (SELECT s.organization_id, s.id, 'organization_gone'
    FROM public.organizations o
    JOIN public.sessions s ON s.organization_id = o.id
    JOIN public.users u ON u.organization_id = s.organization_id AND u.id = s.user_id
    WHERE o.deleted_at > pg_catalog.now() - interval '8 days'
        AND s.state = 'active' AND s.usable_until > pg_catalog.now() AND u.state = 'active'
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000));
$$;

-- Sessions of which something must still happen that is not among `others`, after (organization, id), so
-- that one whose hooks fail does not stand before the rest.
CREATE FUNCTION app.sessions_with_hooks(others text[], after_organization uuid, after_id uuid, n int)
RETURNS TABLE (organization_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT s.organization_id, s.id
    FROM public.sessions s
    WHERE s.pending_hooks <> '{}' AND NOT s.pending_hooks <@ others
        AND (after_organization IS NULL OR (s.organization_id, s.id) > (after_organization, after_id))
    ORDER BY s.organization_id, s.id
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000);
$$;

-- Sessions that were over for longer than `age`, with nothing left to do.
CREATE FUNCTION app.sessions_long_gone(age interval, n int) RETURNS TABLE (organization_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT s.organization_id, s.id
    FROM public.sessions s
    WHERE s.state <> 'active' AND s.ended_at < pg_catalog.now() - age AND s.pending_hooks = '{}'
    ORDER BY s.ended_at
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000);
$$;

ALTER FUNCTION app.keep_session() OWNER TO switchboard_owner;
ALTER FUNCTION app.sessions_to_end(int) OWNER TO switchboard_owner;
ALTER FUNCTION app.sessions_with_hooks(text[], uuid, uuid, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.sessions_long_gone(interval, int) OWNER TO switchboard_owner;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.sessions_to_end(int) TO switchboard_controller;
GRANT EXECUTE ON FUNCTION app.sessions_with_hooks(text[], uuid, uuid, int), app.sessions_long_gone(interval, int)
    TO switchboard_session;
