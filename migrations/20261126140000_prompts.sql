-- System prompts: what the platform, an organization and a member have to say to every session; every
-- version of each; and a number for each owner that grows with every change, by which caches tell old
-- from new.

-- Whether the actor is an operator of the platform. Trusted like the other settings.
CREATE FUNCTION app.platform_role() RETURNS text LANGUAGE sql STABLE
    RETURN NULLIF(pg_catalog.current_setting('app.platform_role', true), '');
ALTER FUNCTION app.platform_role() OWNER TO switchboard_owner;

CREATE TABLE public.system_prompts (
    -- Of a global prompt: the platform's own organization, the nil uuid.
    organization_id uuid NOT NULL,
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    scope text NOT NULL,
    -- The one member whose a prompt of scope 'user' is.
    user_subject text,
    name text NOT NULL,
    -- Text, or a template that is rendered for each session: one of the two.
    content text,
    template text,
    -- SHA-256 of it, in hexadecimal.
    sha256 text NOT NULL,
    enabled boolean NOT NULL DEFAULT true,
    -- Smaller ones come first within the scope. It orders nothing across scopes.
    priority int NOT NULL DEFAULT 100,
    -- The version.
    generation bigint NOT NULL DEFAULT 1,
    created_by text NOT NULL,
    updated_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT system_prompts_pkey PRIMARY KEY (organization_id, id),
    -- One name per owner: the platform, the organization, each member.
    CONSTRAINT system_prompts_name_key UNIQUE NULLS NOT DISTINCT (organization_id, scope, user_subject, name),
    CONSTRAINT system_prompts_organization_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations (id),
    -- Composite, so that a prompt cannot be another organization's member's.
    CONSTRAINT system_prompts_user_fkey FOREIGN KEY (organization_id, user_subject)
        REFERENCES public.users (organization_id, subject),
    CONSTRAINT system_prompts_scope_check CHECK (scope IN ('global', 'organization', 'user')),
    CONSTRAINT system_prompts_global_check
        CHECK (scope <> 'global' OR organization_id = '00000000-0000-0000-0000-000000000000'::uuid),
    CONSTRAINT system_prompts_user_subject_check CHECK ((scope = 'user') = (user_subject IS NOT NULL)),
    CONSTRAINT system_prompts_source_check CHECK (num_nonnulls(content, template) = 1),
    -- What a member writes is data: no template is made of it.
    CONSTRAINT system_prompts_user_template_check CHECK (scope <> 'user' OR template IS NULL),
    CONSTRAINT system_prompts_name_check CHECK (char_length(name) BETWEEN 1 AND 100),
    CONSTRAINT system_prompts_length_check
        CHECK (octet_length(COALESCE(content, template)) BETWEEN 1 AND 16384
            AND (scope <> 'user' OR char_length(content) <= 4000)),
    CONSTRAINT system_prompts_sha256_check CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT system_prompts_priority_check CHECK (priority BETWEEN 0 AND 1000)
);

-- What each prompt was from one change to the next. Without a foreign key to the prompt: its versions
-- outlive it.
CREATE TABLE public.prompt_versions (
    organization_id uuid NOT NULL,
    prompt_id uuid NOT NULL,
    version bigint NOT NULL,
    scope text NOT NULL,
    user_subject text,
    name text NOT NULL,
    content text,
    template text,
    sha256 text NOT NULL,
    enabled boolean NOT NULL,
    priority int NOT NULL,
    -- The last version of a prompt that is gone.
    removed boolean NOT NULL,
    written_by text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT prompt_versions_pkey PRIMARY KEY (organization_id, prompt_id, version),
    CONSTRAINT prompt_versions_organization_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations (id)
);

CREATE TABLE public.prompt_generations (
    organization_id uuid NOT NULL,
    generation bigint NOT NULL,
    CONSTRAINT prompt_generations_pkey PRIMARY KEY (organization_id),
    CONSTRAINT prompt_generations_organization_fkey FOREIGN KEY (organization_id) REFERENCES public.organizations (id)
);

ALTER TABLE public.system_prompts OWNER TO switchboard_owner;
ALTER TABLE public.system_prompts ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.system_prompts FORCE ROW LEVEL SECURITY;
ALTER TABLE public.prompt_versions OWNER TO switchboard_owner;
ALTER TABLE public.prompt_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.prompt_versions FORCE ROW LEVEL SECURITY;
ALTER TABLE public.prompt_generations OWNER TO switchboard_owner;
ALTER TABLE public.prompt_generations ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.prompt_generations FORCE ROW LEVEL SECURITY;

CREATE TRIGGER raise_generation BEFORE UPDATE ON public.system_prompts
    FOR EACH ROW EXECUTE FUNCTION app.raise_generation();

-- No statement may change a prompt without its version, or without caches hearing of it. Runs as the
-- owner, so that versions and generations are nobody else's to write. The generation's row also lets an
-- owner's writers in one by one, so that what is counted after a write is counted right.
CREATE FUNCTION app.keep_prompt_version() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    kept public.system_prompts;
    is_gone boolean := TG_OP = 'DELETE';
