-- Users: one person in several organizations.

-- What app.memberships and the token hook read as the owner, which FORCE holds to policies too.
CREATE POLICY owner_reads ON public.users FOR SELECT TO switchboard_owner USING (true);

-- Both look for one subject in every organization. No query of a pool can use it: those name theirs.
CREATE INDEX users_by_subject ON public.users (subject);

-- The organizations that the acting subject (setting app.subject) is an active member of. Ids and slugs
-- only, and of nobody else: whatever more is asked takes a token of that organization.
CREATE FUNCTION app.memberships() RETURNS TABLE (id uuid, slug text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT o.id, o.slug
    FROM public.users u
    JOIN public.organizations o ON o.id = u.organization_id
    WHERE u.subject = app.subject() AND u.state = 'active' AND o.deleted_at IS NULL
    ORDER BY o.slug
    LIMIT 1000;
$$;

ALTER FUNCTION app.memberships() OWNER TO switchboard_owner;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.memberships() TO switchboard_session;
