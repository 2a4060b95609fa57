"""What a client is told that cannot get what it asked for: OpenAI's shape, whose own client makes exceptions of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

__all__ = ["RequestError", "not_served"]


class RequestError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP; OpenAI's client asks again at 408, 409, 429 and 5xx, unless `x-should-retry` says not to.
        message: what is wrong, for people.
        code: the same for programs.
        param: the field that it is about.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = dict(headers)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.to_dict(), self.status, self.headers)


def not_served(model: str, names: Sequence[str], param: str, status: int = 404) -> RequestError:
    """What is said of a model that is none of those served, by their names."""
    message = f"no model {model[:64]!r} is served here; there is {' or '.join(names)}"
    return RequestError(status, message, code="model_not_found", param=param)
