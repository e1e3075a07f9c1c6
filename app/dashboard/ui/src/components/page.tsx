import { Group, Paper, Stack, Title } from "@mantine/core";
import { useEffect, type ReactNode } from "react";
import { useTranslation } from "react-i18next";

import { visible } from "../format";

interface PageProps {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
}

/** A page: its heading, what can be done, and its parts. */
export function Page({ title, aside, children }: PageProps) {
  const { t } = useTranslation();
  useEffect(() => {
    document.title = `${visible(title)} · ${t("app")}`;
  });
  return (
    <Stack className="page" gap="md">
      <Group justify="space-between" align="center" gap="sm">
        <Title order={1} size="h2">{visible(title)}</Title>
        <Group gap="xs">{aside}</Group>
      </Group>
      {children}
    </Stack>
  );
}

interface SectionProps {
  title: string;
  aside?: ReactNode;
  children: ReactNode;
  flush?: boolean;
}

export function Section({ title, aside, children, flush }: SectionProps) {
  return (
    <Paper component="section" className={flush ? "flush" : undefined} withBorder radius="md" aria-label={title} style={{ overflow: "hidden", minWidth: 0 }}>
      <Group justify="space-between" px="md" pt="sm" pb={flush ? "sm" : 0} gap="xs">
        <Title order={2} size="h5">{visible(title)}</Title>
        {aside}
      </Group>
      {flush ? children : <Stack px="md" py="sm" gap="sm">{children}</Stack>}
    </Paper>
  );
}

/** Names and values, side by side where there is room. */
export function Facts({ items }: { items: [string, ReactNode][] }) {
  return (
    <dl style={{ display: "grid", gridTemplateColumns: "minmax(7rem, max-content) 1fr", gap: "0.4rem 1rem", margin: 0 }}>
      {items.map(([name, value]) => (
        <div key={name} style={{ display: "contents", fontSize: "0.875rem" }}>
          <dt style={{ color: "var(--mantine-color-dimmed)" }}>{name}</dt>
          <dd style={{ margin: 0, minWidth: 0, overflowWrap: "anywhere" }}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}
