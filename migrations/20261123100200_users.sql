-- Users: the members of an organization, keyed by the subject of their token.

CREATE TABLE public.users (
    organization_id uuid NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    -- The token's `sub` claim. The same person in two organizations is two rows.
    subject text NOT NULL,
    email text,
    role text NOT NULL DEFAULT 'user',
    -- 'removed' is a tombstone: a removed member whose token still lives is not admitted anew.
    state text NOT NULL DEFAULT 'active',
    generation bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT users_subject_key UNIQUE (organization_id, subject),
    CONSTRAINT users_organization_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations (id),
    CONSTRAINT users_subject_check CHECK (char_length(subject) BETWEEN 1 AND 255),
    CONSTRAINT users_email_check CHECK (char_length(email) BETWEEN 1 AND 320),
    CONSTRAINT users_role_check CHECK (role IN ('admin', 'user')),
    CONSTRAINT users_state_check CHECK (state IN ('active', 'disabled', 'removed'))
);

ALTER TABLE public.users OWNER TO switchboard_owner;
ALTER TABLE public.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.users FORCE ROW LEVEL SECURITY;

CREATE TRIGGER raise_generation BEFORE UPDATE ON public.users
    FOR EACH ROW EXECUTE FUNCTION app.raise_generation();

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.users FROM PUBLIC, anon, authenticated, service_role;

-- The session pool keeps members. No DELETE, because a removal leaves its tombstone; and a member's
-- subject is its identity, so it is not among the columns that change.
GRANT SELECT, INSERT ON public.users TO switchboard_session;
GRANT UPDATE (email, role, state, generation, updated_at) ON public.users TO switchboard_session;
CREATE POLICY tenant ON public.users TO switchboard_session
    USING (organization_id = (SELECT app.org_id()))
    WITH CHECK (organization_id = (SELECT app.org_id()));
