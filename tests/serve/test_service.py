"""The service answers as the exported model does, and refuses in words (needs the extras onnx, serve and client)."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from cfmvc_scvi.runtime import Bundle
from cfmvc_scvi.wire import ARROW, NPZ, read_arrow, read_npz, write_arrow, write_npz

pytestmark = pytest.mark.serving
TOKEN = "a-token-for-the-tests"
RUN = "from cfmvc_scvi.cli import main; main()"
ASKED: dict[str, Any] = {"perturbation": "A", "dose": 2.0, "seed": 5}


def post(live: Any, route: str, **content: Any) -> Any:
    async def send() -> Any:
        async with live.http() as http:
            return await http.post(route, **content)

    return asyncio.run(send())


def without_counts(question: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in question.items() if name != "counts"}


def test_json_npz_and_arrow_are_answered_as_by_the_bundle(
    live: Any, bundle: Bundle, few: ad.AnnData, question: dict[str, Any]
) -> None:
    expected = bundle.counterfactual(few[:4].copy(), **ASKED)
    header, counts = without_counts(question), sparse.csr_matrix(few.X[:4])
    told = post(live, "/v1/counterfactual", json=question).json()
    np.testing.assert_array_equal(told["counts"], expected.dense)
    np.testing.assert_allclose(told["counterfactual_latent"], expected.obsm["X_cfmvc_counterfactual"], atol=1e-6)
    assert told["obs"]["target_condition"] == list(expected.obs["target_condition"])

    arrays = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}
    answer = post(live, "/v1/counterfactual", content=write_npz(header, arrays), headers={"content-type": NPZ})
    told, found = read_npz(answer.content, 10**8)
    shape = (4, len(told["genes"]))
    got = sparse.csr_matrix((found["data"], found["indices"], found["indptr"]), shape=shape)
    np.testing.assert_array_equal(got.toarray(), expected.dense)

    body = write_arrow(header, counts, {})
    answer = post(live, "/v1/counterfactual", content=body, headers={"content-type": ARROW})
    told, got, latents = read_arrow(answer.content, "genes")
    np.testing.assert_array_equal(got.toarray(), expected.dense)
    np.testing.assert_allclose(latents["latent"], expected.obsm["X_cfmvc"], atol=1e-6)


def test_fifty_concurrent_requests_get_what_each_gets_alone(
    live: Any, bundle: Bundle, few: ad.AnnData, question: dict[str, Any]
) -> None:
    asked = [{"perturbation": p, "dose": d} for p, d in (("A", 2.0), ("A", 0.5), ("B", 2.0), ("A+B", 1.0))]

    async def all_at_once() -> list[Any]:
        async with live.http() as http:
            return await asyncio.gather(
                *(http.post("/v1/counterfactual", json={**question, **asked[n % 4]}) for n in range(50))
            )

    answers = asyncio.run(all_at_once())
    assert [answer.status_code for answer in answers] == [200] * 50
    for number in range(4):
        expected = bundle.counterfactual(few[:4].copy(), **asked[number], seed=5)
        for answer in answers[number::4]:
            np.testing.assert_allclose(answer.json()["counts"], expected.dense, atol=1e-5)
            latent = answer.json()["counterfactual_latent"]
            np.testing.assert_allclose(latent, expected.obsm["X_cfmvc_counterfactual"], atol=1e-5)
    metrics = asyncio.run(get(live, "/metrics")).text
    assert 'cfmvc_batch_cells_bucket{le="5.0"}' in metrics and "cfmvc_requests_total" in metrics


async def get(live: Any, path: str) -> Any:
    async with live.http() as http:
        return await http.get(path)


def test_a_long_answer_in_arrow_comes_in_parts(start: Callable[..., Any], bundle: Bundle, few: ad.AnnData) -> None:
    live = start()
    cells = ad.concat([few] * 80, index_unique="-")
    cells.obs_names = [str(number) for number in range(cells.n_obs)]
    columns = bundle.card.columns.required
    header = {
        "genes": list(cells.var_names),
        "names": list(cells.obs_names),
        "obs": {column: cells.obs[column].tolist() for column in columns},
        **ASKED,
    }

    async def read() -> list[bytes]:
        body = write_arrow(header, sparse.csr_matrix(cells.X), {})
        async with (
            live.http() as http,
            http.stream("POST", "/v1/counterfactual", content=body, headers={"content-type": ARROW}) as response,
        ):
            assert response.status_code == 200
            return [part async for part in response.aiter_raw()]

    parts = asyncio.run(read())
    assert len(parts) > 2
    expected = bundle.counterfactual(cells, **ASKED)
    np.testing.assert_array_equal(read_arrow(b"".join(parts), "genes")[1].toarray(), expected.dense)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"perturbation": "Z"}, 422, "unknown perturbation 'Z'"),
        ({"labels": "type_9"}, 422, "'type_9' is not in the registered label categories"),
        ({"obs": {}}, 422, "is not in obs"),
        ({"genes": ["x"]}, 422, "another number of counts"),
        ({"counts": [[-1] * 80] * 4}, 422, "negative"),
        ({"counts": [[0.5] * 80] * 4}, 422, "non-integer"),
        ({"counts": []}, 422, "counts"),
        ({"more": 1}, 422, "more: Extra inputs"),
        ({"seed": -1}, 422, "seed"),
        ({"n_samples": 9}, 422, "n_samples is 9; at most 8"),
        ({"solver": {"n_steps": 101}}, 422, "n_steps is 101; at most 100"),
        ({"solver": {"method": "rk4"}}, 422, "'rk4' was not exported"),
        ({"strength": 2.0}, 422, "strength"),
        ({"counts": [[0] * 80] * 300, "names": None}, 413, "300 cells in JSON; at most 256"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_words(
    live: Any, question: dict[str, Any], change: dict[str, Any], status: int, words: str
) -> None:
    answer = post(live, "/v1/counterfactual", json={**question, **change})
    assert answer.status_code == status and words in answer.json()["error"]
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert "Traceback" not in answer.text and ".py" not in answer.text and "/site-packages" not in answer.text


def test_other_bodies_are_refused(live: Any, question: dict[str, Any]) -> None:
    def status(content: bytes, kind: str) -> int:
        return post(live, "/v1/counterfactual", content=content, headers={"content-type": kind}).status_code

    assert status(b"{}", "application/x-hdf5") == 415 and status(b"\x80\x04.", "application/octet-stream") == 415
    assert status(b"", "application/json") == 422 and status(b"\xff", "application/json") == 422
    text = np.frombuffer(json.dumps(without_counts(question)).encode(), dtype=np.uint8)
    np.savez_compressed(stream := io.BytesIO(), header=text, counts=np.zeros((4, 80_000_000 // 8)))
    bomb = stream.getvalue()
    assert len(bomb) < 2**20 and status(bomb, NPZ) == 413
    assert status(b"x" * (2**20 + 1), NPZ) == 413
    assert status(write_npz(without_counts(question), {"counts": np.zeros((501, 80))}), NPZ) == 413
    surrogates = {**without_counts(question), "names": ["\ud800"] * 4}
    assert status(write_npz(surrogates, {"counts": np.zeros((4, 80))}), NPZ) == 422


def test_the_token_opens_every_route_and_stays_secret(live: Any) -> None:
    import httpx

    for path in ("/v1/model", "/metrics", "/docs", "/openapi.json", "/nowhere"):
        assert httpx.get(live.url + path).status_code == 401
        assert httpx.post(live.url + path, content=b"x" * 10**6).status_code == 401
        expected = 404 if path == "/nowhere" else 200
        assert asyncio.run(get(live, path)).status_code == expected
    log = live.log.read_text()
    assert TOKEN not in log
    entries = [json.loads(line) for line in log.splitlines()]
    assert {"request_id", "route", "status", "seconds"} <= {name for entry in entries for name in entry}


def test_no_start_without_a_token_but_on_loopback(exported: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CFMVC_SCVI_TOKEN"}
    words = [sys.executable, "-c", RUN, "serve", str(exported), "--host", "0.0.0.0"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "no token is set" in done.stderr


def test_a_slow_client_and_floods_do_not_stop_others(live: Any, question: dict[str, Any]) -> None:
    async def everything() -> list[float]:
        port = int(live.url.rpartition(":")[2])
        head = f"POST /v1/encode HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 1000\r\n\r\n"
        slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        for _, writer in slow:
            writer.write(head.encode() + b"{")
            await writer.drain()
        times = []
        async with live.http() as http:
            oversize = [http.post("/v1/encode", content=b"x" * 2**21) for _ in range(20)]
            malformed = [http.post("/v1/encode", content=b"{" * 1000) for _ in range(50)]
            flood = asyncio.gather(*oversize, *malformed, return_exceptions=True)
            for _ in range(10):
                start = time.perf_counter()
                answer = await http.post("/v1/counterfactual", json=question)
                assert answer.status_code == 200
                times.append(time.perf_counter() - start)
            for answer in await flood:  # who is refused while sending may find the connection closed
                assert isinstance(answer, Exception) or answer.status_code in (413, 415, 422)
        for _, writer in slow:
            writer.close()
        return times

    assert max(asyncio.run(everything())) < 20


def test_sigterm_lets_requests_in_work_finish(start: Callable[..., Any], question: dict[str, Any]) -> None:
    live = start()

    async def drained() -> tuple[list[Any], int]:
        async with live.http() as http:
            asked = [http.post("/v1/counterfactual", json={**question, "seed": seed}) for seed in range(100, 160)]
            tasks = [asyncio.create_task(each) for each in asked]
            await asyncio.sleep(0.6)
            assert not all(task.done() for task in tasks)
            live.process.send_signal(signal.SIGTERM)
            answers = await asyncio.gather(*tasks)
        return answers, await asyncio.to_thread(live.process.wait, 60)

    answers, code = asyncio.run(drained())
    assert [answer.status_code for answer in answers] == [200] * 60
    assert code in (0, -signal.SIGTERM)


def test_a_killed_worker_is_replaced(start: Callable[..., Any], question: dict[str, Any]) -> None:
    live = start("--workers", "2")

    def workers() -> set[int]:
        children = Path(f"/proc/{live.process.pid}/task/{live.process.pid}/children").read_text().split()
        return {int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}

    before = workers()
    assert len(before) == 2
    outcomes = asyncio.run(while_one_dies(live, question, min(before)))
    cut_off = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    assert set(outcomes) - set(cut_off) == {200} and len(cut_off) < len(outcomes) / 2  # those that it had in work
    for _ in range(300):
        if len(workers() - {min(before)}) == 2:
            break
        time.sleep(0.1)
    after = workers()
    assert len(after) == 2 and min(before) not in after
    statuses = [post(live, "/v1/counterfactual", json=question).status_code for _ in range(6)]
    assert statuses == [200] * 6
    assert "cfmvc_requests_total" in asyncio.run(get(live, "/metrics")).text
    assert live.stop() in (0, -signal.SIGTERM)


async def while_one_dies(live: Any, question: dict[str, Any], worker: int) -> list[Any]:
    """Return what twenty clients get who each ask three times, on new connections, while a worker is killed."""

    import httpx

    async def one(number: int) -> list[Any]:
        outcomes: list[Any] = []
        for turn in range(3):
            async with live.http() as http:
                try:
                    answer = await http.post("/v1/counterfactual", json=question)
                    outcomes.append(answer.status_code)
                except httpx.TransportError as error:  # the connection to the one that dies
                    outcomes.append(error)
            if number == turn == 0:
                os.kill(worker, signal.SIGKILL)
        return outcomes

    return [outcome for each in await asyncio.gather(*map(one, range(20))) for outcome in each]
