-- Key rotation: when a data key was retired, what still hangs on which key, and a seal that may be
-- renewed without the row counting as changed.

ALTER TABLE public.tenant_keys
    -- From when on it seals nothing new. What it sealed before, it opens for ever.
    ADD COLUMN retired_at timestamptz,
    ADD CONSTRAINT tenant_keys_retired_at_check CHECK ((state = 'retired') = (retired_at IS NOT NULL));
GRANT UPDATE (retired_at) ON public.tenant_keys TO switchboard_token;

-- The functions below answer for all organizations, with ids and counts and no ciphertext. The owner,
-- as which they run, sees what they look at and changes nothing of it.
CREATE POLICY owner_reads ON public.tenant_keys FOR SELECT TO switchboard_owner USING (true);
CREATE POLICY owner_reads ON public.mcp_configurations FOR SELECT TO switchboard_owner USING (true);

-- Which key-encryption keys are still needed, and by how many data keys. A worker that lacks one of
-- them must not start.
CREATE FUNCTION app.keks_in_use() RETURNS TABLE (kek_id text, data_keys bigint, organizations bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT k.kek_id, pg_catalog.count(*), pg_catalog.count(DISTINCT k.organization_id)
    FROM public.tenant_keys k GROUP BY k.kek_id ORDER BY k.kek_id;
$$;

-- Organizations after `after` with a data key that another key-encryption key than `kek` wraps.
CREATE FUNCTION app.organizations_to_rewrap(kek text, after uuid, most int) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT DISTINCT k.organization_id FROM public.tenant_keys k
    WHERE k.kek_id <> kek AND (after IS NULL OR k.organization_id > after)
    ORDER BY k.organization_id LIMIT LEAST(GREATEST(COALESCE(most, 100), 1), 1000);
$$;

-- Organizations after `after` whose active key was made before a moment, or has sealed so many values.
CREATE FUNCTION app.organizations_to_renew(made_before timestamptz, sealed bigint, after uuid, most int)
RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT k.organization_id FROM public.tenant_keys k
    WHERE k.state = 'active' AND (k.created_at < made_before OR k.writes >= sealed)
        AND (after IS NULL OR k.organization_id > after)
    ORDER BY k.organization_id LIMIT LEAST(GREATEST(COALESCE(most, 100), 1), 1000);
$$;

-- Configurations after the given one whose secret is sealed with another key than their organization's
-- active one: a sealed value names its key in bytes 3 to 18. With the member who alone sees the row,
-- since the tenant transaction that renews the seal must be theirs.
CREATE FUNCTION app.configurations_to_reseal(after_organization uuid, after_id uuid, most int)
RETURNS TABLE (organization_id uuid, id uuid, user_subject text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT c.organization_id, c.id, c.user_subject FROM public.mcp_configurations c
    WHERE c.secret IS NOT NULL
        AND (after_organization IS NULL OR (c.organization_id, c.id) > (after_organization, after_id))
        AND NOT EXISTS (
            SELECT FROM public.tenant_keys k
            WHERE k.organization_id = c.organization_id AND k.state = 'active'
                AND pg_catalog.uuid_send(k.id) = pg_catalog.substr(c.secret, 3, 16))
    ORDER BY c.organization_id, c.id LIMIT LEAST(GREATEST(COALESCE(most, 100), 1), 1000);
$$;

-- A seal renewed around the same secret changes nothing that anybody sees: it must neither make a
-- member's If-Match stale nor have workers open new connections. Whoever sets another secret sets
-- secret_set_at with it.
CREATE FUNCTION app.raise_configuration_generation() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    IF NEW.secret IS DISTINCT FROM OLD.secret
        AND pg_catalog.to_jsonb(NEW) - 'secret' = pg_catalog.to_jsonb(OLD) - 'secret' THEN
        RETURN NEW;
    END IF;
    NEW.generation := OLD.generation + 1;
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END
$$;
DROP TRIGGER raise_generation ON public.mcp_configurations;
-- Nor does the tool pool change a configuration: it may note at most what became of a secret.
CREATE TRIGGER raise_generation BEFORE UPDATE ON public.mcp_configurations
    FOR EACH ROW WHEN (CURRENT_USER <> 'switchboard_tool') EXECUTE FUNCTION app.raise_configuration_generation();

ALTER FUNCTION app.keks_in_use() OWNER TO switchboard_owner;
ALTER FUNCTION app.organizations_to_rewrap(text, uuid, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.organizations_to_renew(timestamptz, bigint, uuid, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.configurations_to_reseal(uuid, uuid, int) OWNER TO switchboard_owner;
ALTER FUNCTION app.raise_configuration_generation() OWNER TO switchboard_owner;

REVOKE ALL ON FUNCTION app.keks_in_use(), app.organizations_to_rewrap(text, uuid, int),
    app.organizations_to_renew(timestamptz, bigint, uuid, int), app.configurations_to_reseal(uuid, uuid, int),
    app.raise_configuration_generation()
    FROM PUBLIC;
GRANT EXECUTE ON FUNCTION app.keks_in_use() TO switchboard_token, switchboard_tool;
GRANT EXECUTE ON FUNCTION app.organizations_to_rewrap(text, uuid, int),
    app.organizations_to_renew(timestamptz, bigint, uuid, int), app.configurations_to_reseal(uuid, uuid, int)
    TO switchboard_token;
