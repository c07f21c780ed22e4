/**
 * Where the access token is kept between reloads: this tab's sessionStorage, which ends with the tab.
 * Never localStorage, where it would outlive the visit and be shared with every tab.
 */

const KEY = "switchboard.token";

export function storedToken(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null; // Storage is switched off: the token then lives until the next reload.
  }
}

export function storeToken(token: string): void {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // As above.
  }
}

export function forgetToken(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Nothing was stored.
  }
}
