import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./styles.css";
import "./i18n";

import { MantineProvider } from "@mantine/core";
import { ModalsProvider } from "@mantine/modals";
import { Notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { setNonce } from "get-nonce";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { useTranslation } from "react-i18next";

import { ApiError, onSignedOut } from "./api/client";
import { sessionQuery } from "./api/queries";
import { SessionGate } from "./components/session";
import { router } from "./router";
import { themeIn } from "./theme";

const nonce = document.querySelector<HTMLMetaElement>("meta[name=csp-nonce]")?.content ?? "";
setNonce(nonce);

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 2_000,
      retry: (failures, error) => !(error instanceof ApiError && error.status < 500) && failures < 3,
    },
    // What a person asks for is tried at once, and its failure told: it does not wait for a network without a word.
    mutations: { networkMode: "always" },
  },
});
onSignedOut(() => void client.invalidateQueries({ queryKey: sessionQuery.queryKey }));

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no #root");

function Dashboard() {
  const { t } = useTranslation();
  return (
    <MantineProvider theme={themeIn(t)} defaultColorScheme="auto" getStyleNonce={() => nonce}>
      <QueryClientProvider client={client}>
        <Notifications position="bottom-right" />
        <ModalsProvider>
          <SessionGate>
            <RouterProvider router={router} />
          </SessionGate>
        </ModalsProvider>
      </QueryClientProvider>
    </MantineProvider>
  );
}

createRoot(root).render(
  <StrictMode>
    <Dashboard />
  </StrictMode>,
);
