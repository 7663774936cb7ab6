"""Two hundred participants at the same time, and a server that is killed among them: no acknowledged vote is lost."""

import asyncio
import random
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from served_studies import free_port, start
from studies import a_study
from visitors import seal

from simdistill.study.ballot import digest

PEOPLE, PAIRS = 200, 5


async def patiently(ask):
    """The answer, however often the server has to be asked until it is there."""
    for _ in range(600):
        try:
            answer = await ask()
        except httpx.TransportError:
            await asyncio.sleep(0.2)
        else:
            assert answer.status_code < 500
            return answer
    raise TimeoutError


async def take_part(base, number, acknowledged):
    """Join and answer everything, some twice; note each vote when the server has said that it is stored."""
    rng = random.Random(number)
    async with httpx.AsyncClient(base_url=base, timeout=60, trust_env=False) as client:
        welcome = await patiently(lambda: client.get("/"))
        form = {"seal": seal(welcome.text), "consent": "yes"}
        await patiently(lambda: client.post("/join", data=form))
        (token,) = client.cookies.values()
        place = 1
        while place <= PAIRS:
            page = await patiently(lambda: client.get(f"/pair/{place}"))  # noqa: B023
            choice = rng.choice(["left", "right"])
            vote = {"seal": seal(page.text), "overall": choice}
            await asyncio.sleep(0.35 + rng.random())
            for _ in range(rng.choice([1, 1, 2])):  # a double click
                answer = await patiently(lambda: client.post(f"/pair/{place}", data=vote))  # noqa: B023
            if answer.headers["location"] != f"/pair/{place}":
                acknowledged[digest(token), place] = choice
                place += 1


@pytest.mark.slow
def test_two_hundred_at_once_and_a_kill(tmp_path):
    folder, port = a_study(tmp_path / "s", pairs=PAIRS), free_port()
    acknowledged, before = {}, {}
    processes = [start(folder, port)]

    async def kill_and_start():
        while len(acknowledged) < PEOPLE * PAIRS // 3:
            await asyncio.sleep(0.05)
        processes[0].send_signal(signal.SIGKILL)
        before.update(acknowledged)
        await asyncio.to_thread(processes[0].wait)
        processes.append(await asyncio.to_thread(start, folder, port))

    async def everybody():
        people = [take_part(f"http://127.0.0.1:{port}", number, acknowledged) for number in range(PEOPLE)]
        await asyncio.gather(kill_and_start(), *people)

    try:
        with ThreadPoolExecutor(1) as elsewhere:  # Playwright's tests leave this thread with a loop that runs
            elsewhere.submit(asyncio.run, everybody()).result()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert PEOPLE * PAIRS // 3 <= len(before) < PEOPLE * PAIRS
    with sqlite3.connect(folder.path / "votes.sqlite3") as connection:
        query = "SELECT digest, place, choice FROM votes JOIN participants ON participants.id = votes.participant_id"
        stored = {(who, place): choice for who, place, choice in connection.execute(query)}
        assert connection.execute("SELECT count(*) FROM participants").fetchone() == (PEOPLE,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(acknowledged) == PEOPLE * PAIRS
    assert stored == acknowledged
