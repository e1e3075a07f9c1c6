import { Alert, Button, Center, Loader, Stack, Text } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import type { ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { messageOf } from "../api/client";
import { json, visible } from "../format";
import { Copy } from "./copy";

export function Loading() {
  const { t } = useTranslation();
  return (
    <Center mih={120} role="status" aria-label={t("common.loading")}>
      <Loader size="sm" />
    </Center>
  );
}

export function Failure({ error, retry }: { error: unknown; retry?: () => void }) {
  const { t } = useTranslation();
  return (
    <Alert color="red" variant="outline" icon={<IconAlertTriangle aria-hidden />} title={t("common.error")} role="alert">
      <Stack gap="xs" align="flex-start">
        <Text size="sm" className="wrap">{messageOf(error)}</Text>
        {retry ? <Button size="xs" variant="default" onClick={retry}>{t("common.retry")}</Button> : null}
      </Stack>
    </Alert>
  );
}

/** In the place of a page that could not be shown. */
export function PageFailure({ error }: { error: unknown }) {
  const { t } = useTranslation();
  return (
    <Alert color="red" variant="outline" icon={<IconAlertTriangle aria-hidden />} title={t("common.noPage")} role="alert">
      <Stack gap="xs" align="flex-start">
        <Text size="sm" className="wrap">{messageOf(error)}</Text>
        <Button size="xs" variant="default" onClick={() => window.location.reload()}>{t("common.reload")}</Button>
      </Stack>
    </Alert>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return (
    <Center mih={96} p="md">
      <Text c="dimmed" size="sm" ta="center">{children}</Text>
    </Center>
  );
}

interface LoadedProps<T> {
  query: { data: T | undefined; error: unknown; refetch: () => unknown };
  /** What to say where there is nothing. */
  none?: string | null;
  children: (data: T) => ReactNode;
}

/** What a query brought; until then that it is on its way, or why it does not come. */
export function Loaded<T>({ query: { data, error, refetch }, none, children }: LoadedProps<T>) {
  if (data === undefined) return error ? <Failure error={error} retry={() => void refetch()} /> : <Loading />;
  return none ? <Empty>{none}</Empty> : children(data);
}

/** Text as it is, whatever is in it. */
export function Block({ text, label }: { text: string; label: string }) {
  return (
    <div style={{ position: "relative" }}>
      <pre className="log mono wrap" style={{ margin: 0, paddingRight: "2.5rem" }} tabIndex={0} role="region" aria-label={label}>
        {visible(text)}
      </pre>
      <div style={{ position: "absolute", top: 6, right: 6 }}>
        <Copy text={text} />
      </div>
    </div>
  );
}

export function JsonBlock({ value, label }: { value: unknown; label: string }) {
  return <Block text={json(value)} label={label} />;
}
