-- Audit: the outbox that a command's transaction writes into, and the append-only log by month.
--
-- Neither table points at organizations: a record outlives what it tells of, and writing one must not
-- fail because of another table.

CREATE TABLE public.audit_outbox (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    -- The exact bytes to publish.
    event bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT audit_outbox_pkey PRIMARY KEY (organization_id, event_id)
);

CREATE TABLE public.audit_logs (
    organization_id uuid NOT NULL,
    event_id uuid NOT NULL,
    -- When the producer says it happened; the partition key, and part of the key that makes a redelivered
    -- event write nothing.
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    resource_type text NOT NULL,
    resource_id text,
    outcome text NOT NULL,
    -- The fault's code, where the outcome is not 'succeeded'.
    code text,
    request_id text,
    details jsonb NOT NULL DEFAULT '{}',
    -- The exact bytes of the event, from which the columns above were taken.
    event bytea NOT NULL,
    CONSTRAINT audit_logs_pkey PRIMARY KEY (organization_id, occurred_at, event_id),
    CONSTRAINT audit_logs_outcome_check CHECK (outcome IN ('succeeded', 'refused', 'failed'))
) PARTITION BY RANGE (occurred_at);

ALTER TABLE public.audit_outbox OWNER TO switchboard_owner;
ALTER TABLE public.audit_outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.audit_outbox FORCE ROW LEVEL SECURITY;
ALTER TABLE public.audit_logs OWNER TO switchboard_owner;
ALTER TABLE public.audit_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE public.audit_logs FORCE ROW LEVEL SECURITY;

-- The second wall behind row-level security, against the defaults of Supabase's API roles.
REVOKE ALL ON public.audit_outbox, public.audit_logs FROM PUBLIC, anon, authenticated, service_role;

-- Pools that write the database leave their event in the same transaction, for their own organization,
-- and cannot read, change or take back one.
GRANT INSERT ON public.audit_outbox TO switchboard_session, switchboard_token, switchboard_tool;
CREATE POLICY tenant_inserts ON public.audit_outbox FOR INSERT
    TO switchboard_session, switchboard_token, switchboard_tool
    WITH CHECK (organization_id = (SELECT app.org_id()));

-- The audit pool answers one organization's questions at a time. It has no INSERT, UPDATE or DELETE:
-- app.append_audit is its only way to write.
GRANT SELECT ON public.audit_logs TO switchboard_audit;
CREATE POLICY tenant_reads ON public.audit_logs FOR SELECT TO switchboard_audit
    USING (organization_id = (SELECT app.org_id()));

-- What the functions below do as the owner, and no more: take events out of the outbox, add to the log.
-- The owner cannot read the log.
CREATE POLICY owner_reads ON public.audit_outbox FOR SELECT TO switchboard_owner USING (true);
CREATE POLICY owner_deletes ON public.audit_outbox FOR DELETE TO switchboard_owner USING (true);
CREATE POLICY owner_inserts ON public.audit_logs FOR INSERT TO switchboard_owner WITH CHECK (true);

-- Holds everyone, the owner and superusers included, until somebody disables the trigger.
CREATE FUNCTION app.refuse_audit_change() RETURNS trigger LANGUAGE plpgsql SET search_path = ''
AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % on %.% refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON public.audit_logs
    FOR EACH ROW EXECUTE FUNCTION app.refuse_audit_change();
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.audit_logs
    FOR EACH STATEMENT EXECUTE FUNCTION app.refuse_audit_change();

