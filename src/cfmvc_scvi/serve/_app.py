"""The routes of the service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cfmvc_scvi.errors import CFMVCError
from cfmvc_scvi.runtime import Bundle, Question
from cfmvc_scvi.serve._payload import RefusedError, as_dict, as_npz, head_and_rows, question_of, read_cells, rows_of
from cfmvc_scvi.serve._schema import (
    CounterfactualAnswer,
    CounterfactualHeader,
    CounterfactualRequest,
    EncodeAnswer,
    EncodeHeader,
    EncodeRequest,
    Health,
    ModelCard,
    Problem,
)
from cfmvc_scvi.serve.batcher import Batcher
from cfmvc_scvi.serve.config import Limits
from cfmvc_scvi.serve.middleware import Authentication, BodyGuard, LocalNames, RequestLog, Slots
from cfmvc_scvi.serve.telemetry import Metrics
from cfmvc_scvi.wire import ARROW, JSON, NPZ, write_npz

__all__ = ["application"]

_CELLS_OF_A_CHUNK = 512
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "No token"},
    408: {"model": Problem, "description": "The body took too long"},
    413: {"model": Problem, "description": "Too much"},
    415: {"model": Problem, "description": "Another type"},
    422: {"model": Problem, "description": "Cells or question cannot be used"},
    503: {"model": Problem, "description": "Too many requests at once, or the answer took too long"},
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def application(
    bundle: Bundle, token: str | None, limits: Limits, batching: bool, local_names: bool
) -> Callable[..., Any]:
    """Return the service, its guards around the routes; parameters as of `create_app`."""
    metrics = Metrics()
    service = _Service(bundle, limits, metrics, batching)
    routes = FastAPI(
        title="cfmvc-scvi", description="Counterfactual single cells", version="1", lifespan=service.lifespan
    )
    _add_routes(routes, service)
    _add_errors(routes)
    guarded: Callable[..., Any] = Authentication(Slots(BodyGuard(routes, limits), limits.concurrent), token)
    if local_names:
        guarded = LocalNames(guarded)
    return RequestLog(guarded, metrics, frozenset(str(getattr(route, "path", "")) for route in routes.routes))


class _Service:
    """What the routes do, between the body of a request and that of a response."""

    def __init__(self, bundle: Bundle, limits: Limits, metrics: Metrics, batching: bool) -> None:
        self.bundle, self.limits, self.metrics = bundle, limits, metrics
        self.batcher = Batcher(self._answers, together=batching, observe=metrics.batches.observe)

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        self.batcher.start()
        yield
        await self.batcher.stop()

    def card(self) -> dict[str, Any]:
        values = self.bundle.card.to_dict()
        vocabulary = values["vocabulary"]
        return {
            **{name: values[name] for name in ModelCard.model_fields if name in values},
            "perturbations": vocabulary["perturbations"],
            "control": vocabulary["control"],
            "separator": vocabulary["separator"],
            "contexts": self.bundle.contexts,
            "limits": vars(self.limits),
        }

    async def encode(self, request: Request) -> Response:
        header, cells, kind = await self._read(request, EncodeHeader, EncodeRequest)
        content = (cells, None, header.pad_missing)
        mean, sd = await self._answer("encode", len(cells.obs_names), content, "/v1/encode")
        n_intrinsic, names = self.bundle.card.n_intrinsic, [str(name) for name in cells.obs_names]
        if kind == JSON:
            values = {"names": names, "n_intrinsic": n_intrinsic, "mean": mean.tolist(), "sd": sd.tolist()}
            return JSONResponse(values)
        told = {"names": names, "n_intrinsic": n_intrinsic}
        return Response(write_npz(told, {"mean": mean, "sd": sd}), media_type=NPZ)

    async def counterfactual(self, request: Request) -> Response:
        header, cells, kind = await self._read(request, CounterfactualHeader, CounterfactualRequest)
        question = question_of(header, self.limits, len(cells.obs_names))
        settings = question.settings(self.bundle.card.solvers)
        n_cells = len(cells.obs_names)
        if kind == ARROW and question.n_samples == 1:
            size = _CELLS_OF_A_CHUNK
        else:
            size = n_cells
        parts = [rows_of(cells, slice(start, start + size)) for start in range(0, n_cells, size)]

        async def answer(number: int) -> Any:
            content = (parts[number], question, header.pad_missing)
            return await self._answer(settings, len(parts[number].obs_names), content, "/v1/counterfactual")

        first = await answer(0)
        if kind == JSON:
            return JSONResponse(as_dict(first))
        if kind == NPZ:
            return Response(await asyncio.to_thread(as_npz, first), media_type=NPZ)

        async def stream() -> AsyncIterator[bytes]:
            yield await asyncio.to_thread(head_and_rows, first, True)
            for number in range(1, len(parts)):
                yield await asyncio.to_thread(head_and_rows, await answer(number), False)
            yield b"\xff\xff\xff\xff\x00\x00\x00\x00"

        return StreamingResponse(stream(), media_type=ARROW)

    async def _read(self, request: Request, header: type[Any], whole: type[BaseModel]) -> tuple[Any, Any, str]:
        body, kind = await request.body(), request.headers.get("content-type", "")
        read = await asyncio.to_thread(read_cells, body, kind, header, whole, self.limits)
        return *read, kind.partition(";")[0].strip().lower()

    async def _answer(self, kind: Any, n_cells: int, content: Any, route: str) -> Any:
        try:
            answer = await asyncio.wait_for(self.batcher(kind, n_cells, content), self.limits.answer_seconds)
        except TimeoutError as error:
            text = f"no answer within {self.limits.answer_seconds} s; ask for fewer cells"
            raise RefusedError(503, text) from error
        self.metrics.cells.labels(route).inc(n_cells)
        return answer

    def _answers(self, contents: Sequence[tuple[Any, Question | None, bool]]) -> list[Any]:
        """Answer requests of one kind; in the thread of the model."""
        outcomes: list[Any] = []
        for cells, question, pad_missing in contents:
            if question is None:
                outcomes.append(_tried(self.bundle.take, cells, pad_missing=pad_missing))
            else:
                outcomes.append(_tried(self.bundle.ask, cells, question, pad_missing=pad_missing))
        together: Callable[[list[Any]], Any] = self.bundle.answer if contents[0][1] else self.bundle.moments
        taken = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
        answers = _tried(together, [outcomes[number] for number in taken]) if taken else []
        if isinstance(answers, Exception):  # of one of them; which, is found out one by one
            alone = [_tried(together, [outcomes[number]]) for number in taken]
            answers = [each if isinstance(each, Exception) else each[0] for each in alone]
        for number, answer in zip(taken, answers, strict=True):
            outcomes[number] = answer
        return outcomes


def _tried(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what a function returns, or the exception that it raises: one request's fault is not the others'."""
    try:
        return function(*arguments, **options)
    except Exception as error:  # noqa: BLE001  # raised where the answer is awaited
        return error


