/** Asks before a configuration is removed: everyone in the organization loses its tools at once. */

import { useEffect, useRef, useState } from "react";
import type { Api, Configuration } from "../api.ts";
import { asProblem, type Problem } from "../problem.ts";
import { ProblemNotice } from "./notices.tsx";

interface Props {
  api: Api;
  configuration: Configuration;
  done: () => void;
  cancel: () => void;
}

export function RemoveDialog({ api, configuration, done, cancel }: Props) {
  const dialog = useRef<HTMLDialogElement>(null);
  const keep = useRef<HTMLButtonElement>(null);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);

  // The native dialog keeps focus inside, closes on Escape and gives focus back.
  useEffect(() => {
    const shown = dialog.current;
    shown?.showModal();
    keep.current?.focus(); // So that a hasty Enter removes nothing.
    return () => shown?.close();
  }, []);

  async function remove() {
    setBusy(true);
    setProblem(null);
    try {
      await api.remove(configuration.id);
      done();
    } catch (error) {
      const refusal = asProblem(error, false);
      // Someone else was faster: what was asked for is the case.
      if (refusal.facts.code === "unknown") return done();
      setProblem(refusal);
      setBusy(false);
    }
  }

  return (
    <dialog
      ref={dialog}
      aria-labelledby="remove-title"
      onCancel={(event) => {
        event.preventDefault();
        if (!busy) cancel();
      }}
    >
      <h2 id="remove-title">Remove “{configuration.name}”?</h2>
      <p>{configuration.scope === "user" ? "You lose" : "Everyone in your organization loses"} its tools at once, and its stored secret is deleted. This cannot be undone.</p>
      {problem !== null && <ProblemNotice problem={problem} />}
      <div className="actions">
        <button type="button" className="primary danger" onClick={remove} disabled={busy}>
          {busy ? "Removing…" : "Remove"}
        </button>
        <button ref={keep} type="button" className="quiet" onClick={cancel} disabled={busy}>
          Keep it
        </button>
      </div>
    </dialog>
  );
}
