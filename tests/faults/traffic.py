"""What clients ask for meanwhile, and what they were answered."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults import workflow
from tests.faults.deployment import Deployment
from tests.faults.journey import SIGNALS

API = "http://127.0.0.1:{port}/api/v1/scheduler"
LIMITS = {"narrow": 1, "wide": 3}
TRAVELLERS = 8
"""Of the clients so many begin journeys and workflows, signal to them and decide."""
DOOMED = 0.2


@dataclass(slots=True)
class Traffic:
    """Clients that enqueue with idempotency keys until they are answered, and remember the answers.

    Attributes:
        acknowledged: idempotency key → the execution it was answered with.
        signalled: execution → the numbers of the signals that were acknowledged.
        decided: approval → the comment of the decision that was acknowledged.
    """

    deployment: Deployment
    seed: int
    pause: float
    acknowledged: dict[str, int] = field(default_factory=dict)
    signalled: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    decided: dict[int, str] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, clients: int) -> None:
        for number in range(clients):
            thread = threading.Thread(target=self._client, args=(number,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _client(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        count = 0
        with httpx.Client(timeout=5) as http:
            while not self._stop.is_set():
                count += 1
                key = f"client-{number}-{count}"
                if number >= TRAVELLERS:
                    self._ask(http, chance, key)
                elif (count + number) % 2:
                    self._travel(http, chance, key)
                else:
                    self._flow(http, chance, key)
                time.sleep(self.pause * chance.random())

    def _ask(self, http: httpx.Client, chance: random.Random, key: str) -> None:
        limited = chance.choice([None] * 14 + [*LIMITS])
        body: dict[str, Any] = {
            "task_type": "effect",
            "params": {"seconds": chance.choice([0, 0.02, 0.3]), "failing": 0.1, "key": limited},
            "priority": chance.choice([0, 0, 5]),
        }
        if limited is not None:
            body |= {"concurrency_key": limited, "concurrency_limit": LIMITS[limited]}
        answer = self._insist(http, chance, "POST", "/executions", body, {"Idempotency-Key": key})
        if answer is not None:
            self.acknowledged[key] = answer.json()["id"]

    def _travel(self, http: httpx.Client, chance: random.Random, key: str) -> None:
        """Begin a journey and send it its signals: some come before it waits for them, some long after."""
        journey = {"task_type": "journey"}
        begun = self._insist(http, chance, "POST", "/executions", journey, {"Idempotency-Key": key})
        if begun is None:
            return
        execution = self.acknowledged[key] = begun.json()["id"]
        for number in range(SIGNALS):
            time.sleep(chance.choice([0, 0.3, 0.5, 1.0]))
            signal = {"name": "go", "payload": number}
            sent = self._insist(http, chance, "POST", f"/executions/{execution}/signals", signal)
            if sent is None or sent.status_code == 409:  # it is over: an answer to an earlier try was lost
                return
            self.signalled[execution].append(number)

    def _flow(self, http: httpx.Client, chance: random.Random, key: str) -> None:
        """Begin a workflow and decide when it asks."""
        body = {"task_type": "workflow", "params": workflow.definition(doomed=chance.random() < DOOMED)}
        begun = self._insist(http, chance, "POST", "/executions", body, {"Idempotency-Key": key})
        if begun is None:
            return
        execution = self.acknowledged[key] = begun.json()["id"]
        while True:
            time.sleep(0.5)
            shown = self._insist(http, chance, "GET", f"/executions/{execution}")
            if shown is None or shown.json()["finished_at"] is not None:
                return
            for child in shown.json()["children"]:
                if child["child_key"] == workflow.APPROVAL and child["state"] == "suspended":
                    decision = {"approved": True, "comment": key}
                    path = f"/executions/{child['id']}/decision"
                    made = self._insist(http, chance, "POST", path, decision)
                    if made is not None and made.is_success:
                        self.decided[child["id"]] = key
                    return

    def _insist(
        self,
        http: httpx.Client,
        chance: random.Random,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        """Ask until it is answered, by any server; None: the run is over."""
        while not self._stop.is_set():
            server = chance.choice(self.deployment.servers)
            with suppress(httpx.HTTPError):
                answer = http.request(method, API.format(port=server.port) + path, json=body, headers=headers)
                if answer.is_success or answer.status_code == 409:
                    return answer
                if answer.status_code < 500:
                    raise AssertionError(f"{answer.status_code}: {answer.text}")
            time.sleep(0.05)
        return None
