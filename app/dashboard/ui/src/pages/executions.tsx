import { Button, Group, MultiSelect, Paper, Select, SimpleGrid, Text } from "@mantine/core";
import { IconPlayerStop, IconRefresh } from "@tabler/icons-react";
import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";

import { cancelExecution, retryExecution } from "../api/actions";
import type { ExecutionState } from "../api/client";
import { executionsQuery, executorsQuery, taskQuery, type ExecutionFilters } from "../api/queries";
import { useActOnMany, useConfirm } from "../components/act";
import { ExecutionTable } from "../components/execution-table";
import { typesWith } from "../components/executor-types";
import { MomentPicker } from "../components/moment-picker";
import { Page } from "../components/page";
import { SearchBox } from "../components/search-box";
import { useMay } from "../components/session";
import { triggerText } from "../components/state";
import { executionsRoute } from "../router";
import { stateColors } from "../theme";

const states = Object.keys(stateColors) as ExecutionState[];
const triggers = ["schedule", "catch_up", "backfill", "manual", "api", "code", "cli", "parent", "alert"];

export default function Executions() {
  const { t } = useTranslation();
  const filters = executionsRoute.useSearch();
  const mayChange = useMay("operator");
  const [picked, setPicked] = useState<ReadonlySet<number>>(new Set());
  // Of what was picked only what is seen is acted on: the filters may have changed since.
  const found = useInfiniteQuery(executionsQuery(filters));
  const chosen = (found.data?.pages ?? []).flatMap((page) => page.items.map((row) => row.id)).filter((id) => picked.has(id));
  const isFiltered = Object.values(filters as Record<string, unknown>).some((value) => value !== undefined);
  return (
    <Page title={t("executions.title")}>
      <Filters key={filters.task_id} filters={filters} isFiltered={isFiltered} />
      {chosen.length > 0 ? <Bulk ids={chosen} clear={() => setPicked(new Set())} /> : null}
      <Paper withBorder radius="md" style={{ overflow: "hidden" }}>
        <ExecutionTable
          filters={filters}
          empty={t(isFiltered ? "executions.noMatch" : "executions.empty")}
          picked={picked}
          onPick={mayChange ? setPicked : undefined}
        />
      </Paper>
    </Page>
  );
}

function Filters({ filters, isFiltered }: { filters: ExecutionFilters; isFiltered: boolean }) {
  const { t } = useTranslation();
  const navigate = useNavigate({ from: "/executions" });
  const executors = useQuery(executorsQuery);
  const task = useQuery({ ...taskQuery(filters.task_id ?? 0), enabled: filters.task_id !== undefined });
  const [clears, setClears] = useState(0); // what is being typed goes too
  const change = (changes: ExecutionFilters) => void navigate({ search: (before) => ({ ...before, ...changes }), replace: true });
  return (
    <SimpleGrid cols={{ base: 2, md: 4 }} spacing="xs" role="search">
      <SearchBox key={clears} searched={filters.search ?? ""} placeholder={t("executions.searchHint")} search={(text) => change({ search: text || undefined })} />
      <MultiSelect aria-label={t("common.state")} placeholder={filters.state ? undefined : t("executions.anyState")} clearable value={filters.state ?? []} data={states.map((value) => ({ value, label: t(`state.${value}`) }))} onChange={(value) => change({ state: value.length > 0 ? (value as ExecutionState[]) : undefined })} />
      <Select aria-label={t("common.type")} placeholder={t("common.type")} clearable data={typesWith(executors.data, filters.task_type)} value={filters.task_type ?? null} onChange={(value) => change({ task_type: value ?? undefined })} />
      <Select aria-label={t("executions.trigger")} placeholder={t("executions.trigger")} clearable data={triggers.map((value) => ({ value, label: triggerText(t, value) }))} value={filters.trigger ?? null} onChange={(value) => change({ trigger: value ?? undefined })} />
      <MomentPicker aria-label={t("executions.since")} placeholder={t("executions.since")} clearable value={filters.since} onChange={(since) => change({ since: since ?? undefined })} />
      <MomentPicker aria-label={t("executions.until")} placeholder={t("executions.until")} clearable value={filters.until} onChange={(until) => change({ until: until ?? undefined })} />
      {filters.task_id !== undefined ? (
        <Button variant="light" onClick={() => change({ task_id: undefined })} rightSection="×"><span className="clip">{t("executions.task")}: {task.data?.name ?? filters.task_id}</span></Button>
      ) : null}
      {filters.parent_id !== undefined ? (
        <Button variant="light" onClick={() => change({ parent_id: undefined })} rightSection="×">{t("executions.childrenOf", { id: filters.parent_id })}</Button>
      ) : null}
      {isFiltered ? (
        <Button
          variant="subtle"
          onClick={() => {
            setClears(clears + 1);
            void navigate({ search: {}, replace: true });
          }}
        >
          {t("common.clear")}
        </Button>
      ) : null}
    </SimpleGrid>
  );
}

function Bulk({ ids, clear }: { ids: number[]; clear: () => void }) {
  const { t } = useTranslation();
  const confirm = useConfirm();
  const retry = useActOnMany(retryExecution, clear);
  const cancel = useActOnMany(cancelExecution, clear);
  const label = t("common.selected", { count: ids.length });
  return (
    <Paper withBorder p="xs" radius="md" role="region" aria-label={label}>
      <Group gap="xs">
        <Text size="sm" fw={600}>{label}</Text>
        <Button size="xs" variant="default" loading={retry.isPending} leftSection={<IconRefresh size={14} aria-hidden />} onClick={() => retry.mutate(ids)}>{t("executions.retry")}</Button>
        <Button
          size="xs"
          color="red"
          variant="outline"
          loading={cancel.isPending}
          leftSection={<IconPlayerStop size={14} aria-hidden />}
          onClick={() => confirm(t("executions.bulkCancelTitle", { count: ids.length }), null, t("executions.cancel"), () => cancel.mutate(ids))}
        >
          {t("executions.cancel")}
        </Button>
        <Button size="xs" variant="subtle" onClick={clear}>{t("common.close")}</Button>
      </Group>
    </Paper>
  );
}