def _add_routes(routes: FastAPI, service: _Service) -> None:
    @routes.get("/healthz", response_model=Health, responses={503: _PROBLEMS[503]}, summary="Is the service there?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    few: dict[int | str, dict[str, Any]] = {status: _PROBLEMS[status] for status in (401, 503)}

    @routes.get("/v1/model", response_model=ModelCard, responses=few, summary="What the model knows")
    async def model() -> dict[str, Any]:
        return service.card()

    @routes.get("/metrics", responses={**few, 200: {"content": {"text/plain": {}}}}, response_class=Response)
    async def metrics() -> Response:
        text, kind = service.metrics.exposed()
        return Response(text, media_type=kind)

    @routes.post(
        "/v1/encode",
        response_model=EncodeAnswer,
        responses={**_PROBLEMS, 200: {"content": {NPZ: _BINARY}}},
        openapi_extra=_body(EncodeRequest),
        summary="Latents of cells",
    )
    async def encode(request: Request) -> Response:
        return await service.encode(request)

    @routes.post(
        "/v1/counterfactual",
        response_model=CounterfactualAnswer,
        responses={**_PROBLEMS, 200: {"content": {NPZ: _BINARY, ARROW: _BINARY}}},
        openapi_extra=_body(CounterfactualRequest),
        summary="The same cells under another condition",
    )
    async def counterfactual(request: Request) -> Response:
        return await service.counterfactual(request)


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a body that is read by hand: JSON for few cells, npz and Arrow for many."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(definitions[value["$ref"].rpartition("/")[2]])
            return {key: inlined(entry) for key, entry in value.items()}
        return [inlined(entry) for entry in value] if isinstance(value, list) else value

    content = {JSON: {"schema": inlined(schema)}, NPZ: _BINARY, ARROW: _BINARY}
    return {"requestBody": {"required": True, "content": content}}


def _add_errors(routes: FastAPI) -> None:
    def told(request: Request, status: int, text: str) -> JSONResponse:
        headers = {"retry-after": "1"} if status == 503 else None
        return JSONResponse({"error": text, "request_id": request.state.request_id}, status, headers=headers)

    @routes.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> JSONResponse:
        return told(request, error.status, error.text)

    @routes.exception_handler(CFMVCError)
    async def unusable(request: Request, error: CFMVCError) -> JSONResponse:
        return told(request, 422, str(error))

    @routes.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return told(request, 422, "the request is not what the schema says")

    @routes.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> JSONResponse:
        response = told(request, error.status_code, str(error.detail))
        response.headers.update(error.headers or {})
        return response
