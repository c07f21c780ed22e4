/** Routes live in the fragment, so that the console works wherever the gateway mounts it and needs no rewrite rules. */

import { useSyncExternalStore } from "react";

export type Route = { page: "configurations" } | { page: "tools"; configuration: string; tool: string | null } | { page: "missing" };

export const configurationsHref = "#/configurations";

export function toolsHref(configuration: string, tool?: string): string {
  const base = `${configurationsHref}/${encodeURIComponent(configuration)}/tools`;
  return tool === undefined ? base : `${base}/${encodeURIComponent(tool)}`;
}

export function parseRoute(hash: string): Route {
  const parts = decode(hash.replace(/^#?\/?/, ""));
  if (parts === null) return { page: "missing" };
  const [noun, id, leaf, tool] = parts;
  if (parts.length === 0 || (noun === "configurations" && parts.length === 1)) return { page: "configurations" };
  if (noun === "configurations" && id !== undefined && leaf === "tools" && parts.length <= 4) {
    return { page: "tools", configuration: id, tool: tool ?? null };
  }
  return { page: "missing" };
}

/** The current fragment; the component renders again when it changes. */
export function useHash(): string {
  return useSyncExternalStore(
    (notify) => {
      addEventListener("hashchange", notify);
      return () => removeEventListener("hashchange", notify);
    },
    () => location.hash,
  );
}

function decode(path: string): string[] | null {
  try {
    return path.split("/").filter((part) => part !== "").map(decodeURIComponent);
  } catch {
    return null; // A stray percent sign.
  }
}
