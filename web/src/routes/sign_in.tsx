/** Signing in: an access token is pasted, tried against `/api/v1/me`, and kept for this tab. */

import { useRef, useState, type SyntheticEvent } from "react";
import { tokenFromPaste } from "../api.ts";
import { Mark, ProblemNotice, useTitle } from "../parts/notices.tsx";
import { asProblem, type Problem } from "../problem.ts";

interface Props {
  enter: (token: string) => Promise<void>;
  /** Why an earlier visit ended, if the gateway ended it. */
  refusal: Problem | null;
}

export function SignIn({ enter, refusal }: Props) {
  useTitle("Sign in");
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(refusal);
  const [fault, setFault] = useState<string | null>(null);
  const input = useRef<HTMLInputElement>(null);

  async function submit(event: SyntheticEvent) {
    event.preventDefault();
    const pasted = input.current?.value ?? "";
    const token = tokenFromPaste(pasted);
    setProblem(null);
    setFault(token !== null ? null : pasted.trim() === "" ? "Paste an access token first." : "This is not an access token: it holds characters that a token cannot.");
    if (token === null) return input.current?.focus();
    setBusy(true);
    try {
      await enter(token);
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
      input.current?.select();
    }
  }

  return (
    <main className="gate">
      <Mark />
      <h1>Switchboard</h1>
      <p className="lead">One switchboard between your agents and your MCP servers.</p>
      <form onSubmit={submit} noValidate aria-busy={busy}>
        <label htmlFor="token">Access token</label>
        <input
          ref={input}
          id="token"
          type="password"
          autoComplete="off"
          spellCheck={false}
          autoFocus
          aria-invalid={fault !== null}
          aria-describedby={fault === null ? "token-hint" : "token-fault token-hint"}
        />
        {fault !== null && (
          <p className="fault" id="token-fault" role="alert">
            {fault}
          </p>
        )}
        <p className="hint" id="token-hint">
          From your identity provider. On a development stack, <code>cargo dev token</code> prints one. It stays in this tab and goes when you sign out.
        </p>
        <button type="submit" className="primary" disabled={busy}>
          {busy ? "Signing in…" : "Sign in"}
        </button>
      </form>
      {problem !== null && <ProblemNotice problem={problem} />}
    </main>
  );
}
