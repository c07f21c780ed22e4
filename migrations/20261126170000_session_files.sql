-- Of a doomed content that never was a file the parts are removed twice: at once, and when none can be on
-- its way any more. The mark keeps everybody who looks in between from doing it again.
ALTER TABLE public.session_files ADD COLUMN removed_at timestamptz;

GRANT UPDATE (removed_at) ON public.session_files TO switchboard_session;
