import { Button, Center, Modal, Paper, PasswordInput, Stack, Text, Title } from "@mantine/core";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { onSignedInElsewhere, signIn } from "../api/actions";
import { ApiError, messageOf, setCsrfToken, type Role, type Schemas } from "../api/client";
import { sessionQuery } from "../api/queries";
import { Failure, Loading } from "./feedback";

type Session = Schemas["SessionAnswer"];

const SessionContext = createContext<Session | null>(null);
const rank: Record<Role, number> = { viewer: 1, operator: 2, admin: 3 };

export function useSession(): Session {
  const session = useContext(SessionContext);
  if (session === null) throw new Error("outside of SessionGate");
  return session;
}

/** Whether the person may do what this role may. The server asks again. */
export function useMay(role: Role): boolean {
  return rank[useSession().role as Role] >= rank[role];
}

/** Shows its children to those who are signed in, or need not be; to others a way in. Where a session ends under an
 * open page the way in lies over it: what was being written there is kept. */
export function SessionGate({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const session = useQuery(sessionQuery);
  const token = session.data?.csrf_token ?? null;
  setCsrfToken(token);
  useEffect(() => onSignedInElsewhere(() => void client.invalidateQueries()), [client]);
  if (session.isPending) return <Loading />;
  const isOut = session.error instanceof ApiError && session.error.status === 401;
  if (session.data === undefined) {
    return isOut ? <Center mih="100vh" p="md" component="main"><SignIn /></Center> : <Failure error={session.error} retry={() => void session.refetch()} />;
  }
  return (
    <SessionContext value={session.data}>
      {children}
      {isOut ? <SignInOver /> : null}
    </SessionContext>
  );
}

function SignInOver() {
  const { t } = useTranslation();
  return (
    <Modal.Root opened fullScreen closeOnEscape={false} onClose={() => undefined} zIndex={1000}>
      <Modal.Content aria-label={t("signIn.title")}>
        <Center mih="100vh" p="md"><SignIn /></Center>
      </Modal.Content>
    </Modal.Root>
  );
}

function SignIn() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState<string>();
  const [isBusy, setBusy] = useState(false);
  useEffect(() => {
    const before = document.title;
    document.title = `${t("signIn.title")} · ${t("app")}`;
    return () => {
      document.title = before;
    };
  }, [t]);

  const submit = async () => {
    setBusy(true);
    setProblem(undefined);
    try {
      client.setQueryData(sessionQuery.queryKey, await signIn(token.trim()));
      await client.invalidateQueries();
    } catch (error) {
      setProblem(messageOf(error));
    } finally {
      setBusy(false);
    }
  };

  return (
    <Paper withBorder p="xl" radius="lg" w={400} maw="100%" shadow="sm">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <Stack>
          <div>
            <Title order={1} size="h3">{t("app")}</Title>
            <Text c="dimmed" size="sm">{t("signIn.title")}</Text>
          </div>
          <PasswordInput
            label={t("signIn.token")}
            value={token}
            onChange={(event) => setToken(event.currentTarget.value)}
            error={problem}
            autoComplete="current-password"
            visibilityToggleButtonProps={{ "aria-label": t("signIn.show") }}
            required
            data-autofocus
          />
          <Text size="xs" c="dimmed" className="mono">{t("signIn.hint")}</Text>
          <Button type="submit" loading={isBusy} disabled={token.trim() === ""}>{t("signIn.submit")}</Button>
        </Stack>
      </form>
    </Paper>
  );
}
