import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider, useQuery } from "@tanstack/react-query";
import { act, render, screen } from "@testing-library/react";
import { expect, test, vi } from "vitest";

import { useAct, useActOnMany } from "./act";

function Buttons({ ask }: { ask: (id: number) => Promise<unknown> }) {
  const one = useAct(ask);
  const many = useActOnMany(ask);
  return (
    <>
      <button onClick={() => one.mutate(1)}>one</button>
      <button onClick={() => one.mutate(2)}>another</button>
      <button onClick={() => many.mutate([3, 4])}>many</button>
    </>
  );
}

test("a double click acts once; another thing, and the same one later, are acted on", async () => {
  const ask = vi.fn(() => Promise.resolve());
  render(
    <MantineProvider>
      <QueryClientProvider client={new QueryClient()}><Buttons ask={ask} /></QueryClientProvider>
    </MantineProvider>,
  );
  const clicks = async (...names: string[]) => {
    await act(async () => {
      names.forEach((name) => screen.getByText(name).click());
      await new Promise((after) => setTimeout(after, 20));
    });
    return ask.mock.calls.splice(0).map(([id]: number[]) => id);
  };
  expect(await clicks("one", "one", "another")).toEqual([1, 2]);
  expect(await clicks("one")).toEqual([1]);
  expect(await clicks("many", "many")).toEqual([3, 4]);
});

test("what was refused can be asked for again before the page has been read anew", async () => {
  const ask = vi.fn(() => Promise.reject(new Error("no")));
  const client = new QueryClient();
  client.setQueryData(["page"], "as it was");
  const Reading = () => {
    useQuery({ queryKey: ["page"], queryFn: () => new Promise<string>(() => undefined), staleTime: Infinity });
    return <Buttons ask={ask} />;
  };
  render(<MantineProvider><QueryClientProvider client={client}><Reading /></QueryClientProvider></MantineProvider>);
  const click = () =>
    act(async () => {
      screen.getByText("one").click();
      await new Promise((after) => setTimeout(after, 20));
    });
  await click();
  await click();
  expect(ask).toHaveBeenCalledTimes(2);
});