-- Makes one partition and attaches it complete. Row triggers are cloned from the parent, statement
-- triggers and row-level security are not. ATTACH, unlike CREATE .. PARTITION OF, does not stop readers.
CREATE FUNCTION app.create_audit_partition(partition_name text, bounds text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET lock_timeout = '5s'
AS $$
BEGIN
    EXECUTE pg_catalog.format(
        'CREATE TABLE public.%I (LIKE public.audit_logs INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
    EXECUTE pg_catalog.format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', partition_name);
    EXECUTE pg_catalog.format('ALTER TABLE public.%I FORCE ROW LEVEL SECURITY', partition_name);
    EXECUTE pg_catalog.format(
        'REVOKE ALL ON public.%I FROM PUBLIC, anon, authenticated, service_role', partition_name);
    -- Nobody is granted a partition; should somebody be, it shows no more than the parent does.
    EXECUTE pg_catalog.format(
        'CREATE POLICY tenant_reads ON public.%I FOR SELECT TO switchboard_audit '
        'USING (organization_id = (SELECT app.org_id()))', partition_name);
    EXECUTE pg_catalog.format(
        'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON public.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION app.refuse_audit_change()', partition_name);
    EXECUTE pg_catalog.format('ALTER TABLE public.audit_logs ATTACH PARTITION public.%I %s', partition_name, bounds);
END
$$;

-- Makes the partitions of this month and of the next `months_ahead` (0 to 24), months in UTC. Repeating
-- it is free. One row per month: state 'created', 'exists', or 'blocked' where the default partition
-- already holds events of that month; these stay where they are, since moving them would be a deletion.
CREATE FUNCTION app.ensure_audit_partitions(months_ahead int) RETURNS TABLE (partition_name text, state text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' SET timezone = 'UTC'
AS $$
DECLARE
    first_day timestamptz;
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('app.ensure_audit_partitions', 0));
    FOR month_number IN 0 .. LEAST(GREATEST(COALESCE(months_ahead, 0), 0), 24) LOOP
        first_day := pg_catalog.date_trunc('month', pg_catalog.now()) + pg_catalog.make_interval(months => month_number);
        partition_name := 'audit_logs_' || pg_catalog.to_char(first_day, 'YYYY_MM');
        IF pg_catalog.to_regclass(pg_catalog.format('public.%I', partition_name)) IS NOT NULL THEN
            state := 'exists';
        ELSE
            BEGIN
                PERFORM app.create_audit_partition(partition_name, pg_catalog.format(
                    'FOR VALUES FROM (%L) TO (%L)', first_day, first_day + interval '1 month'));
                state := 'created';
            EXCEPTION WHEN check_violation THEN
                state := 'blocked';
            END;
        END IF;
        RETURN NEXT;
    END LOOP;
END
$$;

-- Appends a batch and clears the same events from the outbox, in one transaction; returns how many rows
-- were new. The arrays are parallel: element i of each is event i. Events recorded before are skipped.
-- One bad element refuses the whole batch.
CREATE FUNCTION app.append_audit(
    organization_ids uuid[], event_ids uuid[], occurred_ats timestamptz[], actors text[], actions text[],
    resource_types text[], resource_ids text[], outcomes text[], codes text[], request_ids text[],
    detail_objects jsonb[], events bytea[]
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ''
AS $$
DECLARE
    appended bigint;
BEGIN
    IF (SELECT pg_catalog.count(DISTINCT lengths.n) <> 1 OR pg_catalog.count(*) <> pg_catalog.count(lengths.n)
        FROM (VALUES (cardinality(organization_ids)), (cardinality(event_ids)), (cardinality(occurred_ats)),
            (cardinality(actors)), (cardinality(actions)), (cardinality(resource_types)),
            (cardinality(resource_ids)), (cardinality(outcomes)), (cardinality(codes)),
            (cardinality(request_ids)), (cardinality(detail_objects)), (cardinality(events))) AS lengths (n))
    THEN
        RAISE EXCEPTION 'the arrays of an audit batch must be equally long' USING ERRCODE = 'array_subscript_error';
    END IF;

    -- Sorted, so that two batches that share redelivered events wait for each other in one order.
    INSERT INTO public.audit_logs (organization_id, event_id, occurred_at, actor, action, resource_type,
        resource_id, outcome, code, request_id, details, event)
    SELECT b.organization_id, b.event_id, b.occurred_at, b.actor, b.action, b.resource_type,
        b.resource_id, b.outcome, b.code, b.request_id, COALESCE(b.details, '{}'), b.event
    FROM unnest(organization_ids, event_ids, occurred_ats, actors, actions, resource_types, resource_ids,
            outcomes, codes, request_ids, detail_objects, events)
        AS b (organization_id, event_id, occurred_at, actor, action, resource_type, resource_id,
            outcome, code, request_id, details, event)
    ORDER BY b.organization_id, b.occurred_at, b.event_id
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS appended = ROW_COUNT;

    DELETE FROM public.audit_outbox o
    USING unnest(organization_ids, event_ids) AS b (organization_id, event_id)
    WHERE o.organization_id = b.organization_id AND o.event_id = b.event_id;
    RETURN appended;
END
$$;

-- Events that a worker committed and did not live to publish, oldest first, for the relay: 1 to 1000 of
-- those older than `older_than`. They leave the outbox when app.append_audit has recorded them.
CREATE FUNCTION app.outbox_leftovers(older_than interval, n int)
RETURNS TABLE (organization_id uuid, event_id uuid, event bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
AS $$
    SELECT o.organization_id, o.event_id, o.event
    FROM public.audit_outbox o
    WHERE o.created_at < pg_catalog.now() - older_than
    ORDER BY o.created_at
    LIMIT LEAST(GREATEST(COALESCE(n, 100), 1), 1000);
$$;

ALTER FUNCTION app.refuse_audit_change() OWNER TO switchboard_owner;
ALTER FUNCTION app.create_audit_partition(text, text) OWNER TO switchboard_owner;
ALTER FUNCTION app.ensure_audit_partitions(int) OWNER TO switchboard_owner;
ALTER FUNCTION app.append_audit(uuid[], uuid[], timestamptz[], text[], text[], text[], text[], text[], text[],
    text[], jsonb[], bytea[]) OWNER TO switchboard_owner;
ALTER FUNCTION app.outbox_leftovers(interval, int) OWNER TO switchboard_owner;

-- Writing and relaying are the audit pool's; the controller, which sweeps, only makes partitions. Every
-- new function is executable by PUBLIC until revoked.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA app FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
        app.append_audit(uuid[], uuid[], timestamptz[], text[], text[], text[], text[], text[], text[],
            text[], jsonb[], bytea[]),
        app.outbox_leftovers(interval, int)
    TO switchboard_audit;
GRANT EXECUTE ON FUNCTION app.ensure_audit_partitions(int) TO switchboard_audit, switchboard_controller;

-- The default partition takes what falls outside every month (a wrong clock, a controller away for long),
-- so that no event is ever refused.
SELECT app.create_audit_partition('audit_logs_default', 'DEFAULT');
SELECT * FROM app.ensure_audit_partitions(2);