BEGIN
    IF is_gone THEN
        kept := OLD;
        kept.generation := OLD.generation + 1;
        kept.updated_by := COALESCE(app.subject(), OLD.updated_by);
    ELSE
        kept := NEW;
    END IF;
    INSERT INTO public.prompt_generations AS g (organization_id, generation) VALUES (kept.organization_id, 1)
    ON CONFLICT (organization_id) DO UPDATE SET generation = g.generation + 1;
    INSERT INTO public.prompt_versions (organization_id, prompt_id, version, scope, user_subject, name, content,
        template, sha256, enabled, priority, removed, written_by)
    VALUES (kept.organization_id, kept.id, kept.generation, kept.scope, kept.user_subject, kept.name, kept.content,
        kept.template, kept.sha256, kept.enabled, kept.priority, is_gone, kept.updated_by);
    RETURN NULL;
END
$$;
ALTER FUNCTION app.keep_prompt_version() OWNER TO switchboard_owner;
CREATE TRIGGER keep_version AFTER INSERT OR UPDATE OR DELETE ON public.system_prompts
    FOR EACH ROW EXECUTE FUNCTION app.keep_prompt_version();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.platform_role() TO switchboard_session;

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.system_prompts, public.prompt_versions, public.prompt_generations
    FROM PUBLIC, anon, authenticated, service_role;

-- The session pool composes prompts and keeps them. A prompt stays whose it is, and a version as it was.
GRANT SELECT, INSERT, DELETE ON public.system_prompts TO switchboard_session;
GRANT UPDATE (name, content, template, sha256, enabled, priority, generation, updated_by, updated_at)
    ON public.system_prompts TO switchboard_session;
GRANT SELECT ON public.prompt_versions, public.prompt_generations TO switchboard_session;

-- Everybody who says who they are reads the platform's prompts: they stand before everybody's. A member's
-- own are theirs, and their admins', who may look at what a member gets.
CREATE POLICY reads ON public.system_prompts FOR SELECT TO switchboard_session
    USING ((organization_id = (SELECT app.org_id())
            AND (scope <> 'user' OR user_subject = (SELECT app.subject()) OR (SELECT app.role()) = 'admin'))
        OR (scope = 'global' AND (SELECT app.org_id()) IS NOT NULL));
-- The platform's are an operator's to write, the organization's an admin's, a member's own nobody else's.
CREATE POLICY writes ON public.system_prompts TO switchboard_session
    USING ((organization_id = (SELECT app.org_id())
            AND ((scope = 'organization' AND (SELECT app.role()) = 'admin')
                OR (scope = 'user' AND user_subject = (SELECT app.subject()))))
        OR (scope = 'global' AND (SELECT app.org_id()) IS NOT NULL AND (SELECT app.platform_role()) = 'operator'))
    WITH CHECK ((organization_id = (SELECT app.org_id())
            AND ((scope = 'organization' AND (SELECT app.role()) = 'admin')
                OR (scope = 'user' AND user_subject = (SELECT app.subject()))))
        OR (scope = 'global' AND (SELECT app.org_id()) IS NOT NULL AND (SELECT app.platform_role()) = 'operator'));
-- Versions are for those who may write what they are versions of.
CREATE POLICY reads ON public.prompt_versions FOR SELECT TO switchboard_session
    USING ((organization_id = (SELECT app.org_id())
            AND ((scope = 'organization' AND (SELECT app.role()) = 'admin')
                OR (scope = 'user' AND user_subject = (SELECT app.subject()))))
        OR (scope = 'global' AND (SELECT app.org_id()) IS NOT NULL AND (SELECT app.platform_role()) = 'operator'));
CREATE POLICY reads ON public.prompt_generations FOR SELECT TO switchboard_session
    USING (organization_id = (SELECT app.org_id())
        OR (organization_id = '00000000-0000-0000-0000-000000000000'::uuid AND (SELECT app.org_id()) IS NOT NULL));
-- The owner is held to policies too. What is written for is settled by the policies of the prompts.
CREATE POLICY owner_inserts ON public.prompt_versions FOR INSERT TO switchboard_owner WITH CHECK (true);
CREATE POLICY owner_reads ON public.prompt_generations FOR SELECT TO switchboard_owner USING (true);
CREATE POLICY owner_inserts ON public.prompt_generations FOR INSERT TO switchboard_owner WITH CHECK (true);
CREATE POLICY owner_updates ON public.prompt_generations FOR UPDATE TO switchboard_owner
    USING (true) WITH CHECK (true);

-- A template may name the tools that a session would find: which servers a member sees, what their pinned
-- tools are, and which are held back. No address, no secret, nothing about either.
GRANT SELECT (organization_id, id, scope, user_subject, name, enabled, tools_allow, tools_deny)
    ON public.mcp_configurations TO switchboard_session;
CREATE POLICY session_reads ON public.mcp_configurations FOR SELECT TO switchboard_session
    USING (organization_id = (SELECT app.org_id())
        AND (scope = 'organization' OR user_subject = (SELECT app.subject()) OR (SELECT app.role()) = 'admin'));
GRANT SELECT (organization_id, configuration_id, name, definition, state) ON public.mcp_tools TO switchboard_session;
CREATE POLICY session_reads ON public.mcp_tools FOR SELECT TO switchboard_session
    USING (organization_id = (SELECT app.org_id()));
