import asyncio

from serving.grpc.gathering import Gathering


def test_calls_of_several_turns_go_on_in_one_and_a_caller_that_left_holds_nobody():
    gathering, turn, went_on = Gathering(), [0], []

    async def count_turns():
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    async def call(name):
        await gathering.join()
        went_on.append((name, turn[0]))

    async def main():
        counting = asyncio.create_task(count_turns())
        calls = []
        for name in "abc":
            calls.append(asyncio.create_task(call(name)))
            await asyncio.sleep(0)
        leaving = asyncio.create_task(call("left"))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(*calls)
        await asyncio.wait_for(call("alone"), 5)
        counting.cancel()

    asyncio.run(main())
    names, turns = zip(*went_on, strict=True)
    assert names == ("a", "b", "c", "alone")
    assert len(set(turns[:3])) == 1
    assert turns[3] > turns[0]
