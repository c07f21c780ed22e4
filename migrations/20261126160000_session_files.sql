-- Files of sessions. A row is an object: one content, whose bytes lie in the stream FILES in parts that
-- carry the object's id. The row is the truth: it is there before the first part and goes after the last,
-- so that no part is without one.

CREATE TABLE public.session_files (
    organization_id uuid NOT NULL,
    session_id uuid NOT NULL,
    -- Names the parts. Each content has another one, so that a reader never meets a mixture of two.
    id uuid NOT NULL,
    -- 'writing': room is taken and parts may come; 'file': it stands at its path; 'doomed': its parts go,
    -- then the row.
    state text NOT NULL DEFAULT 'writing',
    -- By bytes: the order must not depend on the database's language.
    path text COLLATE "C",
    size_bytes bigint NOT NULL,
    -- Parts that may lie in the stream, from 0 on.
    parts int NOT NULL,
    -- Of the whole content, known once it was complete.
    sha256 bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- The last part that was taken, or when it became a file.
    touched_at timestamptz NOT NULL DEFAULT now(),
    -- Of a doomed content that never was a file the parts are removed twice: at once, and when none can be
    -- on its way any more. The mark keeps everybody who looks in between from doing it again.
    removed_at timestamptz,
    CONSTRAINT session_files_pkey PRIMARY KEY (organization_id, session_id, id),
    -- Composite, so that a file cannot belong to another organization's session.
    CONSTRAINT session_files_session_fkey FOREIGN KEY (organization_id, session_id)
        REFERENCES public.sessions (organization_id, id),
    CONSTRAINT session_files_path_key UNIQUE (organization_id, session_id, path),
    CONSTRAINT session_files_state_check CHECK (state IN ('writing', 'file', 'doomed')),
    CONSTRAINT session_files_file_check CHECK ((state = 'file') = (path IS NOT NULL)
        AND (state <> 'file' OR sha256 IS NOT NULL) AND (state <> 'writing' OR sha256 IS NULL)),
    CONSTRAINT session_files_path_check CHECK (octet_length(path) BETWEEN 1 AND 1024),
    CONSTRAINT session_files_size_check CHECK (size_bytes BETWEEN 0 AND 16777216 AND parts BETWEEN 0 AND 32),
    CONSTRAINT session_files_sha256_check CHECK (octet_length(sha256) = 32)
);

ALTER TABLE public.session_files OWNER TO switchboard_owner;
ALTER TABLE public.session_files ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.session_files FORCE ROW LEVEL SECURITY;

-- What is no file (yet, or any more), in all organizations.
CREATE INDEX session_files_left ON public.session_files (organization_id, session_id) WHERE state <> 'file';

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.session_files FROM PUBLIC, anon, authenticated, service_role;

-- Both pools write files. The session pool alone removes a row, once nothing of it is in the stream.
GRANT SELECT, INSERT, DELETE ON public.session_files TO switchboard_session;
GRANT SELECT, INSERT ON public.session_files TO switchboard_tool;
GRANT UPDATE (state, path, size_bytes, parts, sha256, touched_at)
    ON public.session_files TO switchboard_session, switchboard_tool;
GRANT UPDATE (removed_at) ON public.session_files TO switchboard_session;
CREATE POLICY tenant ON public.session_files TO switchboard_session, switchboard_tool
    USING (organization_id = (SELECT app.org_id()))
    WITH CHECK (organization_id = (SELECT app.org_id()));

-- What the function below reads as the owner, which FORCE holds to policies too.
CREATE POLICY owner_reads ON public.session_files FOR SELECT TO switchboard_owner USING (true);

-- Sessions after (organization, id) of which something is to be removed: what is doomed, and what nobody
-- went on writing for longer than `age`.
CREATE FUNCTION app.sessions_with_leftover_files(age interval, after_organization uuid, after_id uuid, n int)
RETURNS TABLE (organization_id uuid, id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT DISTINCT f.organization_id, f.session_id
    FROM public.session_files f
    WHERE f.state <> 'file' AND (f.state = 'doomed' OR f.touched_at < pg_catalog.now() - age)
        AND (after_organization IS NULL OR (f.organization_id, f.session_id) > (after_organization, after_id))
    ORDER BY f.organization_id, f.session_id
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000);
$$;

ALTER FUNCTION app.sessions_with_leftover_files(interval, uuid, uuid, int) OWNER TO switchboard_owner;
REVOKE ALL ON FUNCTION app.sessions_with_leftover_files(interval, uuid, uuid, int) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.sessions_with_leftover_files(interval, uuid, uuid, int) TO switchboard_session;
