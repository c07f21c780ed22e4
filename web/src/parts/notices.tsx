/** What a page says when it has nothing else to show yet: it is loading, it is empty, or something went wrong. */

import { useEffect, type ReactNode } from "react";
import { advice, type Problem } from "../problem.ts";

export function ProblemNotice({ problem, retry }: { problem: Problem; retry?: () => void }) {
  const { title, detail, request_id: requestId, code, status } = problem.facts;
  return (
    <div className="notice bad" role="alert">
      <p>
        <strong>{sentence(title)}</strong> {detail !== undefined && detail !== title && sentence(detail)} {advice(problem)}
      </p>
      <p className="fine">
        <span>
          {code}
          {status > 0 && ` · HTTP ${status}`}
        </span>
        {requestId !== undefined && (
          <span>
            Request <code>{requestId}</code>
          </span>
        )}
        {retry && (
          <button type="button" className="small" onClick={retry}>
            Try again
          </button>
        )}
      </p>
    </div>
  );
}

/** Grey lines where rows will be. */
export function Skeleton({ label, rows }: { label: string; rows: number }) {
  return (
    <div className="skeleton" role="status">
      <span className="unseen">{label}…</span>
      {Array.from({ length: rows }, (_, row) => (
        <span key={row} className="bone" aria-hidden="true" />
      ))}
    </div>
  );
}

export function EmptyState({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="empty">
      <Mark />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Two sockets and a cord. */
export function Mark() {
  return (
    <svg className="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect className="plate" width="32" height="32" rx="8" />
      <path className="cord" d="M9 10v4c0 9 14 2 14 9" />
      <circle className="jack" cx="9" cy="9" r="3.5" />
      <circle className="jack" cx="23" cy="23" r="3.5" />
    </svg>
  );
}

/** The page's name in the tab and in the history. */
export function useTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Switchboard`;
  }, [title]);
}

function sentence(text: string): string {
  const trimmed = text.trim();
  const closed = /[.!?…]$/.test(trimmed) ? trimmed : `${trimmed}.`;
  return closed.charAt(0).toUpperCase() + closed.slice(1);
}
