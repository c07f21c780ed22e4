-- Versions and generations are the trigger's alone to write: the session pool reads them and can forge
-- neither. And templates do not speak of a tool that is held back.

ALTER FUNCTION app.keep_prompt_version() SECURITY DEFINER;

-- The owner is held to policies too. What is written for is settled by the policies of the prompts.
CREATE POLICY owner_inserts ON public.prompt_versions FOR INSERT TO switchboard_owner WITH CHECK (true);
CREATE POLICY owner_reads ON public.prompt_generations FOR SELECT TO switchboard_owner USING (true);
CREATE POLICY owner_inserts ON public.prompt_generations FOR INSERT TO switchboard_owner WITH CHECK (true);
CREATE POLICY owner_updates ON public.prompt_generations FOR UPDATE TO switchboard_owner
    USING (true) WITH CHECK (true);

REVOKE INSERT ON public.prompt_versions FROM switchboard_session;
REVOKE INSERT ON public.prompt_generations FROM switchboard_session;
REVOKE UPDATE (generation) ON public.prompt_generations FROM switchboard_session;
DROP POLICY writes ON public.prompt_generations;
DROP POLICY writes ON public.prompt_versions;
-- Versions are for those who may write what they are versions of.
CREATE POLICY reads ON public.prompt_versions FOR SELECT TO switchboard_session
    USING ((organization_id = (SELECT app.org_id())
            AND ((scope = 'organization' AND (SELECT app.role()) = 'admin')
                OR (scope = 'user' AND user_subject = (SELECT app.subject()))))
        OR (scope = 'global' AND (SELECT app.org_id()) IS NOT NULL AND (SELECT app.platform_role()) = 'operator'));

-- Whether the server offers something else by now.
GRANT SELECT (state) ON public.mcp_tools TO switchboard_session;
