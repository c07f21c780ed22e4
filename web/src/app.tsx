/** The shell: who is signed in, which route is shown, and what happens when the token stops being accepted. */

import { useCallback, useEffect, useRef, useState } from "react";
import { Api, type Me } from "./api.ts";
import { EmptyState, Mark, ProblemNotice, Skeleton } from "./parts/notices.tsx";
import { asProblem, type Problem } from "./problem.ts";
import { configurationsHref, parseRoute, useHash } from "./router.ts";
import { Configurations } from "./routes/configurations.tsx";
import { SignIn } from "./routes/sign_in.tsx";
import { Tools } from "./routes/tools.tsx";
import { forgetToken, storedToken, storeToken } from "./session.ts";

type Visit =
  | { state: "out"; problem: Problem | null }
  | { state: "returning"; token: string; problem: Problem | null }
  | { state: "in"; api: Api; me: Me };

export function App() {
  const [visit, setVisit] = useState<Visit>(firstVisit);

  const signOut = useCallback((problem: Problem | null = null) => {
    forgetToken();
    setVisit({ state: "out", problem });
  }, []);

  const enter = useCallback(
    async (token: string, signal?: AbortSignal) => {
      const api = new Api(token);
      const me = await api.me(signal);
      api.onRefused = signOut;
      storeToken(token);
      setVisit({ state: "in", api, me });
    },
    [signOut],
  );

  // A reload: the token is still in this tab, whether it is still good only the gateway knows.
  const returning = visit.state === "returning" && visit.problem === null ? visit.token : null;
  useEffect(() => {
    if (returning === null) return;
    const abandon = new AbortController();
    enter(returning, abandon.signal).catch((error: unknown) => {
      if (abandon.signal.aborted) return;
      const problem = asProblem(error);
      if (problem.facts.status === 401) signOut(problem);
      else setVisit({ state: "returning", token: returning, problem });
    });
    return () => abandon.abort();
  }, [returning, enter, signOut]);

  if (visit.state === "out") return <SignIn enter={enter} refusal={visit.problem} />;
  if (visit.state === "in") return <Shell api={visit.api} me={visit.me} signOut={() => signOut()} />;
  return (
    <main className="gate">
      <Mark />
      {visit.problem === null ? (
        <Skeleton label="Signing you in again" rows={1} />
      ) : (
        <>
          <ProblemNotice problem={visit.problem} retry={() => setVisit({ ...visit, problem: null })} />
          <button type="button" className="quiet" onClick={() => signOut()}>
            Sign out
          </button>
        </>
      )}
    </main>
  );
}

function firstVisit(): Visit {
  const token = storedToken();
  return token === null ? { state: "out", problem: null } : { state: "returning", token, problem: null };
}

function Shell({ api, me, signOut }: { api: Api; me: Me; signOut: () => void }) {
  const hash = useHash();
  const route = parseRoute(hash);
  const main = useRef<HTMLElement>(null);
  // A page change is announced and continued from: focus goes to the new page. Choosing a tool is not a page change.
  const page = route.page === "tools" ? `tools/${route.configuration}` : route.page;
  const shown = useRef(page);
  useEffect(() => {
    if (shown.current === page) return;
    shown.current = page;
    main.current?.focus();
    scrollTo(0, 0);
  }, [page]);

  return (
    <>
      <header className="bar">
        <a className="brand" href={configurationsHref}>
          <Mark />
          Switchboard
        </a>
        <dl className="identity" aria-label="Signed in as">
          <div>
            <dt>Organization</dt>
            <dd title={me.organization.slug}>{me.organization.name}</dd>
          </div>
          <div>
            <dt>Subject</dt>
            <dd title={me.subject}>{me.subject}</dd>
          </div>
          <div>
            <dt>Role</dt>
            <dd className="role">{me.role}</dd>
          </div>
        </dl>
        <a href="docs">API</a>
        <button type="button" className="quiet" onClick={signOut}>
          Sign out
        </button>
      </header>
      <main ref={main} tabIndex={-1} className="page">
        {route.page === "configurations" && <Configurations api={api} />}
        {route.page === "tools" && <Tools key={route.configuration} api={api} configuration={route.configuration} selected={route.tool} />}
        {route.page === "missing" && (
          <EmptyState title="There is no such page">
            <p>
              Go to the <a href={configurationsHref}>configurations</a> of your organization.
            </p>
          </EmptyState>
        )}
      </main>
    </>
  );
}
