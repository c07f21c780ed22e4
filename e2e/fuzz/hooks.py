"""What schemathesis checks beside its own: nothing undocumented in an answer, no failure of ours."""

import schemathesis

# What a server of a tenant does is no failure of ours; the address that a fuzzer invents answers nothing.
OF_THE_SERVER = {"upstream_failed", "upstream_open", "timeout"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Closes every shape: a field that an answer holds and the document does not name is found.

    For readers the document stays open, because a client must not break when a field is added.
    """
    for shape in raw_schema["components"]["schemas"].values():
        for one in [shape, *shape.get("oneOf", [])]:
            if "properties" in one:
                one.setdefault("additionalProperties", False)


@schemathesis.check
def no_failure_of_ours(ctx, response, case):
    """A 5xx is the MCP server's, or it is a bug."""
    if response.status_code >= 500:
        body = response.json() if "json" in response.headers.get("content-type", [""])[0] else {}
        assert body.get("code") in OF_THE_SERVER, f"{response.status_code} {body}"
