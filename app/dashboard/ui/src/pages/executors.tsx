import { Badge, Button, Group, SimpleGrid, Stack, Text, TextInput } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { IconRocket, IconSearch } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { enqueue } from "../api/actions";
import type { Executor, Schemas } from "../api/client";
import { executionsQuery, executorsQuery, executorStatisticsQuery } from "../api/queries";
import { useAct } from "../components/act";
import { AskParams } from "../components/ask-params";
import { JsonBlock, Loaded } from "../components/feedback";
import { Facts, Page, Section } from "../components/page";
import { useMay } from "../components/session";
import { Ago } from "../components/time";
import { count, duration, percent } from "../format";
import { jsonOf } from "../json";

export default function Executors() {
  const { t } = useTranslation();
  const found = useQuery(executorsQuery);
  const statistics = useQuery(executorStatisticsQuery("week"));
  const [wanted, setWanted] = useState("");
  const shown = found.data?.filter((executor) => executor.type.toLowerCase().includes(wanted.trim().toLowerCase())) ?? [];
  return (
    <Page title={t("executors.title")}>
      <TextInput
        type="search"
        maw={420}
        leftSection={<IconSearch size={16} aria-hidden />}
        aria-label={t("common.search")}
        placeholder={t("common.search")}
        value={wanted}
        onChange={(event) => setWanted(event.currentTarget.value)}
      />
      <Loaded query={found} none={shown.length === 0 ? t("executors.noMatch") : null}>
        {() => (
          <Stack gap="md">
            {shown.map((executor) => (
              <Card key={executor.type} executor={executor} statistics={statistics.data?.find((one) => one.task_type === executor.type)} />
            ))}
          </Stack>
        )}
      </Loaded>
    </Page>
  );
}

function Card({ executor, statistics }: { executor: Executor; statistics: Schemas["ExecutorStatistics"] | undefined }) {
  const { t, i18n } = useTranslation();
  const mayRun = useMay("operator");
  const { params_schema: schema, ...info } = executor.info;
  const ended = Object.values(statistics?.states ?? {}).reduce((sum, one) => sum + one, 0);
  return (
    <Section
      title={executor.type}
      aside={mayRun ? <RunOnce executor={executor} /> : null}
    >
      <SimpleGrid cols={{ base: 1, md: 2 }} spacing="lg">
        <Stack gap="sm">
          <Facts
            items={[
              [t("executors.lane"), t(executor.lane === "loop" ? "executors.loop" : "executors.thread")],
              [t("executors.timeout"), duration(executor.timeout_seconds)],
              [t("executors.attempts"), executor.retry_on === null ? executor.max_attempts : t("executors.attemptsOn", { attempts: executor.max_attempts, errors: executor.retry_on.join(", ") })],
              [`${t("executors.executed")} · ${t("period.week")}`, count(ended, i18n.language)],
              [t("executors.success"), percent(statistics?.success_rate, i18n.language)],
              [t("executors.durations"), `${duration(statistics?.p50_seconds)} / ${duration(statistics?.p95_seconds)}`],
            ]}
          />
          <Failures type={executor.type} />
        </Stack>
        <Stack gap="sm">
          {schema == null ? <Text size="sm" c="dimmed">{t("executors.noSchema")}</Text> : <Fields schema={schema} />}
          <details>
            <summary style={{ cursor: "pointer", fontSize: "0.875rem" }}>{t("executors.info")}</summary>
            <JsonBlock value={info} label={`${t("executors.info")}: ${executor.type}`} />
          </details>
        </Stack>
      </SimpleGrid>
    </Section>
  );
}

interface Schema {
  properties?: Record<string, { type?: string; description?: string; default?: unknown; anyOf?: { type?: string }[]; enum?: unknown[] }>;
  required?: string[];
}

function Fields({ schema }: { schema: Schema }) {
  const { t } = useTranslation();
  return (
    <Facts
      items={Object.entries(schema.properties ?? {}).map(([name, field]) => [
        name,
        <Group key={name} gap={6}>
          <span className="mono">{field.type ?? field.anyOf?.map((option) => option.type ?? "…").join(" | ") ?? "…"}</span>
          {schema.required?.includes(name) ? null : <Badge size="xs" variant="default" tt="none">{field.default == null ? t("common.optional") : jsonOf(field.default)}</Badge>}
          {field.description ? <Text size="xs" c="dimmed">{field.description}</Text> : null}
        </Group>,
      ])}
    />
  );
}

function Failures({ type }: { type: string }) {
  const { t } = useTranslation();
  const found = useInfiniteQuery(executionsQuery({ state: ["failed"], task_type: type }, 5));
  const rows = found.data?.pages[0]?.items.slice(0, 5) ?? [];
  return (
    <div>
      <Text size="sm" fw={600} mb={4}>{t("executors.failures")}</Text>
      {rows.length === 0 ? <Text size="sm" c="dimmed">{t("executors.noFailures")}</Text> : null}
      {rows.map((row) => (
        <Group key={row.id} gap="xs" wrap="nowrap">
          <Link className="link number" to="/executions/$id" params={{ id: row.id }}>#{row.id}</Link>
          <Text size="sm" className="clip" flex={1}>{row.error}</Text>
          <Text size="xs" c="dimmed" component="div"><Ago at={row.finished_at} /></Text>
        </Group>
      ))}
    </div>
  );
}

function RunOnce({ executor }: { executor: Executor }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const [isAsking, ask] = useDisclosure();
  const run = useAct((params: Record<string, unknown>) => enqueue({ task_type: executor.type, params: params, priority: 0 }), {
    done: (made) => t("tasks.ran", { id: made.id }),
    then: (made) => void navigate({ to: "/executions/$id", params: { id: made.id } }),
  });
  return (
    <>
      <Button size="xs" variant="default" leftSection={<IconRocket size={14} aria-hidden />} onClick={ask.open} aria-label={`${t("executors.runOnce")}: ${executor.type}`}>{t("executors.runOnce")}</Button>
      <AskParams opened={isAsking} title={t("executors.runTitle", { type: executor.type })} taskType={executor.type} params={{}} onClose={ask.close} submit={(params) => run.mutateAsync(params)} />
    </>
  );
}
