import { MantineProvider } from "@mantine/core";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { act, render, screen, waitFor } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { expect, test } from "vitest";

import { ApiError } from "../api/client";
import { sessionQuery } from "../api/queries";
import { SessionGate } from "./session";

test("where a session ends under a page the way in lies over it, and what was written there is kept", async () => {
  const client = new QueryClient();
  const session = { name: "ann", role: "operator", csrf_token: "c" };
  client.setQueryData(sessionQuery.queryKey, session);
  render(
    <MantineProvider env="test">
      <QueryClientProvider client={client}><SessionGate><input aria-label="draft" /></SessionGate></QueryClientProvider>
    </MantineProvider>,
  );
  await userEvent.type(screen.getByLabelText("draft"), "half written");
  act(() => client.getQueryCache().find({ queryKey: sessionQuery.queryKey })?.setState({ status: "error", error: new ApiError(401, {}) }));
  expect(await screen.findByRole("dialog", { name: "Sign in" })).toBeInTheDocument();
  act(() => void client.setQueryData(sessionQuery.queryKey, session));
  await waitFor(() => expect(screen.queryByRole("dialog")).toBeNull());
  expect(screen.getByLabelText("draft")).toHaveValue("half written");
});
