/** Reading from the gateway inside a component: one request at a time, abandoned when the component goes away. */

import { useCallback, useEffect, useState } from "react";
import type { Page } from "./api.ts";
import { asProblem, type Problem } from "./problem.ts";

export interface Pages<T> {
  items: T[];
  /** True until the first page is there or has failed. */
  loading: boolean;
  loadingMore: boolean;
  problem: Problem | null;
  /** Absent when there is no further page. */
  more?: () => void;
  reload: () => void;
}

type State<T> = { items: T[]; next: string | null; settled: boolean; problem: Problem | null };

/** `fetchPage` must keep its identity while what it reads is the same (`useCallback`); a new one starts over. */
export function usePages<T>(fetchPage: (cursor: string | null, signal: AbortSignal) => Promise<Page<T>>): Pages<T> {
  const [state, setState] = useState<State<T>>({ items: [], next: null, settled: false, problem: null });
  const [wanted, setWanted] = useState<{ cursor: string | null; turn: number }>({ cursor: null, turn: 0 });

  useEffect(() => {
    const abandon = new AbortController();
    const { cursor } = wanted;
    setState((was) => (cursor === null ? { ...was, settled: false, problem: null } : { ...was, problem: null }));
    fetchPage(cursor, abandon.signal).then(
      (page) => {
        if (abandon.signal.aborted) return;
        setState((was) => ({ items: cursor === null ? page.items : [...was.items, ...page.items], next: page.next ?? null, settled: true, problem: null }));
      },
      (error: unknown) => {
        if (!abandon.signal.aborted) setState((was) => ({ ...was, settled: true, problem: asProblem(error) }));
      },
    );
    return () => abandon.abort();
  }, [fetchPage, wanted]);

  const reload = useCallback(() => setWanted((was) => ({ cursor: null, turn: was.turn + 1 })), []);
  const loadingMore = wanted.cursor !== null && wanted.cursor === state.next && state.problem === null;
  const { next } = state;
  return {
    items: state.items,
    loading: !state.settled,
    loadingMore,
    problem: state.problem,
    reload,
    ...(next === null ? {} : { more: () => setWanted((was) => ({ cursor: next, turn: was.turn + 1 })) }),
  };
}
