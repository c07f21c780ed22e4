/** The MCP servers of an organization: list, register, remove. */

import { useCallback, useState } from "react";
import type { Api, Configuration } from "../api.ts";
import { usePages } from "../loading.ts";
import { EmptyState, ProblemNotice, Skeleton, useTitle } from "../parts/notices.tsx";
import { RegisterForm } from "../parts/register_form.tsx";
import { RemoveDialog } from "../parts/remove_dialog.tsx";
import { toolsHref } from "../router.ts";

export function Configurations({ api }: { api: Api }) {
  useTitle("Configurations");
  const pages = usePages<Configuration>(useCallback((cursor, signal) => api.configurations(cursor, signal), [api]));
  const [registering, setRegistering] = useState(false);
  const [removing, setRemoving] = useState<Configuration | null>(null);
  const [news, setNews] = useState("");
  const empty = pages.items.length === 0;

  function done(what: string) {
    setRegistering(false);
    setRemoving(null);
    setNews(what);
    pages.reload();
  }

  return (
    <>
      <div className="heading">
        <div>
          <h1>Configurations</h1>
          <p className="lead">The MCP servers your organization has registered.</p>
        </div>
        {!registering && (
          <button type="button" className="primary" onClick={() => setRegistering(true)}>
            Register a server
          </button>
        )}
      </div>
      <p role="status" className={news === "" ? "unseen" : "notice good"}>
        {news}
      </p>
      {registering && <RegisterForm api={api} done={(name) => done(`“${name}” is registered.`)} cancel={() => setRegistering(false)} />}
      {pages.problem !== null && <ProblemNotice problem={pages.problem} retry={pages.reload} />}
      {pages.loading && empty && <Skeleton label="Loading configurations" rows={3} />}
      {!pages.loading && empty && pages.problem === null && !registering && (
        <EmptyState title="No MCP server yet">
          <p>Register the first one: you need its address, and its token if it asks for one. Its tools can then be called from here, from the API and over MCP.</p>
        </EmptyState>
      )}
      {!empty && (
        <ul className="cards" aria-label="Configurations" aria-busy={pages.loading}>
          {pages.items.map((configuration) => (
            <ConfigurationCard key={configuration.id} configuration={configuration} remove={() => setRemoving(configuration)} />
          ))}
        </ul>
      )}
      {pages.more && (
        <button type="button" className="more" onClick={pages.more} disabled={pages.loadingMore}>
          {pages.loadingMore ? "Loading…" : "Show more"}
        </button>
      )}
      {removing !== null && (
        <RemoveDialog api={api} configuration={removing} done={() => done(`“${removing.name}” is removed.`)} cancel={() => setRemoving(null)} />
      )}
    </>
  );
}

function ConfigurationCard({ configuration, remove }: { configuration: Configuration; remove: () => void }) {
  const { id, name, endpoint, catalogue, transport, auth, enabled, scope, via, created_at: createdAt } = configuration;
  return (
    <li className="card">
      <div className="card-body">
        <h2>
          <a className="cover" href={toolsHref(id)}>
            {name}
          </a>
        </h2>
        <p className="endpoint">{endpoint ?? catalogue}</p>
        <p className="tags">
          <span className="tag">{transport === "sse" ? "SSE" : transport === "http" ? "HTTP" : transport}</span>
          {via === "fastmcp" && <span className="tag">through FastMCP</span>}
          <span className="tag">{authLabel(auth)}</span>
          {scope === "user" && <span className="tag calm">only yours</span>}
          {enabled === false && <span className="tag warn">disabled</span>}
          <Since at={createdAt} />
        </p>
      </div>
      <div className="card-actions">
        <span className="go" aria-hidden="true">
          Tools →
        </span>
        <button type="button" className="small danger" onClick={remove} aria-label={`Remove ${name}`}>
          Remove
        </button>
      </div>
    </li>
  );
}

function Since({ at }: { at: string | undefined }) {
  const date = new Date(at ?? "");
  if (Number.isNaN(date.getTime())) return null;
  return (
    <time className="fine" dateTime={date.toISOString()}>
      since {new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format(date)}
    </time>
  );
}

function authLabel(auth: Configuration["auth"] | undefined): string {
  if (auth === undefined || auth.type === "none") return "no authentication";
  return auth.hint ? `${auth.type} …${auth.hint.replace(/^…/, "")}` : auth.type;
}
