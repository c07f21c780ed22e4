/** The tools of one configuration: find one, read what it does, call it. */

import { useCallback, useEffect, useState } from "react";
import type { Api, Configuration, Tool } from "../api.ts";
import { usePages } from "../loading.ts";
import { EmptyState, ProblemNotice, Skeleton, useTitle } from "../parts/notices.tsx";
import { toolTitle, ToolPanel } from "../parts/tool_panel.tsx";
import { configurationsHref, toolsHref } from "../router.ts";

/** Below this many tools, a filter is one more thing to read. */
const FILTER_FROM = 8;

interface Props {
  api: Api;
  configuration: string;
  /** The tool named by the route. */
  selected: string | null;
}

export function Tools({ api, configuration: id, selected }: Props) {
  const configuration = useConfiguration(api, id);
  const pages = usePages<Tool>(useCallback((cursor, signal) => api.tools(id, cursor, signal), [api, id]));
  const [filter, setFilter] = useState("");
  const name = configuration?.name ?? "Tools";
  useTitle(name);

  const needle = filter.trim().toLowerCase();
  const listed = pages.items.filter((tool) => `${tool.name} ${toolTitle(tool)}`.toLowerCase().includes(needle));
  const current = selected === null ? pages.items[0] : pages.items.find((tool) => tool.name === selected);
  const empty = pages.items.length === 0;

  return (
    <>
      <nav className="crumbs" aria-label="You are here">
        <a href={configurationsHref}>Configurations</a> <span aria-hidden="true">/</span> <span aria-current="page">{name}</span>
      </nav>
      <div className="heading">
        <div>
          <h1>{name}</h1>
          <p className="endpoint">{configuration?.endpoint ?? configuration?.catalogue ?? "\u00a0"}</p>
        </div>
        <button type="button" onClick={pages.reload} disabled={pages.loading}>
          {pages.loading ? "Asking the server…" : "Reload tools"}
        </button>
      </div>
      {pages.problem !== null && <ProblemNotice problem={pages.problem} retry={pages.reload} />}
      {pages.loading && empty && <Skeleton label="Asking the server for its tools" rows={5} />}
      {!pages.loading && empty && pages.problem === null && (
        <EmptyState title="This server offers no tools">
          <p>It answered, and its list is empty. If you expected tools, look at the server's own settings, then reload.</p>
        </EmptyState>
      )}
      {!empty && (
        <div className="split">
          <nav className="tools" aria-label="Tools" aria-busy={pages.loading}>
            {pages.items.length >= FILTER_FROM && (
              <input type="search" aria-label="Filter tools" placeholder="Filter tools" value={filter} onChange={(event) => setFilter(event.target.value)} />
            )}
            <ul>
              {listed.map((tool) => (
                <li key={tool.name}>
                  <a href={toolsHref(id, tool.name)} aria-current={tool === current ? "true" : undefined}>
                    <span className="tool-name">{tool.name}</span>
                    {tool.description && <span className="tool-about">{tool.description}</span>}
                  </a>
                </li>
              ))}
            </ul>
            {listed.length === 0 && <p className="hint">No tool matches “{filter.trim()}”.</p>}
            {pages.more && (
              <button type="button" className="more" onClick={pages.more} disabled={pages.loadingMore}>
                {pages.loadingMore ? "Loading…" : "Show more"}
              </button>
            )}
          </nav>
          {current ? (
            <ToolPanel key={current.name} api={api} configuration={id} tool={current} />
          ) : (
            <EmptyState title={`There is no tool “${selected}” here`}>
              <p>Choose one from the list{pages.more ? ", or show more of it" : ""}.</p>
            </EmptyState>
          )}
        </div>
      )}
    </>
  );
}

/** The configuration's name and address, for the heading only: when they cannot be had, the tools still can. */
function useConfiguration(api: Api, id: string): Configuration | null {
  const [configuration, setConfiguration] = useState<Configuration | null>(null);
  useEffect(() => {
    const abandon = new AbortController();
    api.configuration(id, abandon.signal).then(setConfiguration, () => setConfiguration(null));
    return () => abandon.abort();
  }, [api, id]);
  return configuration;
}
